"""Signals that a process sends itself at the n-th change that it makes to the disk, or to be counted, none.

Python tells of each file that is opened, renamed, removed or made before it happens; a sync is told of here too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
            "shutil.rmtree")  # fmt: skip
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def aim(nth: int, number: int, counted: Path | None = None) -> Callable[[], None]:
    """A function for a child to call first.

    Args:
        nth: The change before which the signal comes, from 0; -1: none.
        number: The signal.
        counted: A file whose size becomes the number of changes; None: none.
    """

    def prepare() -> None:
        seen = 0
        tally = os.open(counted, os.O_CREAT | os.O_WRONLY | os.O_APPEND) if counted else -1
        watched = os.getpid()

        def change() -> None:
            nonlocal seen
            if os.getpid() != watched:
                return
            if tally >= 0:
                os.write(tally, b".")
            seen += 1
            if seen - 1 == nth:
                os.kill(watched, number)

        def hook(event: str, given: tuple[Any, ...]) -> None:
            if event in _CHANGES or (event == "open" and _writes(given)):
                change()

        sync = os.fsync

        def told_sync(descriptor: int) -> None:
            change()
            sync(descriptor)

        os.fsync = told_sync
        sys.addaudithook(hook)

    return prepare


def _writes(given: tuple[Any, ...]) -> bool:
    """Whether a file is opened to be written: by the letters of Python's open, or by the flags of the system's."""
    path, mode, flags = (*given, None, None, None)[:3]
    if isinstance(path, int) or (isinstance(path, str) and path.startswith(("/dev/", "/proc/"))):
        return False
    return bool(set(mode) & set("wax+")) if isinstance(mode, str) else bool((flags or 0) & _WRITE)


SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
