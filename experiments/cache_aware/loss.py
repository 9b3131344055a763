"""What cache-aware finetuning minimises: a prompt -> a loss over its answer at every budget.

P budgets, A answer tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...namm.policies.base import Policy
from ...namm.policies.heuristics import Full
from ...transformers_compat import input_device
from ..config.eviction.training import TrainEvictionConfig
from ..eviction.answers import Prompt
from .data import TrainingPrompt
from .forward import answer_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EvictionLoss:
    """The loss of one prompt, a mean over its budgets and its answer's tokens.

    With the objective `distill` it is the Kullback-Leibler divergence, in nats, of what the model predicts at each
    budget from what the start model predicts with the full cache. With `answers` it is the answer's cross-entropy.

    Args:
        config: Objective, and where gradients go.
        policies: That of each budget [P].
        teacher: By number of a prompt, the start model's log-probabilities [A, V]; empty for the objective `answers`.
    """

    def __init__(
        self, config: TrainEvictionConfig, policies: Sequence[Policy], teacher: dict[int, Tensor] | None = None
    ) -> None:
        self.config, self.policies, self.teacher = config, policies, teacher or {}

    def __call__(self, model: PreTrainedModel, part: TrainingPrompt) -> Tensor:
        """The loss of a prompt, to differentiate."""
        prompt, through = part.prompt, self.config.through_context
        logits = answer_logits(model, prompt, self.policies, through_context=through)  # [P, A, V]
        predicted = _log_probabilities(logits)
        if self.config.objective == "distill":
            wanted = self.teacher[part.number].to(predicted)
            return F.kl_div(predicted, wanted.expand_as(predicted), reduction="none", log_target=True).sum(-1).mean()
        gold = prompt.rest[-prompt.answer :].to(input_device(model)).expand(len(predicted), -1)
        return F.nll_loss(predicted.flatten(0, 1), gold.flatten())


@torch.no_grad()
def teacher_of(
    model: PreTrainedModel, prompts: Sequence[Prompt], check: Callable[[], None] = lambda: None
) -> dict[int, Tensor]:
    """Let a model answer prompts with the full cache.

    Args:
        model: The model as training starts from it.
        prompts: The prompts.
        check: Called before each; may raise to stop.

    Returns:
        By number of the prompt, log-probabilities [A, V] on the CPU.
    """
    found = {}
    for number, prompt in enumerate(prompts):
        check()
        found[number] = _log_probabilities(answer_logits(model, prompt, [Full()]))[0].cpu()
    return found


def _log_probabilities(logits: Tensor) -> Tensor:
    """In float32, or in float64 where the model is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
