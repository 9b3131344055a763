"""Writing files so that a reader sees the old one or the new one, never a part; and the folder of memx's cache."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path

from .errors import MemxError
from .leftovers import sweep, temporary_beside

_LONGEST = 200  # bytes of a name: file systems take 255, and endings follow
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENODEV, errno.ENXIO)


def write_atomically(path: Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write a file whole or not at all, with a user's error where that fails.

    Args:
        path: The file. Its folder is there.
        content: Text, written as UTF-8, or bytes.
        replace: Whether a file of that name may be replaced.

    Raises:
        MemxError: The disk is full or forbids it, or there is a file that may not be replaced.
    """
    sweep(path.parent)
    try:
        replace_file(path, content.encode() if isinstance(content, str) else content, replace=replace)
    except FileExistsError:
        raise MemxError(f"{path} exists", hint="choose another name, or use --force to overwrite it") from None
    except OSError as error:
        raise cannot_write(path, error) from None


def replace_file(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file whole or not at all; a replaced one keeps its mode, a new one follows the umask.

    Raises OSError when the disk is full or forbids it; FileExistsError for one that may not be replaced.
    """
    if path.exists() and not path.is_file():  # a folder, or a device such as /dev/stdout
        raise OSError(errno.EINVAL, "it is not a regular file")
    temporary = temporary_beside(path)
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.is_file():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # unlike a rename, this never replaces
            temporary.unlink()
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


def put_in_place(temporary: Path, target: Path, *, replace: bool = True) -> None:
    """Make a finished folder last, then give it its name.

    Args:
        temporary: The folder, beside the target. Its files get the modes of new files.
        target: The name. A folder that has it goes, if it may be replaced.
        replace: Whether it may.

    Raises:
        MemxError: The target is there and may not be replaced.
        OSError: The disk is full or forbids it.
    """
    umask = current_umask()
    for path in temporary.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    temporary.chmod(0o777 & ~umask)
    sync_folder(temporary)
    with _one_at_a_time(target.parent):
        _put_back(target)
        aside = _aside(target)
        if target.exists() and not replace:
            raise MemxError(f"{target} exists", hint="another process has made it meanwhile")
        if target.exists():
            target.rename(aside)  # removing it may take long
        try:
            temporary.rename(target)
            sync_folder(target.parent)
        finally:
            with suppress(OSError):  # what stays is removed by the next
                _put_back(target)


def put_back(target: Path) -> None:
    """Give a folder its name back that a kill of `put_in_place` left without one; remove one that was replaced.

    Raises OSError where that is forbidden.
    """
    if _aside(target).exists():
        with _one_at_a_time(target.parent):
            _put_back(target)


def _put_back(target: Path) -> None:
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    elif aside.exists():
        shutil.rmtree(aside)


def inside(folder: Path, name: str, what: str) -> Path:
    """The path of a file or folder that is named in a folder.

    Args:
        folder: The folder.
        name: The name alone.
        what: What names it, for the message, such as "--name".

    Raises:
        MemxError: The name is empty or too long, or could leave the folder.
    """
    if not name or name != name.strip():
        wrong = "is empty" if not name.strip() else "begins or ends with a space"
    elif len(name.encode(errors="replace")) > _LONGEST:
        wrong = f"is longer than {_LONGEST} bytes"
    elif "/" in name or "\\" in name:
        wrong = "is a path"
    elif name.startswith(".") or not name.isprintable():
        wrong = "begins with a dot" if name.startswith(".") else "has characters that cannot be printed"
    else:
        return folder / name
    shown = repr(name if len(name) <= 60 else name[:60] + "…")
    raise MemxError(
        f"{what}: the name {shown} {wrong}", hint="use a name of letters, digits, - and _, without a folder"
    )


def current_umask() -> int:
    """The process's umask."""
    umask = os.umask(0o077)  # there is no call that only reads it
    os.umask(umask)
    return umask


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
    hint = "free disk space, or choose another folder"
    if error.errno in _FORBIDDEN:
        hint = "choose a folder that you may write to, or have its owner allow it"
    elif error.errno in _GONE:
        hint = "check that the folder was not removed and that its disk is connected"
    elif error.errno == errno.ENAMETOOLONG:
        hint = "choose a shorter name"
    return MemxError(f"cannot write {path}: {error.strerror or error}", hint=hint)


def line_not_utf8(path: Path) -> int:
    """The number of the first line of a file, from 1, that is not UTF-8; 0 if all lines are."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Have the only process that gives names in a folder this way."""
    import fcntl  # not on every system: what writes nothing runs without it

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
