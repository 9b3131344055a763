"""A NAMM on disk: a folder with its numbers (namm.safetensors) and with what they mean (namm.json).

The JSON holds the SHA-256 of the numbers, so that halves of two NAMMs are never taken for one. A folder is written
beside its place, flushed to the disk and renamed. Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

from ...errors import MemxError, tensor_file_reason
from ...files import cannot_write, put_in_place
from ...leftovers import sweep, temporary_beside
from .description import DESCRIPTION, TENSORS, describe, namm_of, understand
from .network import Namm


def save(namm: Namm, path: str | PathLike[str], *, host: str | None = None, tasks: Sequence[str] = ()) -> None:
    """Save a NAMM to a folder; a NAMM that is already there is replaced.

    Args:
        namm: The NAMM. Its numbers are written as float32.
        path: The folder; made if it does not exist.
        host: Name of the model that the NAMM was evolved on; a note for readers of the file.
        tasks: Names of the tasks that it was evolved on; also a note.

    Raises:
        MemxError: The folder contains other files, the NAMM is not valid (`load` would refuse it), or the folder cannot
            be written.

    Example:
        ```python
        import memx

        memx.namm.save(memx.namm.Namm(every=64), "my-namm")
        namm = memx.namm.load("my-namm")
        ```
    """
    folder = Path(path).resolve()  # through links, which stay
    tensors = {"parameters": namm.parameters, "mean": namm.mean, "variance": namm.variance}
    data = tensor_bytes({name: tensor.detach().cpu().float().contiguous() for name, tensor in tensors.items()})
    text = describe(namm, host, tasks, hashlib.sha256(data).hexdigest())
    try:
        _unpack(text, data)
    except ValueError as error:
        raise MemxError(
            f"this NAMM cannot be saved: {error}", hint="fix it first: memx.namm.load would reject the file"
        ) from None
    try:
        _check_place(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _put_in_place(folder, {TENSORS: data, DESCRIPTION: text.encode()})
    except OSError as error:
        raise cannot_write(folder, error) from None


def load(path: str | PathLike[str]) -> Namm:
    """Load a NAMM that `save` or `memx evolve-namm` wrote.

    Args:
        path: The folder, such as `results/runs/RUN/namm`.

    Returns:
        The NAMM, bit for bit as it was saved, with its tensors on the CPU.

    Raises:
        MemxError: The folder does not exist, is damaged, or has another format version or other constants.

    Example:
        ```python
        from dataclasses import replace

        import memx

        memx.namm.save(memx.namm.Namm(every=64), "my-namm")
        namm = memx.namm.load("my-namm")
        smaller = replace(namm, rule=memx.namm.Rule(budget=0.25))  # keep a quarter of the tokens
        ```
    """
    folder = Path(path)
    try:
        text, data = (folder / DESCRIPTION).read_text("utf-8"), (folder / TENSORS).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        lacking = f"contains no {Path(error.filename).name}" if folder.is_dir() else "is not a folder"
        raise MemxError(
            f"no NAMM: {folder} {lacking}", hint="give a folder written by memx.namm.save, e.g. RUN/namm"
        ) from None
    except OSError as error:
        raise MemxError(f"cannot read {folder}: {error.strerror or error}", hint="check the file permissions") from None
    except UnicodeDecodeError:
        text, data = "", b""  # no JSON either
    try:
        return _unpack(text, data)
    except ValueError as error:
        raise MemxError(
            f"cannot load the NAMM in {folder}: {error}", hint="copy the folder again, or save the NAMM again"
        ) from None


def _unpack(text: str, data: bytes) -> Namm:
    """The NAMM of both files' contents. Raises ValueError with one line on what is wrong."""
    described = understand(text)
    if hashlib.sha256(data).hexdigest() != described.sha256:
        raise ValueError(f"{TENSORS} does not match its checksum in {DESCRIPTION}")
    try:
        tensors = read_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"{TENSORS} is corrupt: {tensor_file_reason(error)}") from None
    return namm_of(described, tensors)


def _check_place(folder: Path) -> None:
    """Raise MemxError unless nothing, an empty folder or a NAMM's files alone are there."""
    if not folder.exists():
        return
    if not folder.is_dir() or any(file.name not in (TENSORS, DESCRIPTION) for file in folder.iterdir()):
        raise MemxError(
            f"{folder} exists and is not a saved NAMM", hint="use a new or empty folder, or one with a saved NAMM"
        )


def _put_in_place(folder: Path, files: dict[str, bytes]) -> None:
    """Give a folder of such files its name; what had the name goes."""
    sweep(folder.parent)  # what killed processes left
    made = temporary_beside(folder)
    try:
        made.mkdir()
        for name, data in files.items():
            (made / name).write_bytes(data)
        put_in_place(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
