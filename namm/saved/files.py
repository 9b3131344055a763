"""A NAMM on disk: a folder with its numbers (namm.safetensors), what they mean (namm.json), and perhaps a card.

The JSON holds the SHA-256 of the numbers, so that halves of two NAMMs are never taken for one. A folder is written
beside its place, flushed to the disk and renamed. Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

from ...errors import MemxError, tensor_file_reason
from ...files import cannot_write, put_in_place
from ...leftovers import sweep, temporary_beside
from ..policies.network import Namm
from .card import Card, card_text
from .description import Description, describe, namm_of, understand
from .places import CARD, DESCRIPTION, FILES, TENSORS, find_namm


def save(
    namm: Namm,
    path: str | PathLike[str],
    *,
    host: str | None = None,
    tasks: Sequence[str] = (),
    card: Card | str | None = None,
) -> None:
    """Save a NAMM to a folder; a NAMM that is already there is replaced, with its card.

    Args:
        namm: The NAMM. Its numbers are written as float32.
        path: The folder; made if it does not exist.
        host: Name of the model that the NAMM was evolved on, several joined by " + "; a note for readers of the file.
        tasks: Names of the tasks that it was evolved on; also a note.
        card: What its model card says (README.md): a `Card`, or the whole text in Markdown. None: there is no card.

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
    written = card_text(namm, card, host=host, tasks=tasks) if isinstance(card, Card) else card
    cards = {} if written is None else {CARD: written.encode()}
    try:
        _check_place(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _put_in_place(folder, {TENSORS: data, DESCRIPTION: text.encode()} | cards)
    except OSError as error:
        raise cannot_write(folder, error) from None


def load(
    place: str | PathLike[str],
    *,
    budget: float | None = None,
    every: int | None = None,
    revision: str | None = None,
) -> Namm:
    """Load a NAMM: one that `save` or `memx evolve-namm` wrote, one that comes with memx, or one of the hub.

    Args:
        place: The folder, such as `results/runs/RUN/namm`, or that of its run; a name of `shipped_namms`; or a name on
            the Hugging Face hub, as `user/repo`. A folder that exists wins over names.
        budget: Share of all tokens that it keeps, in (0, 1], or above 1 a number of tokens. None: as it was saved.
        every: Tokens between evictions, a multiple of 16. None: as it was saved.
        revision: Branch, tag or commit of a hub repository.

    Returns:
        The NAMM, bit for bit as it was saved but for what is given here, with its tensors on the CPU.

    Raises:
        MemxError: There is no such folder or name, the hub cannot be reached, or the NAMM is damaged or has another
            format version or other constants; or the budget or interval is not one.

    Example:
        ```python
        import memx

        memx.namm.save(memx.namm.Namm(every=64), "my-namm")
        namm = memx.namm.load("my-namm")
        smaller = memx.namm.load("my-namm", budget=0.25)  # keep a quarter of the tokens
        ```
    """
    namm = read_files(find_namm(place, revision))[0]
    rule = namm.rule if budget is None else replace(namm.rule, budget=budget)
    return replace(namm, rule=rule, every=namm.every if every is None else every)


def read_files(folder: Path) -> tuple[Namm, Description]:
    """The NAMM in a folder, and what its description says. Raises MemxError as `load` does."""
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


def _unpack(text: str, data: bytes) -> tuple[Namm, Description]:
    """The NAMM of both files' contents, and the description. Raises ValueError with one line on what is wrong."""
    described = understand(text)
    if hashlib.sha256(data).hexdigest() != described.sha256:
        raise ValueError(f"{TENSORS} does not match its checksum in {DESCRIPTION}")
    try:
        tensors = read_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"{TENSORS} is corrupt: {tensor_file_reason(error)}") from None
    return namm_of(described, tensors), described


def _check_place(folder: Path) -> None:
    """Raise MemxError unless nothing, an empty folder or a NAMM's files alone are there; a lone README is no NAMM's."""
    if not folder.exists():
        return
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else {folder.name}
    if not names <= {*FILES} or names == {CARD}:
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
