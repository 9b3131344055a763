"""Names of what is not finished yet, and removing what killed processes left under them."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

_TEMPORARY = re.compile(r"\.memx-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")
_OLD_ENOUGH = 86_400.0  # seconds, after which what another machine began to write is abandoned too


def temporary_beside(path: Path) -> Path:
    """A new name in the same folder, for what is finished there before it gets its own; `sweep` knows such names."""
    return path.parent / f".memx-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def sweep(folder: Path, *, owned: bool = False) -> None:
    """Remove what killed processes left under names of `temporary_beside`.

    Args:
        folder: Where they were writing; it need not be there.
        owned: Whether the caller has the folder's lock, so that nobody else can be writing in it. Else only files of
            processes that are gone are removed.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if (found := _TEMPORARY.fullmatch(path.name)) and (owned or _is_abandoned(path, found[1], int(found[2]))):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, link or whole folder. Raises OSError where that is forbidden; it need not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """What tells processes apart that may have the same number: the machine, and the container on it."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {space}'.encode()):08x}"


def _is_abandoned(path: Path, machine: str, process: int) -> bool:
    if machine != _machine():  # on a disk that machines share
        return time.time() - path.lstat().st_mtime > _OLD_ENOUGH
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OverflowError, PermissionError):
        return False
    return False
