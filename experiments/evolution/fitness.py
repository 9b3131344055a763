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

from ..config.evolution import FitnessConfig
from .candidates import CandidateEvaluator, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What candidates did: raw [N, P] (nats a token, or a score), base [N] the same of the full cache, kept [N, P].

    value [N, P]: 1 for an answer as good as the full cache's.
    """

    tasks: tuple[str, ...]
    raw: Array
    base: Array
    kept: Array
    value: Array

    def over_tasks(self, figures: Array) -> Array:
        """The mean over families of the mean over their prompts: [N, ...] -> [...]."""
        return np.mean([figures[self.of(task)].mean(0) for task in dict.fromkeys(self.tasks)], axis=0)

    def of(self, task: str) -> list[int]:
        """The numbers of a family's prompts."""
        return [number for number, name in enumerate(self.tasks) if name == task]


def worth(found: Found, config: FitnessConfig) -> Array:
    """What answers count for in the fitness: [N, P]. Without a cap a few lucky guesses may outweigh many failures."""
    return found.value if config.cap is None else np.minimum(found.value, config.cap)


def cost_of_cache(kept: Array, config: FitnessConfig) -> Array:
    """What is taken off for the share of the cache that is kept."""
    if config.target is not None:
        return config.weight * np.maximum(0.0, kept - config.target)
    return config.price * kept


class Measured(NamedTuple):
    """What some candidates did on one prompt: raw and kept [P]. base: of the full cache, where it was asked for."""

    raw: Array
    kept: Array
    base: float | None


class FitnessEvaluator:
    """Measures candidates on prompts, and says what that is worth."""

    def __init__(self, judge: CandidateEvaluator, tokenizer: PreTrainedTokenizerFast, config: FitnessConfig) -> None:
        self.judge, self.tokenizer, self.config = judge, tokenizer, config

    def measure(self, prompt: Prompt, members: torch.Tensor, *, base: bool) -> Measured:
        """What candidates [P, n] do on a prompt, all in one batch."""
        full = self._base(prompt) if base else None
        raw, kept = self._one(prompt, members)
        return Measured(raw.double().numpy(), kept.double().numpy(), full)

    def collect(self, prompts: Sequence[Prompt], measured: Sequence[Sequence[Measured]]) -> Found:
        """What candidates did on each prompt, from the parts of all in their order, of which the first has a base."""
        raw, kept = (
            np.array([np.concatenate([getattr(part, name) for part in parts]) for parts in measured])
            for name in ("raw", "kept")
        )
        base = np.array([parts[0].base for parts in measured], dtype=np.float64)
        return self._found(tuple(prompt.example.task for prompt in prompts), raw, base, kept)

    def fitness(self, found: Found) -> Array:
        """The fitness of each candidate: [P]."""
        return found.over_tasks(worth(found, self.config)) - cost_of_cache(found.over_tasks(found.kept), self.config)

    def _found(self, tasks: tuple[str, ...], raw: Array, base: Array, kept: Array) -> Found:
        """With log-likelihoods exp(own - base); with scores own / mean base of the family on the same prompts.

        Where the full cache scores less than `least_base` on average, that stands in its place: a family that the
        host cannot do would else outweigh all others.
        """
        if self.config.kind == "log_likelihood":
            return Found(tasks, raw, base, kept, np.exp(raw - base[:, None]))
        means = {task: base[[name == task for name in tasks]].mean() for task in dict.fromkeys(tasks)}
        divisors = np.array([max(means[task], self.config.least_base) for task in tasks])
        return Found(tasks, raw, base, kept, raw / divisors[:, None])

    def _one(self, prompt: Prompt, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.config.kind == "log_likelihood":
            judged = self.judge.judge(prompt, parameters)
            return judged.log_likelihood, judged.kept
        written = self.judge.write(prompt, parameters, self.tokenizer)
        return written.score, written.kept

    def _base(self, prompt: Prompt) -> float:
        if self.config.kind == "log_likelihood":
            return self.judge.base(prompt)
        return self.judge.base_score(prompt, self.tokenizer)
