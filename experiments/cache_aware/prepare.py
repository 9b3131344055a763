"""Before cache-aware finetuning: the policies of its budgets, the start model's answers, and the validation prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.training import TrainConfig
from ..eviction.answers import Prompt
from ..runtime.events import Phase, Report
from ..runtime.signals import Interrupted, StopRequest
from .evaluation import CacheAnswers
from .forward import budget_policies
from .loss import EvictionLoss, teacher_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def prepare_eviction(
    config: TrainConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    report: Report,
    stop: StopRequest,
) -> tuple[EvictionLoss, CacheAnswers]:
    """Make the loss of a run, and what answers its validation prompts.

    Args:
        config: Of the run.
        model: The model as training starts from it; its answers with the full cache are what `distill` teaches.
        tokenizer: The model's.
        prompts: The training prompts.
        report: Gets an event before what takes long.
        stop: Whether somebody asked to stop.

    Raises:
        MemxError: There is no such policy, it does not fit the model, or a family does not fit in the length.
        Interrupted: A stop was asked for.
    """

    def check() -> None:
        if stop.asked:
            raise Interrupted("stopped before training")

    eviction = config.eviction
    policies = budget_policies(eviction, str(config.finetune.source), config.seed)
    cached = CacheAnswers(config, tokenizer, policies)
    teacher = {}
    if eviction.objective == "distill":
        report(Phase("answering the prompts with the full cache"))
        teacher = teacher_of(model, prompts, check)
    return EvictionLoss(eviction, policies, teacher), cached
