"""The folder that `memx prepare` writes: who may write into it, what an earlier try left, and how it is replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ....errors import MemxError
from ....files import write_atomically
from ....json_text import BadJson, parse_json
from ....leftovers import remove
from ....results.store.claims import content, empty, has_replaced, owned, replacing, settle
from .readers.prepared import MANIFEST, TOKENIZER, UNFINISHED, Settings, Shard

_TEMPORARY = re.compile(  # what a kill leaves, of this version and older ones
    rf"\.memx-.*\.tmp|\.shard-.*|\.{TOKENIZER}|\.({MANIFEST}|{UNFINISHED}|shard-.*)\.[a-z0-9_]{{8}}"
)
_SHARD = re.compile(r"shard-\d+\.(bin|idx)")


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
    if has_replaced(folder):  # a kill left it half replaced; its owner puts that right first
        return
    held = {path.name for path in content(folder) if not _TEMPORARY.fullmatch(path.name)}
    if not held:
        return
    # older versions could be killed when there was neither record, but always with their tokenizer
    left = TOKENIZER in held and all(name == TOKENIZER or _SHARD.fullmatch(name) for name in held)
    if not held & {MANIFEST, UNFINISHED} and not left:
        raise MemxError(f"{folder} contains other files", hint="choose an empty folder or one that does not exist")
    if not resume and not force:
        raise MemxError(
            f"{folder} already exists", hint="use --resume to continue it, or --force to delete it and start over"
        )


@contextmanager
def own_folder(folder: Path, *, resume: bool, force: bool) -> Iterator[None]:
    """Make the folder and own it while the block runs; one that stays empty is removed.

    What a kill left half-written goes, and what it was replacing comes back.

    Raises:
        MemxError: Another process owns it, or `check_free` refuses it.
    """
    check_free(folder, resume=resume, force=force)  # before anything is written to it
    busy = MemxError(f"another process is writing {folder}", hint="wait until it ends, or choose another folder")
    with owned(folder, busy, wait=0):
        for path in content(folder):
            if _TEMPORARY.fullmatch(path.name):
                remove(path)
        settle(folder, is_worth_keeping)
        check_free(folder, resume=resume, force=force)
        yield


@contextmanager
def written(folder: Path, *, force: bool) -> Iterator[None]:
    """Replace what an owned folder holds, if `force`; without a finished shard, a mistake leaves all as it was."""
    with replacing(folder, is_worth_keeping, force=force):
        try:
            yield
        except MemxError:
            if not is_worth_keeping(folder):
                empty(folder)
            raise


def is_worth_keeping(folder: Path) -> bool:
    """Whether a folder is finished, or has a finished shard."""
    if not (folder / UNFINISHED).is_file():
        return (folder / MANIFEST).is_file()
    try:
        return bool(_progress(folder / UNFINISHED).shards)
    except (OSError, BadJson, ValidationError):
        return False


def earlier_progress(folder: Path, settings: Settings) -> Progress | None:
    """What an unfinished try with the same settings has left, or None if there is none.

    Raises MemxError naming what differs, or if the file is damaged.
    """
    path = folder / UNFINISHED
    if not path.is_file():
        return None
    try:
        progress = _progress(path)
    except BadJson as error:
        raise MemxError(f"{path} is corrupt: {error.reason}", hint="use --force to start over") from None
    except ValidationError:
        raise MemxError(f"{path} is corrupt", hint="use --force to start over") from None
    except OSError as error:
        raise MemxError(f"cannot read {path}: {error.strerror}", hint="use --force to start over") from None
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


def _progress(path: Path) -> Progress:
    return Progress.model_validate(parse_json(path.read_bytes()))
