"""One lane of a corpus: documents drawn from its sources by weight, shuffled, tokenised and cut into rows.

Documents are shuffled in blocks: one is filled, put into a drawn order and emptied, then the next is filled. So all
that a place in the stream needs is where the sources stood before the block, and how much of it is used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import MemxError
from ...config.scale import CorpusConfig
from .encoder import Encoder
from .readers.document import Document, Documents, Share, Source, is_held_out

_BLOCK = 2**24  # characters or tokens after which a block is full, however few its documents
_AT_ONCE = 2**18  # characters, about, that are tokenised at once
_TOGETHER = 32  # documents


class Row(NamedTuple):
    """tokens, documents (index in the row) and labels (-100: none), each int64 [S]."""

    tokens: NDArray[np.int64]
    documents: NDArray[np.int64]
    labels: NDArray[np.int64]


class Lane:
    """An endless stream of rows that depends on nothing but (config, seed, the lane's number)."""

    def __init__(
        self, config: CorpusConfig, sources: Sequence[Source], encoder: Encoder, seed: int, number: int
    ) -> None:
        self.config, self.sources, self.encoder, self.seed, self.number = config, sources, encoder, seed, number
        self._weights = [source.weight for source in config.sources]
        self._share = Share(number, config.lanes, seed if config.shuffle else None)
        self._start({"block": 0, "document": 0, "token": 0, "sources": [[0, None] for _ in sources]})

    @property
    def position(self) -> dict[str, Any]:
        """Where the lane stands (JSON): the block, documents and tokens used of it, each source before the block."""
        return {"block": self.block, "document": self.used, "token": self.token, "sources": self._before}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a saved position; reads the block that it is in."""
        self._start(position)

    def row(self, length: int) -> Row:
        """The next `length` tokens. A label is the document's next token, in this row or the next one."""
        tokens, documents = np.empty(length, np.int64), np.empty(length, np.int64)
        labels = np.full(length, -100, np.int64)
        at = index = 0
        while at < length:
            ids = self._current()
            part = ids[self.token : self.token + length - at]
            following = ids[self.token + 1 : self.token + 1 + len(part)]
            tokens[at : at + len(part)] = part
            labels[at : at + len(following)] = following
            documents[at : at + len(part)] = index
            at, index = at + len(part), index + 1
            self.token += len(part)
            if self.token == len(ids):
                self.used, self.token = self.used + 1, 0
                self._encoded.pop()
        return Row(tokens, documents, labels)

    def _start(self, position: dict[str, Any]) -> None:
        self.block, self.used, self.token = position["block"], position["document"], position["token"]
        self._before: list[list[Any]] = [[*mark] for mark in position["sources"]]
        self._epochs = [epoch for epoch, _ in self._before]
        # whether an epoch was read from its beginning without a document
        self._nothing = [place is None for _, place in self._before]
        self._open: dict[int, Documents] = {}
        self._waiting: list[Document] = []  # of the block, last first
        self._encoded: list[NDArray[np.integer]] = []  # last first
        self._filled = False

    def _current(self) -> NDArray[np.integer]:
        if not self._filled:
            # after a seek the block is drawn again in the same order, and what was used of it is dropped
            self._fill()
            del self._waiting[len(self._waiting) - self.used :]
        while not self._encoded:
            if not self._waiting:
                self.block, self.used = self.block + 1, 0
                self._before = [[self._epochs[i], self._place(i)] for i in range(len(self.sources))]
                self._fill()
            self._encode()
        return self._encoded[-1]

    def _fill(self) -> None:
        # seeded by the block, so that a position needs no state of a random generator
        draw = random.Random(f"{self.seed} {self.number} {self.block}")
        found: list[Document] = []
        size = 0
        while len(found) < max(self.config.shuffle, 1) and size < _BLOCK:
            (source,) = draw.choices(range(len(self.sources)), self._weights)
            found.append(self._next(source))
            size += len(found[-1].content)
        if self.config.shuffle:
            draw.shuffle(found)
        self._waiting = found[::-1]
        self._filled = True

    def _encode(self) -> None:
        """Move the next documents of the block to those that are encoded."""
        taken: list[Document] = []
        size = 0
        while self._waiting and len(taken) < _TOGETHER and size < _AT_ONCE:
            taken.append(self._waiting.pop())
            size += len(taken[-1].content)
        texts = iter(self.encoder([one.content for one in taken if isinstance(one.content, str)]))
        self._encoded = [next(texts) if isinstance(one.content, str) else one.content for one in taken][::-1]

    def _next(self, index: int) -> Document:
        """The source's next document that is not held out; an exhausted source begins anew."""
        while True:
            for document in self._documents(index):
                if not is_held_out(document.digest, self.config.held_out):
                    self._nothing[index] = False
                    return document
            if self._nothing[index]:
                raise self._no_documents(self.sources[index].name)
            self._epochs[index] += 1
            self._nothing[index] = True
            del self._open[index]

    def _documents(self, index: int) -> Documents:
        if index not in self._open:
            epoch, place = self._epochs[index], self._before[index]
            place = place[1] if place[0] == epoch else None
            self._open[index] = self.sources[index].read(self._share, epoch, place)
        return self._open[index]

    def _place(self, index: int) -> Any:
        """Where a source stands; one that was not read since it was taken up stands where it did."""
        if index in self._open:
            return self._open[index].place
        return self._before[index][1] if self._before[index][0] == self._epochs[index] else None

    def _no_documents(self, name: str) -> MemxError:
        lanes = self.config.lanes
        return MemxError(
            f"{name} has no document for data stream {self.number} of {lanes} (corpus.lanes)",
            hint="for a small corpus use --set corpus.lanes=1; else check the field's name and the skipped records",
        )
