"""Killing a process before each of its writes in a folder, one after the other; runs in a rank of `tests.ranks`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path

_WRITES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate")


def kill_before_write(folder: Path, number: int) -> None:
    """From now on, die by SIGKILL just before the write of that number, from 1 on, below a folder."""
    seen = 0

    def look(event: str, arguments: tuple) -> None:
        nonlocal seen
        written = event in _WRITES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT)
        if written and isinstance(arguments[0], str | os.PathLike) and Path(arguments[0]).is_relative_to(folder):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def in_child(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> int:
    """The exit code of a forked process that does the work; below 0: the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            before()
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_each_write(
    folder: Path, work: Callable[[], object], then: Callable[[int], object], *, every: int = 1, first: int = 1
) -> int:
    """Do the work again and again, killed before its 1st, 2nd, … write, and after each kill what is to follow.

    Args:
        folder: Where writes are counted.
        work: Done in a process of its own.
        then: Gets the number of the write; it checks what was left, and makes the folder as it was before the work.
        every: Kill at every so many writes only.
        first: The first write to kill at.

    Returns:
        How often it was killed.
    """
    for kills, number in enumerate(count(first, every)):
        code = in_child(work, lambda number=number: kill_before_write(folder, number))
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, code
        then(number)
    raise AssertionError
