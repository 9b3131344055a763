"""Owning a folder: its lock, what a kill left in it, and the content that `--force` replaces, kept until it may go.

Old content is renamed into .replacing, which then becomes .replaced. Once the new content is worth keeping, .replaced
becomes .dropped and goes; else it is put back. Each rename is one step, so that a kill at any moment loses neither.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import MemxError
from ...files import cannot_write, make_folder, sync_folder
from ...leftovers import remove, sweep

LOCK = ".lock"
_MOVING, _ASIDE, _GOING = ".replacing", ".replaced", ".dropped"
_OWN = (LOCK, _MOVING, _ASIDE, _GOING)
# temporary names of older versions
_OLDER = re.compile(
    r"\.(run\.json|rows\.jsonl|metrics\.jsonl|config\.yaml|tokenizer\.json|answers\.jsonl|harness\.jsonl|prompts\.jsonl"
    r"|manifest\.json|unfinished\.json|evolution.*|namm)\.[a-z0-9_]{8}|\.(checkpoint|tokenizer|step-\d+)\.tmp"
)


@contextmanager
def owned(folder: Path, busy: MemxError, *, wait: float = 1.0, leave_lock: bool = True) -> Iterator[None]:
    """Make a folder and own it while the block runs; an empty one is removed at its end.

    Args:
        folder: The folder.
        busy: Raised if another process owns it.
        wait: Seconds to wait for that process; `memx runs` may have the lock for a moment.
        leave_lock: Whether the lock's file stays.

    Raises:
        MemxError: Another process owns it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise busy from None
    except OSError as error:
        raise cannot_write(folder / LOCK, error) from None
    try:
        for place in (folder, folder / "state"):
            _sweep(place)
        yield
    finally:
        with suppress(OSError):  # before the lock goes: nobody else can have claimed the folder
            if all(path.name == LOCK for path in folder.iterdir()):
                shutil.rmtree(folder)
            elif not leave_lock:
                (folder / LOCK).unlink()
        lock.release()


def is_owned(folder: Path) -> bool:
    """Whether a process owns a folder now. Nothing is written, so that a reader needs no right to."""
    import fcntl  # not on every system: what reads no run runs without it

    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def content(folder: Path, names: Container[str] | None = None) -> list[Path]:
    """What a folder holds besides its lock and what was set aside; nothing if it is not there.

    Args:
        folder: The folder.
        names: Only what has one of these names.

    Raises:
        MemxError: It cannot be read.
    """
    try:
        held = [path for path in folder.iterdir() if path.name not in _OWN]
        return held if names is None else [path for path in held if path.name in names]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MemxError(f"cannot read {folder}: {error.strerror}", hint="check its permissions") from None


def empty(folder: Path, names: Container[str] | None = None) -> None:
    """Remove the content, and nothing that was set aside. names: only what has one of these."""
    try:
        for path in content(folder, names):
            remove(path)
    except OSError as error:
        raise cannot_write(folder, error) from None


@contextmanager
def replacing(
    folder: Path, worth: Callable[[Path], bool], *, force: bool, names: Container[str] | None = None
) -> Iterator[None]:
    """Set the content of an owned folder aside while the block writes a new one; at its end one of both goes.

    Args:
        folder: An owned folder.
        worth: Whether the new content of the folder is worth keeping: then the old one goes, else it comes back.
        force: Set the content aside. Without it the block begins with what is there.
        names: Only what has one of these names is replaced.

    Raises:
        MemxError: The folder cannot be written.
    """
    try:
        if force:
            _set_aside(folder, names)
        yield
    finally:
        with suppress(MemxError):  # what the block raised says more; the next claim settles it
            settle(folder, worth, names)


def settle(folder: Path, worth: Callable[[Path], bool], names: Container[str] | None = None) -> None:
    """Drop what was set aside if the new content is worth keeping, else put it back; also what a kill left.

    Raises MemxError if the folder cannot be written.
    """
    moving, aside, going = (folder / name for name in (_MOVING, _ASIDE, _GOING))
    try:
        if going.exists():
            remove(going)
        if aside.exists():
            if worth(folder):
                aside.rename(going)
                remove(going)
            else:
                empty(folder, names)
                aside.rename(moving)
        if moving.exists():
            for path in list(moving.iterdir()):
                path.rename(folder / path.name)
            moving.rmdir()
            sync_folder(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None


def has_replaced(folder: Path) -> bool:
    """Whether content is set aside in a folder."""
    return (folder / _ASIDE).exists() or (folder / _MOVING).exists()


def _set_aside(folder: Path, names: Container[str] | None) -> None:
    if not (found := content(folder, names)):
        return
    moving = folder / _MOVING
    try:
        moving.mkdir()
        for path in found:
            path.rename(moving / path.name)
        moving.rename(folder / _ASIDE)
        sync_folder(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None


def _sweep(folder: Path) -> None:
    """Remove the temporary files of processes that are gone, as the folder's owner."""
    sweep(folder, owned=True)
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if _OLDER.fullmatch(path.name):
                remove(path)
