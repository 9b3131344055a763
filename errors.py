"""The one exception that memx raises for a user's mistake: a message and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MemxError(Exception):
    """A user's mistake: one clear line, and a hint that says what to do. The command line exits 2 on it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint  # an attribute, which pickle carries along to other processes


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint "did you mean …?" with the name that is most like it; an empty text if none is.

    Args:
        name: What the user wrote.
        names: What there is.
    """
    match = closest(name, names)
    return f"did you mean {match!r}?" if match else ""


def closest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that is most like another; None if none is at least `cutoff` alike (1: the same)."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)
