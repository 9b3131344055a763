"""How well a model answers prompts from what a policy leaves of its cache: before, during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...namm.policies.base import Policy
from ...results.namm.rows import budget_text
from ..config.training import TrainConfig
from ..eviction.answers import Prompt
from ..metrics.estimates import Estimate, mean_estimate
from ..models.generation import log_likelihoods
from .data import split_prompts
from .forward import answer_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class CacheAnswers:
    """Answers the validation prompts of the trained families at each budget.

    Args:
        config: Of the run.
        tokenizer: The model's.
        policies: That of each budget.

    Raises:
        MemxError: A family does not fit in the length.
    """

    def __init__(self, config: TrainConfig, tokenizer: PreTrainedTokenizerFast, policies: Sequence[Policy]) -> None:
        self.budgets, self.policies = config.eviction.budgets, policies
        count = config.eviction.validation
        self.prompts: list[Prompt] = (
            split_prompts(config, tokenizer, "validation", count, config.data.seed) if count else []
        )

    @torch.no_grad()
    def measure(self, model: PreTrainedModel) -> dict[str, Estimate]:
        """The mean log-likelihood of the right answer, nats a token, by budget; empty without prompts."""
        found: list[list[float]] = []
        for prompt in self.prompts:
            logits = answer_logits(model, prompt, self.policies).float()
            gold = prompt.rest[-prompt.answer :].to(logits.device).expand(len(logits), -1)
            found.append(log_likelihoods(logits, gold).mean(1).tolist())
        by_budget = zip(self.budgets, zip(*found, strict=True), strict=True) if found else ()
        return {budget_text(budget): mean_estimate(of_budget) for budget, of_budget in by_budget}
