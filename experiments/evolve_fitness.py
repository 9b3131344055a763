"""Candidates and prompts -> fitness: 1 for answers as good as the full cache's, less the cache's price.

P candidates, N prompts, n parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from .candidates import Judge, Prompt
from .evolve_config import FitnessConfig

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


class Evaluator:
    """Evaluates candidates on prompts; `check` is called before each prompt and may raise to stop."""

    def __init__(
        self,
        judge: Judge,
        tokenizer: PreTrainedTokenizerFast,
        config: FitnessConfig,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.judge, self.tokenizer, self.config, self.check = judge, tokenizer, config, check

    def find(self, prompts: Sequence[Prompt], parameters: Array) -> Found:
        """Evaluate candidates [P, n] on each prompt."""
        members = torch.from_numpy(np.asarray(parameters, dtype=np.float32))
        raw, kept, base = [], [], []
        for prompt in prompts:
            self.check()
            base.append(self._base(prompt))
            parts = [self._one(prompt, part) for part in members.split(self.config.at_once)]
            raw.append(torch.cat([part for part, _ in parts]).double().numpy())
            kept.append(torch.cat([part for _, part in parts]).double().numpy())
        tasks = tuple(prompt.example.task for prompt in prompts)
        return self._found(tasks, np.array(raw), np.array(base), np.array(kept))

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
