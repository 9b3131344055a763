"""Writing files so that a reader sees the old one or the new one, never a part; memx's cache folder; UTF-8 errors."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from .errors import MemxError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, with a user's error where that fails.

    Args:
        path: The file; what had its name is replaced. Its folder is there.
        content: Text, written as UTF-8, or bytes.

    Raises:
        MemxError: The disk is full or forbids it.
    """
    try:
        replace_file(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise cannot_write(path, error) from None


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError when the disk is full or forbids it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its parents. Raises MemxError when the disk is full or forbids it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None


def sync_folder(path: Path) -> None:
    """Make a rename in a folder last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(temporary: Path, target: Path) -> None:
    """Make a finished folder last, then give it its name; one that had the name goes."""
    for path in temporary.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    aside = target.with_name(f".{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)  # removing it may take long
    temporary.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def cache_folder() -> Path:
    """memx's folder in the user's cache. Raises RuntimeError for a user without a home."""
    folder = user_cache_path("memx")
    if not folder.is_absolute():  # the standard of XDG_CACHE_HOME says to ignore a relative one
        folder = Path("~/.cache/memx").expanduser()
    if not folder.is_absolute():
        raise RuntimeError("this user has no home folder; set XDG_CACHE_HOME to an absolute path")
    return folder


def cannot_write(path: Path, error: OSError) -> MemxError:
    """The user's error for a failed write, with what to do about it."""
    return MemxError(
        f"cannot write {path}: {error.strerror or error}", hint="free disk space, or choose another folder"
    )


def line_not_utf8(path: Path) -> int:
    """The number of the first line of a file, from 1, that is not UTF-8; 0 if all lines are."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0
