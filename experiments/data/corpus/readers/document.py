"""What every source of text shares: a document, a lane's share of the documents, and what is done about damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .....errors import MemxError

SKIP_HINT = "fix the file, or skip corrupt records with --set corpus.damaged=skip"
_SHOWN = 10  # notes on the damage of one file


class Document(NamedTuple):
    """One document: its text, or the token ids that it was prepared as, and `text_digest` of its text."""

    content: str | NDArray[np.integer]
    digest: int


class Share(NamedTuple):
    """Which of the `lanes` shares of a source is read, and in which order; seed None: as the files have it."""

    lane: int
    lanes: int
    seed: int | None


class Documents(Iterator[Document], Protocol):
    """The documents of one epoch. `place` (JSON) is where reading goes on after the last one; None is the beginning."""

    @property
    def place(self) -> Any: ...


class Source(Protocol):
    """A source of documents. `sizes` is what its files must still be when a saved place is taken up: name -> bytes."""

    name: str
    sizes: dict[str, int]

    def read(self, share: Share, epoch: int, place: Any = None) -> Documents:
        """The share's documents of an epoch, from a place on."""
        ...


def text_digest(text: str) -> int:
    """64 bits of a hash of a text, the same everywhere. Raises UnicodeEncodeError for a lone surrogate."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def is_held_out(digest: int, share: float) -> bool:
    """Whether a document of that digest is among the share that training never shows."""
    return digest < int(share * 2**64)


class CorruptRecords:
    """Ends the run at damage, or notes it and lets the caller leave the part out.

    A part is noted once, and at most ten of a file. `left_out` counts the parts.
    """

    def __init__(self, policy: Literal["fatal", "skip"], notes: Callable[[str], None], hint: str = SKIP_HINT) -> None:
        self.fatal, self.notes, self.hint = policy == "fatal", notes, hint
        self.left_out = 0
        self._seen: dict[str, set[int]] = {}

    def report(self, name: str, at: int, reason: str, place: Callable[[], str] = lambda: "") -> None:
        """Report the part at `at` of a file, whose name `place` tells if asked. Raises MemxError if damage is fatal."""
        if self.fatal:
            raise MemxError(f"{_where(name, place())}: {reason}", hint=self.hint)
        seen = self._seen.setdefault(name, set())
        self.left_out += 1
        if at in seen or len(seen) > _SHOWN:
            return
        seen.add(at)
        if len(seen) > _SHOWN:
            self.notes(f"{name}: more corrupt records were skipped; they are not listed")
        else:
            self.notes(f"skipped {_where(name, place())}: {reason}")


def _where(name: str, place: str) -> str:
    return f"{name} {place}" if place else name
