"""Long-context prompts as training data: families of the split `train` -> an endless, shuffled stream of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..config.training import TrainConfig
from ..eviction.answers import Prompt
from ..eviction.tasks import Draws, check_fit, task_prompts, unfit
from ..runtime.events import Phase, Report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TrainingPrompt(NamedTuple):
    """A prompt and its number among those of the run: a micro-batch of its own."""

    number: int
    prompt: Prompt

    def to(self, device: torch.device) -> TrainingPrompt:
        """Itself: what reads a prompt moves it."""
        return self

    @property
    def real(self) -> Tensor | None:
        """Which of its tokens are no padding: all."""
        return None


class PromptData:
    """`TrainingData` of prompts, the same in each pass, in a new order. The run's seed draws both."""

    def __init__(self, config: TrainConfig, report: Report) -> None:
        self.config, self.report = config, report
        self.prompts: list[Prompt] = []

    def new_tokenizer(self) -> PreTrainedTokenizerFast:
        """Never asked: the model is a pretrained one."""
        raise AssertionError("prompts are read with the tokenizer of a pretrained model")

    def open(self, tokenizer: PreTrainedTokenizerFast) -> PromptBatches:
        """See `TrainingData`. Raises MemxError for a family that does not fit in the length."""
        eviction = self.config.eviction
        self.report(Phase("making the prompts"))
        self.prompts = split_prompts(self.config, tokenizer, "train", eviction.prompts, self.config.seed)
        self.batches = PromptBatches(self.prompts, self.config.training.batch, self.config.seed)
        return self.batches

    def micro_batches(self, batch: list[TrainingPrompt]) -> tuple[list[TrainingPrompt], int, int]:
        """See `TrainingData`; the loss counts prompts."""
        budgets = len(self.config.eviction.budgets)
        tokens = sum(len(one.prompt.context) + budgets * (len(one.prompt.rest) - 1) for one in batch)
        return batch, len(batch), tokens

    def position(self) -> dict[str, Any]:
        """See `TrainingData`."""
        return self.batches.position

    def first_tokens(self) -> tuple[Tensor, Tensor]:
        """See `TrainingData`; of the first prompt."""
        first = self.prompts[0]
        tokens = torch.cat([first.context, first.rest])[None]
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    def tokens_per_step(self) -> int:
        """See `TrainingData`; at most."""
        return self.config.training.batch * self.config.eviction.length


class PromptBatches:
    """An endless, shuffled stream of batches of prompts, which depends on the seed and its position alone."""

    def __init__(self, prompts: list[Prompt], batch: int, seed: int) -> None:
        self.prompts, self.batch, self.seed = prompts, batch, seed
        self.epoch = self.cursor = 0
        self._order = self._shuffled()

    @property
    def position(self) -> dict[str, int]:
        """Where the stream stands: passes done, and prompts shown in this one."""
        return {"epoch": self.epoch, "cursor": self.cursor}

    def seek(self, position: dict[str, int]) -> None:
        """Go to a saved position. Raises ValueError for one outside the prompts."""
        epoch, cursor = position["epoch"], position["cursor"]
        if type(epoch) is not int or type(cursor) is not int or epoch < 0 or not 0 <= cursor <= len(self.prompts):
            raise ValueError(f"no position in {len(self.prompts)} prompts: {position}")
        self.epoch, self.cursor = epoch, cursor
        self._order = self._shuffled()

    def __next__(self) -> list[TrainingPrompt]:
        chosen: list[TrainingPrompt] = []
        while len(chosen) < self.batch:
            if self.cursor == len(self.prompts):
                self.epoch, self.cursor = self.epoch + 1, 0
                self._order = self._shuffled()
            number = self._order[self.cursor]
            chosen.append(TrainingPrompt(number, self.prompts[number]))
            self.cursor += 1
        return chosen

    def _shuffled(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.prompts), generator=generator).tolist()


def split_prompts(
    config: TrainConfig, tokenizer: PreTrainedTokenizerFast, split: str, count: int, seed: int
) -> list[Prompt]:
    """Make the prompts of a config's families.

    Args:
        config: Families and length.
        tokenizer: The model's.
        split: `train` or `validation`, which share no document, word, number or entity.
        count: Prompts of each family.
        seed: Draws them.

    Returns:
        The prompts, family after family.

    Raises:
        MemxError: A family does not fit in the length.
    """
    eviction, draws = config.eviction, Draws(split, count, config.eviction.length, seed)
    check_fit(unfit(eviction.tasks, tokenizer, draws), eviction.length, "eviction.length")
    return [prompt for task in eviction.tasks for prompt in task_prompts(task, tokenizer, draws)]
