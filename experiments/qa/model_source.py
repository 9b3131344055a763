"""A model's name -> where it is, and the digest of its weights. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...errors import MemxError
from ...results.store.resuming import resume_hint
from ...results.store.runs import Run

_WEIGHTS = ("*.safetensors", "*.json")


class ModelSource(NamedTuple):
    """Where a model is.

    Attributes:
        source: What `load_host` loads: a folder or a name on the hub.
        label: Its name in tables.
        run: The run folder of memx train that it is from.
    """

    source: str
    label: str
    run: Path | None = None


def find_model(name: str, runs: Path) -> ModelSource:
    """Find a model by its name.

    Args:
        name: A run of memx train (its folder, or its name below `runs`), a checkpoint, or another name, of which only
            `load_host` finds out whether it is a model.
        runs: The folder of runs.

    Returns:
        Where the model is.

    Raises:
        MemxError: A run has no checkpoint.
    """
    path = Path(name).expanduser()
    folder = path if path.is_dir() else runs / name
    if (folder / "run.json").is_file():
        if not (folder / "checkpoint" / "config.json").is_file():
            raise MemxError(f"the run {folder} has no checkpoint", hint=resume_hint(Run(folder)))
        return ModelSource(str(folder / "checkpoint"), folder.resolve().name, folder)
    whole = path.resolve()
    if path.is_dir() and whole.name == "checkpoint" and (whole.parent / "run.json").is_file():
        return ModelSource(str(path), whole.parent.name, whole.parent)
    return ModelSource(name, whole.name if path.is_dir() else name)


def weights_digest(source: str) -> str:
    """Compute the digest of a folder's weights and config; empty for a name that is no folder."""
    folder = Path(source).expanduser()
    return digest(path for kind in _WEIGHTS for path in folder.glob(kind)) if folder.is_dir() else ""


def digest(paths: Iterable[Path]) -> str:
    """Compute the SHA-256 of files with their names, in the order of their paths.

    Args:
        paths: The files.

    Returns:
        The digest in hexadecimal.

    Raises:
        MemxError: A file cannot be read.
    """
    whole = hashlib.sha256()
    for path in sorted(paths):
        try:
            with path.open("rb") as file:
                whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise MemxError(
                f"cannot read {path}: {error.strerror or error}", hint="check the path and its permissions"
            ) from None
    return whole.hexdigest()
