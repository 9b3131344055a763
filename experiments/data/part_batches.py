"""The batches of a run on facts: one stream, or one for each part of a continual-learning run, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config.training import TrainConfig
from .batches import Batch, PackedBatches
from .facts.parts import split_parts
from .facts.questions import FactSplit
from .facts.record import Fact

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def open_batches(
    config: TrainConfig, split: FactSplit, tokenizer: PreTrainedTokenizerFast
) -> PackedBatches | PartBatches:
    """Open the batches of a run on facts, at their start.

    Args:
        config: Of the run.
        split: Its facts.
        tokenizer: That they are encoded with.

    Returns:
        One stream, or with `finetune.parts` the streams of the parts, one after another.

    Raises:
        MemxError: The facts cannot be split into so many parts.
    """

    def stream(facts: Sequence[Fact]) -> PackedBatches:
        return PackedBatches(
            facts,
            tokenizer,
            batch=config.training.batch,
            sequence=config.data.sequence,
            seed=config.seed,
            split_seed=split.seed,
            loss_on=config.data.loss_on,
            wording=split.wording,
        )

    if config.finetune.parts is None:
        return stream(split.trained)
    parts = split_parts(split.trained, config.finetune.parts, split.seed)
    return PartBatches([stream(facts) for facts in parts], config.part_steps)


class PartBatches:
    """The streams of all parts, one after another, each for the same number of batches.

    Args:
        streams: The batches of each part, at their start.
        steps: How many batches are taken of each.
    """

    def __init__(self, streams: Sequence[PackedBatches], steps: int) -> None:
        assert streams and steps > 0, (len(streams), steps)
        self.streams, self.steps, self.taken = list(streams), steps, 0

    @property
    def position(self) -> dict[str, Any]:
        """Where the stream stands: batches taken in all, and the place in the part that comes next."""
        return {"taken": self.taken, **self._stream().position}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a saved position. Raises ValueError for one outside the parts."""
        taken = position["taken"]
        if type(taken) is not int or not 0 <= taken <= self.steps * len(self.streams):
            raise ValueError(f"no position in {len(self.streams)} parts: {position}")
        self.taken = taken
        self._stream().seek({"epoch": position["epoch"], "cursor": position["cursor"]})

    def __next__(self) -> Batch:
        batch = next(self._stream())
        self.taken += 1
        return batch

    def __iter__(self) -> PartBatches:
        return self

    def _stream(self) -> PackedBatches:
        return self.streams[min(self.taken // self.steps, len(self.streams) - 1)]
