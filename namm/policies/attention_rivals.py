"""Rivals of a NAMM that score a key by the attention that it received.

B sequences, Hq query heads that share H key-value heads, Q queries, T cached keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MemxError
from ...kernels.attention_spectrogram import HOP
from .base import Block, Rule, View
from .budgeted import set_budget, unobserved
from .network import RUN

_ROWS = 128  # rows of attention written out at a time


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
