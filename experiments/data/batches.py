"""Documents -> packed batches: several documents a row, none attending to another, positions from 0 in each.

R rows, S tokens a row. The position in the stream is two numbers, so a run continues exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .facts.phrasings import BUILT_IN, Wording
from .facts.questions import Document, documents_of
from .facts.record import Fact
from .tokenizer import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CACHED = 100_000  # facts whose tokens are kept


class Batch(NamedTuple):
    """tokens, positions, documents (index in the row, -1 padding) and labels (-100: no loss), each [R, S]."""

    tokens: Tensor
    positions: Tensor
    documents: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(tensor.to(device) for tensor in self))

    @property
    def real(self) -> Tensor:
        """Which of its tokens are no padding [R * S]."""
        return self.documents.flatten() >= 0


class Tokens(NamedTuple):
    """One document's token ids, and from which of them on the loss counts."""

    ids: list[int]
    counts_from: int


class PackedBatches:
    """An endless, shuffled stream of packed batches over the training documents of facts.

    Each pass shows every fact once, in a new order, in the next of its phrasings. `position` and `seek` save and
    restore the place; the stream depends on nothing but (facts, seed, position).
    """

    def __init__(
        self,
        facts: Sequence[Fact],
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch: int,
        sequence: int,
        seed: int,
        split_seed: int,
        loss_on: str = "answers",
        wording: Wording = BUILT_IN,
    ) -> None:
        assert facts, "there are no facts to train on"
        self.facts, self.tokenizer = facts, tokenizer
        self.batch, self.sequence, self.seed, self.split_seed = batch, sequence, seed, split_seed
        self.answers_only, self.wording = loss_on == "answers", wording
        self.epoch = self.cursor = 0
        self._order = self._shuffled()
        self._phrased: dict[int, list[Tokens]] = {}

    @property
    def position(self) -> dict[str, int]:
        """Where the stream stands: passes done, and facts shown in this one."""
        return {"epoch": self.epoch, "cursor": self.cursor}

    def seek(self, position: dict[str, int]) -> None:
        """Go to a saved position. Raises ValueError for one outside the facts."""
        epoch, cursor = position["epoch"], position["cursor"]
        if type(epoch) is not int or type(cursor) is not int or epoch < 0 or not 0 <= cursor <= len(self.facts):
            raise ValueError(f"no position in {len(self.facts)} facts: {position}")
        self.epoch, self.cursor = epoch, cursor
        self._order = self._shuffled()

    def __next__(self) -> Batch:
        chosen: list[tuple[int, int]] = []
        while len(chosen) < self.batch:
            if self.cursor == len(self.facts):
                self.epoch, self.cursor = self.epoch + 1, 0
                self._order = self._shuffled()
            take = self._order[self.cursor : self.cursor + self.batch - len(chosen)].tolist()
            chosen += [(index, self.epoch) for index in take]
            self.cursor += len(take)
        return pack([self._document(index, epoch) for index, epoch in chosen], self.sequence)

    def __iter__(self) -> PackedBatches:
        return self

    def _shuffled(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.facts), generator=generator)

    def _document(self, index: int, epoch: int) -> Tokens:
        phrased = self._phrased.get(index)
        if phrased is None:
            documents = documents_of(self.facts[index], self.split_seed, self.wording)
            phrased = encode(documents, self.tokenizer, answers_only=self.answers_only)
            if len(self._phrased) < _CACHED:
                self._phrased[index] = phrased
        return phrased[(epoch + index) % len(phrased)]


def encode(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, answers_only: bool) -> list[Tokens]:
    """Tokenise documents and end each; the loss counts from the answer's first token, or from the document's second."""
    end: Any = tokenizer.eos_token_id
    encoded = encode_texts(tokenizer, [document.text for document in documents], offsets=True)
    tokens: list[Tokens] = []
    for document, (ids, offsets) in zip(documents, encoded, strict=True):
        first = sum(stop <= document.answer_start for _, stop in offsets)
        tokens.append(Tokens([*ids, end], max(first, 1) if answers_only else 1))
    return tokens


def pack(documents: Sequence[Tokens], sequence: int) -> Batch:
    """Lay documents into rows of `sequence` tokens, longest first, each into the first row with room."""
    rows: list[list[Tokens]] = []
    room: list[int] = []
    for document in sorted(documents, key=lambda document: -len(document.ids)):
        length = len(document.ids)
        assert length <= sequence, "fact_tokens.check_lengths is called before training"
        row = next((i for i, left in enumerate(room) if left >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(sequence)
        rows[row].append(document)
        room[row] -= length
    return _tensors(rows, sequence)


def _tensors(rows: list[list[Tokens]], sequence: int) -> Batch:
    tokens, positions, documents, labels = [], [], [], []
    for row in rows:
        padding = sequence - sum(len(document.ids) for document in row)
        ids = [document.ids for document in row]
        tokens.append([token for part in ids for token in part] + [0] * padding)
        positions.append([place for part in ids for place in range(len(part))] + [0] * padding)
        documents.append([number for number, part in enumerate(ids) for _ in part] + [-1] * padding)
        # the label of a token is the next one; the last of a document predicts nothing
        labels.append([label for document in row for label in _labels(document)] + [-100] * padding)
    return Batch(torch.tensor(tokens), torch.tensor(positions), torch.tensor(documents), torch.tensor(labels))


def _labels(document: Tokens) -> list[int]:
    ids, first = document
    return [-100] * (first - 1) + ids[first:] + [-100]


def block_mask(documents: Tensor) -> Tensor:
    """Who may attend to whom: [R, 1, S, S], true where key is in the query's document and not after it."""
    length = documents.shape[-1]
    same = documents[:, :, None] == documents[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return (same & causal)[:, None]
