"""The folder that `memx prepare` writes: who may write into it, what an earlier try left, and how it is emptied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ....errors import MemxError
from ....files import make_folder, write_atomically
from .readers.prepared import MANIFEST, TOKENIZER, UNFINISHED, Settings, Shard

_LOCK = ".lock"
_OURS = (MANIFEST, UNFINISHED, "shard-*.bin", "shard-*.idx", ".shard-*")


class Progress(BaseModel):
    """unfinished.json: the settings, the shards that are written, and where reading goes on after them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings
    shards: tuple[Shard, ...] = ()
    place: tuple[int, object] = (0, None)  # a source's number and a place in it
    left_out: int = 0

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_atomically(folder / UNFINISHED, json.dumps(self.model_dump(), indent=1) + "\n")


def check_free(folder: Path, *, resume: bool, force: bool) -> None:
    """Raise MemxError if the folder may not be written: it is no folder, holds other things, or is to be kept."""
    if folder.exists() and not folder.is_dir():
        raise MemxError(f"{folder} is a file", hint="choose a folder that does not exist")
    held = {path.name for path in folder.iterdir()} - {_LOCK} if folder.is_dir() else set()
    if not held:
        return
    if not held & {MANIFEST, UNFINISHED}:
        raise MemxError(f"{folder} contains other files", hint="choose an empty folder or one that does not exist")
    if not resume and not force:
        raise MemxError(
            f"{folder} already exists", hint="use --resume to continue it, or --force to delete it and start over"
        )


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Make the folder and own it while the block runs. Raises MemxError if another process does."""
    from filelock import FileLock, Timeout

    make_folder(folder)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MemxError(
            f"another process is writing {folder}", hint="wait until it ends, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def earlier_progress(folder: Path, settings: Settings) -> Progress | None:
    """What an unfinished try with the same settings has left, or None if there is none.

    Raises MemxError naming what differs, or if the file is damaged.
    """
    path = folder / UNFINISHED
    if not path.is_file():
        return None
    try:
        progress = Progress.model_validate(json.loads(path.read_bytes()))
    except (ValueError, ValidationError):
        raise MemxError(f"{path} is corrupt", hint="use --force to start over") from None
    check_same(folder, progress.settings, settings)
    return progress


def check_same(folder: Path, before: Settings, now: Settings) -> None:
    """Raise MemxError naming the first setting or source that is not what it was."""
    for name in Settings.model_fields:
        if name != "sources" and getattr(before, name) != getattr(now, name):
            said = f"{getattr(before, name)}, not {getattr(now, name)}"
            raise _differs(folder, f"--{name.replace('_', '-')} {said}")
    if before.sources != now.sources:
        pairs = zip(before.sources, now.sources, strict=False)
        other = next((f"a different {one.path}" for one, two in pairs if one != two), None)
        raise _differs(folder, other or f"{len(before.sources)} sources, not {len(now.sources)}")


def _differs(folder: Path, what: str) -> MemxError:
    return MemxError(f"{folder} was started with {what}", hint="use the same settings, or --force to start over")


def empty_folder(folder: Path) -> None:
    """Remove what `memx prepare` wrote, the manifest first, and nothing else."""
    for pattern in _OURS:
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
