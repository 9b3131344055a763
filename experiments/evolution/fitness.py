"""Candidates and prompts -> fitness: 1 for answers as good as the full cache's, less the cache's price.

P candidates, N prompts, n parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..config.eviction.evolution import FitnessConfig
from .candidates import CandidateEvaluator, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What candidates did on prompts.

    Attributes:
        tasks: the family of each prompt: N names.
        raw: the gold answer's log-likelihood in nats a token, or the written answer's score: [N, P].
        base: the same of the full cache: [N].
        kept: the share of the cache that was kept: [N, P].
        value: 1 for an answer as good as the full cache's: [N, P].
        budgets: the share of the cache that was to be kept, of each prompt [N]; None: the NAMM's own rule.
    """

    tasks: tuple[str, ...]
    raw: Array
    base: Array
    kept: Array
    value: Array
    budgets: tuple[float | None, ...]

    def over_tasks(self, figures: Array) -> Array:
        """The mean over families of the mean over their prompts: [N, ...] -> [...]."""
        return np.mean([figures[self.of(task)].mean(0) for task in dict.fromkeys(self.tasks)], axis=0)

    def at(self, budget: float | None) -> Evaluation:
        """The part at one budget."""
        chosen = [number for number, own in enumerate(self.budgets) if own == budget]
        return Evaluation(
            tuple(self.tasks[number] for number in chosen),
            self.raw[chosen],
            self.base[chosen],
            self.kept[chosen],
            self.value[chosen],
            (budget,) * len(chosen),
        )

    def of(self, task: str) -> list[int]:
        """The numbers of a family's prompts."""
        return [number for number, name in enumerate(self.tasks) if name == task]

    def mean_kept(self) -> float:
        """The share kept, over families and candidates."""
        return float(self.over_tasks(self.kept).mean())

    def mean_values(self) -> dict[str, float]:
        """The value over prompts and candidates, by family."""
        return {task: float(self.value[self.of(task)].mean()) for task in dict.fromkeys(self.tasks)}


def worth(evaluation: Evaluation, config: FitnessConfig) -> Array:
    """What answers count for in the fitness: [N, P]. Without a cap a few lucky guesses may outweigh many failures."""
    return evaluation.value if config.cap is None else np.minimum(evaluation.value, config.cap)


def cost_of_cache(kept: Array, config: FitnessConfig) -> Array:
    """What is taken off for the share of the cache that is kept: all of it, or what exceeds the target."""
    if config.target is not None:
        return config.weight * np.maximum(0.0, kept - config.target)
    return config.price * kept


class Measured(NamedTuple):
    """What some candidates did on one prompt: raw and kept [P]. base: of the full cache, where it was asked for."""

    raw: Array
    kept: Array
    base: float | None


class FitnessEvaluator:
    """Measures candidates on prompts, and turns that into fitness."""

    def __init__(
        self, candidates: CandidateEvaluator, tokenizer: PreTrainedTokenizerFast, config: FitnessConfig
    ) -> None:
        self.candidates, self.tokenizer, self.config = candidates, tokenizer, config

    def measure(self, prompt: Prompt, members: torch.Tensor, budget: float | None = None, *, base: bool) -> Measured:
        """What candidates [P, n] do on a prompt, all in one batch.

        budget: the share of the cache that they keep; None: as the NAMM's rule says. base: measure the full cache too.
        """
        full = self._base(prompt) if base else None
        raw, kept = self._raw_and_kept(prompt, members, budget)
        return Measured(raw.double().numpy(), kept.double().numpy(), full)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far, by what they went to."""
        return self.candidates.seconds

    def release_contexts(self) -> None:
        """Let go of the contexts that were read."""
        self.candidates.release_contexts()

    def collect(
        self,
        prompts: Sequence[Prompt],
        measured: Sequence[Sequence[Measured]],
        budgets: Sequence[float | None] | None = None,
    ) -> Evaluation:
        """What candidates did on each prompt, from the parts of all in their order, of which the first has a base."""
        raw, kept = (
            np.array([np.concatenate([getattr(part, name) for part in parts]) for parts in measured])
            for name in ("raw", "kept")
        )
        base = np.array([parts[0].base for parts in measured], dtype=np.float64)
        tasks = tuple(prompt.example.task for prompt in prompts)
        own = (None,) * len(tasks) if budgets is None else tuple(budgets)
        return Evaluation(tasks, raw, base, kept, self._value(tasks, raw, base), own)

    def fitness(self, evaluation: Evaluation) -> Array:
        """The fitness of each candidate: [P]."""
        cost = cost_of_cache(evaluation.over_tasks(evaluation.kept), self.config)
        return evaluation.over_tasks(worth(evaluation, self.config)) - cost

    def _value(self, tasks: tuple[str, ...], raw: Array, base: Array) -> Array:
        """With log-likelihoods exp(own - base); with scores own / mean base of the family on the same prompts.

        Where the full cache scores less than `least_base` on average, that stands in its place: a family that the
        model cannot do would else outweigh all others.
        """
        if self.config.kind == "log_likelihood":
            return np.exp(raw - base[:, None])
        means = {task: base[[name == task for name in tasks]].mean() for task in dict.fromkeys(tasks)}
        divisors = np.array([max(means[task], self.config.least_base) for task in tasks])
        return raw / divisors[:, None]

    def _raw_and_kept(
        self, prompt: Prompt, parameters: torch.Tensor, budget: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.config.kind == "log_likelihood":
            scores = self.candidates.evaluate(prompt, parameters, budget)
            return scores.log_likelihood, scores.kept
        written = self.candidates.write(prompt, parameters, self.tokenizer, budget)
        return written.score, written.kept

    def _base(self, prompt: Prompt) -> float:
        if self.config.kind == "log_likelihood":
            return self.candidates.base(prompt)
        return self.candidates.base_score(prompt, self.tokenizer)
