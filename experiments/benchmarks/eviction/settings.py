"""What the benchmarks of eviction are asked for, and the records that go from what is measured to its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ....namm.policies.network import RUN
from ...base_models.synthetic import TINY
from ...evolution.candidates import Mode
from .policies import Held

CONTEXT = {"cpu": 2048, "cuda": 8192}
UNREAD, READ, ALONE = METHODS = ("contexts unread", "contexts read", "one by one")  # of judging a generation
MEMBERS = 4  # candidates that are judged one by one


@dataclass(frozen=True)
class EvictionBenchConfig:
    """What to run of the benchmarks of eviction.

    Attributes:
        host: The name of a model, pretrained or of random weights.
        layers: Fewer or more layers, of a model of random weights alone.
        contexts: Tokens of a prompt; what suits the device if empty.
        batches: Prompts at a time; for `evolve`, prompts of a generation.
        policies: Names of policies; all that there are if empty.
        budgets: Shares of the tokens that stay, in (0, 1].
        every: Tokens between two evictions.
        new_tokens: Tokens written greedily after the prefill.
        population: Candidates of a generation of `evolve`.
    """

    host: str = TINY
    layers: int | None = None
    contexts: Sequence[int] = ()
    batches: Sequence[int] = (1,)
    policies: Sequence[str] = ()
    budgets: Sequence[float] = (0.5,)
    every: int = RUN
    new_tokens: int = 64
    population: int = 32


def contexts(config: EvictionBenchConfig, device: torch.device) -> Sequence[int]:
    """The context lengths: those of the config, or what suits the device."""
    return config.contexts or (CONTEXT[device.type],)


@dataclass
class Times:
    """Seconds of each round's prefill and of its new tokens, and what was held after the prefill."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    held: Held | None = None
    in_pieces: Held | None = None
    peak_bytes: int | None = None


class Setting(NamedTuple):
    """What all rows of one context and batch share beside the baseline."""

    config: EvictionBenchConfig
    context: int
    batch: int
    common: dict[str, Any]


class Case(NamedTuple):
    """What is measured together of an evolution: prompts of a length, the budget of all candidates, the mode."""

    config: EvictionBenchConfig
    context: int
    prompts: int
    budget: float
    mode: Mode
    common: dict[str, Any]


@dataclass
class Generations:
    """Seconds of a generation in each round, and percents of the parts of one, by method; candidates judged alone."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {method: [] for method in METHODS})
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: int = MEMBERS
