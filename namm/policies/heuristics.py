"""The rivals of a NAMM: rules that score each cached token by its place, its key or its attention; no parameters.

B sequences, H key-value heads, Q queries, T cached keys. All under a budget keep exactly so many tokens, in every head
or in all heads together, run at the same lengths and leave keys at their original rotary positions, so that a table
compares the choice alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MemxError, nearest
from ...kernels.attention_spectrogram import HOP
from .base import Block, Policy, Rule, View
from .budgeted import set_budget, unobserved
from .key_rivals import ExpectedAttention, KeyDiff
from .network import RUN

_ROWS = 128  # rows of attention written out at a time
_WORD = 2**32 - 1


@dataclass(frozen=True)
class Full:
    """Keeps every token: what a model does without memx."""

    name = "full"
    rule = Rule(threshold=-torch.inf)
    every = None
    hop = context = width = 0
    observe = unobserved

    def scores(self, view: View) -> Tensor:
        """All alike: [B, H, T]."""
        return torch.zeros_like(view.ages, dtype=torch.float32)


@dataclass(frozen=True)
class Random:
    """Keeps tokens by lot: uniformly among all that a sequence ever had, other ones in each layer and head.

    A token's lot is a hash of (seed, layer, head, its number in the sequence), drawn once: the same alone and in a
    batch, in one piece and in many.
    """

    budget: float
    every: int = RUN
    seed: int = 0
    rule: Rule = field(default=Rule(), repr=False)

    name = "random"
    hop = context = width = 0
    __post_init__ = set_budget
    observe = unobserved

    def scores(self, view: View) -> Tensor:
        """Uniform in [0, 1): [B, H, T]."""
        positions = view.recent.positions
        heads = torch.arange(positions.shape[1], device=positions.device)[:, None]
        lots = _hash(_hash(_hash(self.seed & _WORD) + view.layer) + heads)
        return (_hash(lots + positions.long()) >> 8).float() / 2**24


def _hash(number: Any) -> Any:
    """A permutation of the integers of 32 bits that looks random, of an int or an int64 tensor: murmur3's finaliser."""
    number = (number + 0x9E3779B9) & _WORD  # 0 is a fixed point of the rest
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & _WORD  # int64 may overflow, the low half stays right
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & _WORD
    return number ^ (number >> 16)


@dataclass(frozen=True)
class Recency:
    """Keeps the newest tokens."""

    budget: float
    every: int = RUN
    rule: Rule = field(default=Rule(), repr=False)

    name = "recency"
    hop = context = width = 0
    __post_init__ = set_budget
    observe = unobserved

    def scores(self, view: View) -> Tensor:
        """The younger the better: [B, H, T]."""
        return -view.ages.float()


@dataclass(frozen=True)
class StreamingLLM:
    """Keeps the first few tokens, on which attention rests that has nowhere to go, and the newest.

    Source: Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453), 4 sinks.
    There tokens are renumbered by their place in the cache; here they stay at their original positions.
    """

    budget: float
    every: int = RUN
    sinks: int = 4
    rule: Rule = field(default=Rule(), repr=False)

    name = "streamingllm"
    hop = context = width = 0
    __post_init__ = set_budget
    observe = unobserved

    def scores(self, view: View) -> Tensor:
        """The first tokens from the first on, then the younger the better: [B, H, T]."""
        positions = view.recent.positions
        return torch.where(positions < self.sinks, self.sinks - positions, -view.ages).float()


@dataclass(frozen=True)
class H2O:
    """Keeps heavy hitters, the tokens that all queries since they came attended to most, and as many of the newest.

    Source: Zhang et al. 2023, "H2O: Heavy-Hitter Oracle" (arXiv 2306.14048), algorithm 1, with half of the room for
    each. Heads of a group share keys, so their attention is averaged.
    """

    budget: float
    every: int = RUN
    rule: Rule = field(default=Rule(), repr=False)

    name = "h2o"
    hop, context, width = HOP, 0, 1  # by hops, so that a generated token costs no pass over the keys of its own
    __post_init__ = set_budget

    def observe(self, block: Block) -> Tensor:
        """The sum of each key's attention over all queries so far: [B, H, T, 1]."""
        attention = block.attention
        total = torch.zeros(attention.key.shape[:3], device=attention.key.device)
        if block.state is not None:
            total[..., : block.state.shape[2]] = block.state[..., 0]
        for part in attention.parts(_ROWS):
            total[..., : part.key.shape[2]] += part.rows().sum(2)
        return total[..., None]

    def scores(self, view: View) -> Tensor:
        """Accumulated attention; inf for the newest that fill half of the room: [B, H, T]."""
        if view.room is None:
            raise MemxError("h2o keeps the newest half of a budget, so it has no threshold", hint="use another policy")
        room = view.room[:, None] if view.rooms is None else view.rooms  # [B, 1 or H]
        newest = room - room // 2
        return view.state[..., 0].float().masked_fill(view.ages < newest[..., None], torch.inf)


@dataclass(frozen=True)
class Knorm:
    """Keeps the tokens whose keys are short.

    Source: Devoto et al. 2024, "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression" (arXiv
    2406.11430). Rotary positions leave the norm as it is. Norms within 0.07% of each other count as equal, and of those
    the newer token stays.
    """

    budget: float
    every: int = RUN
    rule: Rule = field(default=Rule(), repr=False)

    name = "knorm"
    hop = context = width = 0
    __post_init__ = set_budget
    observe = unobserved

    def scores(self, view: View) -> Tensor:
        """The shorter the key the better: [B, H, T]."""
        norms = torch.linalg.vector_norm(view.key, dim=-1, dtype=torch.promote_types(view.key.dtype, torch.float32))
        # a word's keys in the first layer differ by their rotation alone: rounding errors must not choose among them
        return -norms.log2().round(decimals=3)


@dataclass(frozen=True)
class TOVA:
    """Keeps the tokens that the newest query attends to most, over all heads of a layer together.

    Source: Oren et al. 2024, "Transformers are Multi-State RNNs" (arXiv 2401.06104), section 4.
    """

    budget: float
    every: int = RUN
    rule: Rule = field(default=Rule(), repr=False)

    name = "tova"
    hop, context, width = 0, 1, 0
    __post_init__ = set_budget
    observe = unobserved

    def scores(self, view: View) -> Tensor:
        """Attention of the last query, averaged over the heads that hold a token: [B, H, T].

        So heads with equal shares hold the same tokens.
        """
        rows, recent = view.recent.rows()[:, :, 0], view.recent  # [B, H, T]
        places = recent.positions.long().clamp(min=0)
        there = torch.ones_like(rows) if recent.exists is None else recent.exists.to(rows.dtype)
        length = int(places.max()) + 1
        attention, heads = (
            torch.zeros(len(rows), length, dtype=rows.dtype, device=rows.device).scatter_add_(
                1, places.flatten(1), numbers.flatten(1)
            )
            for numbers in (rows * there, there)
        )
        mean = attention / heads.clamp(min=1)
        return mean[:, None].expand(-1, rows.shape[1], -1).gather(2, places)


@dataclass(frozen=True)
class SnapKV:
    """Keeps the last `window` tokens, and those before that they attend to most, or whose neighbours they do.

    Source: Li et al. 2024, "SnapKV: LLM Knows What You are Looking for Before Generation" (arXiv 2404.14469), listing
    1 and the settings for LongBench: 32 queries, maxima over 7 tokens. Neighbours are those in the cache.
    """

    budget: float
    every: int = RUN
    window: int = 32
    kernel: int = 7
    pooling: Literal["max", "avg"] = "max"
    rule: Rule = field(default=Rule(), repr=False)

    name = "snapkv"
    hop = width = 0
    observe = unobserved

    def __post_init__(self) -> None:
        assert self.window > 0 and self.kernel % 2 == 1, (self.window, self.kernel)
        set_budget(self)

    @property
    def context(self) -> int:
        """The queries that vote."""
        return self.window

    def scores(self, view: View) -> Tensor:
        """Mean attention of the last queries, pooled along older tokens; inf for the queries' own: [B, H, T]."""
        voters = view.ages < self.window
        # the queries' own tokens and slots without one count as nothing, as does what lies beyond the ends
        unpooled = view.recent.rows().mean(2).masked_fill(voters, 0)
        pool = F.max_pool1d if self.pooling == "max" else F.avg_pool1d
        return pool(unpooled, self.kernel, stride=1, padding=self.kernel // 2).masked_fill(voters, torch.inf)


POLICIES: dict[str, Callable[..., Policy]] = {
    kind.name: kind
    for kind in (Full, Random, Recency, StreamingLLM, H2O, Knorm, TOVA, SnapKV, KeyDiff, ExpectedAttention)
}
"""The built-in policies by name; `make_policy` makes one."""


def make_policy(
    name: str, *, budget: float | None = None, every: int = RUN, seed: int = 0, rule: Rule | None = None
) -> Policy:
    """Make one of the built-in policies, with its published settings.

    Args:
        name: A name in `POLICIES`: "full", "random", "recency", "streamingllm", "h2o", "knorm", "tova", "snapkv",
            "keydiff" or "expected_attention".
        budget: Share of all tokens so far that is kept, in (0, 1]. Required, except for "full".
        every: Tokens between evictions; a multiple of 16.
        seed: Random seed; "random" only.
        rule: How heads share the budget, and which first and newest tokens are kept in any case; its own budget is not
            used. None: every head keeps the same share, and nothing is protected.

    Returns:
        The policy.

    Raises:
        MemxError: The name is unknown, the budget is missing or outside (0, 1], or `every` is not a multiple of 16.

    Example:
        ```python
        import memx

        policy = memx.namm.make_policy("h2o", budget=0.5)
        rule = memx.namm.Rule(allocation="global", first=4)
        policy = memx.namm.make_policy("knorm", budget=0.25, rule=rule)
        ```
    """
    if name not in POLICIES:
        hint = nearest(name.lower(), POLICIES) or f"choose one of: {', '.join(POLICIES)}"
        raise MemxError(f"unknown policy {name!r}", hint=hint)
    if name == "full":
        if budget not in (None, 1):
            raise MemxError("the policy full keeps every token and takes no budget", hint="remove the budget")
        return Full()
    if budget is None:
        raise MemxError(
            f"the policy {name} needs a budget", hint="give the share of the cache to keep, in (0, 1], e.g. 0.5"
        )
    return POLICIES[name](budget, every, rule=rule or Rule(), **({"seed": seed} if name == "random" else {}))
