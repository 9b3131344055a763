"""Config and run folder -> a trainer of cache-aware finetuning: that of `training/build.py` with prompts and a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...results.store.runs import Run
from ..config.training import TrainConfig
from ..data.facts.questions import FactSplit
from ..distributed.process_group import World
from ..runtime.events import Phase, Report
from ..runtime.signals import Interrupted, StopRequest
from ..training import build
from ..training.loop import Trainer
from .data import PromptData
from .evaluation import CacheAnswers
from .forward import budget_policies
from .loss import EvictionLoss, teacher_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def build_trainer(
    config: TrainConfig, split: FactSplit, run: Run, report: Report, stop: StopRequest, threads: int, world: World
) -> Trainer:
    """Put together what a run trains with, whether a policy evicts in it or not.

    Args:
        config: Of the run.
        split: Its facts; empty for a corpus or prompts.
        run: Its claimed folder.
        report: Gets an event before what takes long, and after each step.
        stop: Whether somebody asked to stop.
        threads: Of torch, on this process.
        world: The processes that share the run.

    Raises:
        MemxError: The model, the data or the processes do not fit the config.
        Interrupted: A stop was asked for while the start model answers the prompts.
    """
    prompted = CacheAware(config, report, stop) if config.eviction.active else None
    return build.build_trainer(config, split, run, report, stop, threads, world, prompted)


class CacheAware:
    """The prompts of a run, its loss, and what answers its validation prompts.

    Args:
        config: Of the run.
        report: Gets an event before what takes long.
        stop: Whether somebody asked to stop.
    """

    def __init__(self, config: TrainConfig, report: Report, stop: StopRequest) -> None:
        self.config, self.report, self.stop = config, report, stop
        self.data = PromptData(config, report)

    def prepare(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> tuple[EvictionLoss, CacheAnswers]:
        """Make the loss, and what answers the validation prompts.

        Args:
            model: The model as training starts from it; its answers with the full cache are what `distill` teaches.
            tokenizer: The model's.

        Raises:
            MemxError: There is no such policy, it does not fit the model, or a family does not fit in the length.
            Interrupted: A stop was asked for.
        """
        eviction = self.config.eviction
        policies = budget_policies(eviction, str(self.config.finetune.source), self.config.seed)
        cached = CacheAnswers(self.config, tokenizer, policies)
        teacher = {}
        if eviction.objective == "distill":
            self.report(Phase("answering the prompts with the full cache"))
            teacher = teacher_of(model, self.data.prompts, self._check)
        return EvictionLoss(eviction, policies, teacher), cached

    def _check(self) -> None:
        if self.stop.asked:
            raise Interrupted("stopped before training")
