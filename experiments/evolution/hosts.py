"""Evolution on several base models: each has prompts of its own, in its own tokens, and answers them itself.

A family counts as much on each base model. P candidates, n parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..config.eviction.evolution import FitnessConfig
from ..eviction.answers import Prompt
from ..eviction.tasks import Prompts
from .candidates import CandidateEvaluator
from .fitness import FitnessEvaluator, Measured

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class BaseModel(NamedTuple):
    """A base model in eval mode, its tokenizer, and what NAMM files call it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    name: str


@dataclass(frozen=True)
class HostPrompts:
    """The prompts of each base model, in the order of the config."""

    hosts: tuple[Prompts, ...]

    @property
    def all(self) -> list[Prompt]:
        """Every prompt, in one order."""
        return [prompt for own in self.hosts for prompt in own.all]

    def drawn(self, tasks: Sequence[str], count: int, seed: int, generation: int) -> list[Prompt]:
        """Those of a generation: `count` of each family and base model, the same for every candidate."""
        each = [own.drawn(tasks, count, seed, generation, host) for host, own in enumerate(self.hosts)]
        return [prompt for drawn in each for prompt in drawn]

    def validated(self, tasks: Sequence[str]) -> list[Prompt]:
        """Every validation prompt of some families."""
        return [prompt for own in self.hosts for prompt in own.validated(tasks)]

    def tested(self, tasks: Sequence[str]) -> list[Prompt]:
        """Every test prompt of some families."""
        return [prompt for own in self.hosts for prompt in own.tested(tasks)]


class HostsFitnessEvaluator(FitnessEvaluator):
    """Measures candidates on prompts of several base models, each on its own.

    Args:
        evaluators: Those of each base model.
        bases: The base models.
        prompts: Their prompts.
        config: The fitness.
    """

    def __init__(
        self,
        evaluators: Sequence[CandidateEvaluator],
        bases: Sequence[BaseModel],
        prompts: HostPrompts,
        config: FitnessConfig,
    ) -> None:
        super().__init__(evaluators[0], bases[0].tokenizer, config)
        self.parts = [
            FitnessEvaluator(evaluator, base.tokenizer, config)
            for evaluator, base in zip(evaluators, bases, strict=True)
        ]
        self._of = {id(prompt): part for part, own in zip(self.parts, prompts.hosts, strict=True) for prompt in own.all}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far on all base models, by what they went to."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.candidates.seconds)
        return dict(total)

    def measure(self, prompt: Prompt, members: Tensor, budget: float | None = None, *, base: bool) -> Measured:
        """What candidates [P, n] do on a prompt, on the base model that it is for."""
        return self._of[id(prompt)].measure(prompt, members, budget, base=base)

    def release_contexts(self) -> None:
        """Let go of the contexts that were read."""
        for part in self.parts:
            part.release_contexts()


def pooled(moments: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The mean and variance of inputs over several base models, each of which counts alike.

    Args:
        moments: Mean [i] and variance [i] on each base model.

    Returns:
        Mean [i] and variance [i] of the mixture.
    """
    if len(moments) == 1:
        return moments[0]
    means, variances = (torch.stack(parts).double() for parts in zip(*moments, strict=True))
    mean = means.mean(0)
    variance = (variances + means.square()).mean(0) - mean.square()
    dtype = moments[0][0].dtype
    return mean.to(dtype), variance.to(dtype)
