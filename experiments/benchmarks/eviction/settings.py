"""What the benchmarks of eviction are asked for, and the records that go from what is measured to its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ...evolution.candidates import Mode
from ..benchmark import EvictionBenchConfig
from .policies import Held

CONTEXT = {"cpu": 2048, "cuda": 8192}
UNREAD, READ, ALONE = METHODS = ("contexts unread", "contexts read", "one by one")  # of judging a generation
MEMBERS = 4  # candidates that are judged one by one


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
