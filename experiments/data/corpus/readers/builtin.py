"""A text that Python itself brings (`python-docs`, `python-source`), or generated programs -> a source of documents."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from .document import Document, Share, text_digest

GENERATED = "registers"
NAMES = ("python-docs", "python-source", GENERATED)


class BuiltinText:
    """A source that lies in memory: lane i has every lanes-th document from i on, each epoch in another order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sizes = {name: sum(map(len, _texts(name)))}

    def read(self, share: Share, epoch: int, place: Any = None) -> BuiltinDocuments:
        """The share's documents of an epoch, from a place on."""
        texts = list(_texts(self.name)[share.lane :: share.lanes])
        if share.seed is not None:
            random.Random(f"{share.seed} {epoch} {share.lane} {self.name}").shuffle(texts)
        return BuiltinDocuments(texts, place or 0)


class BuiltinDocuments:
    """Documents of a list. place: how many are read."""

    def __init__(self, texts: list[str], place: int) -> None:
        self.texts, self.place = texts, place

    def __iter__(self) -> BuiltinDocuments:
        return self

    def __next__(self) -> Document:
        if self.place == len(self.texts):
            raise StopIteration
        self.place += 1
        text = self.texts[self.place - 1]
        return Document(text, text_digest(text))


@lru_cache(maxsize=len(NAMES))
def _texts(name: str) -> tuple[str, ...]:
    if name == GENERATED:
        from ...programs import documents

        return tuple(documents())
    from ...text import ordinary_text  # which needs torch

    return tuple(ordinary_text(name))
