"""Rivals of a NAMM that score a key by other keys, or by the attention that it can expect; no attention is read.

B sequences, Hq query heads that share H key-value heads, T cached keys, d numbers a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...kernels.attention_spectrogram import HOP
from .base import Block, Rule, View
from .budgeted import BudgetPolicy, set_budget
from .features.expected import MOMENTS, expected_attention
from .features.feature import first_tokens, visible
from .features.keys import cosine_to_mean
from .network import RUN


class KeyDiff(BudgetPolicy):
    """Keeps the tokens whose keys differ most from the mean direction of all keys of their head.

    Source: Park et al. 2025, "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in
    Resource-Constrained Environments" (arXiv 2504.15364), section 3: the mean of the normalised keys, after rotary
    positions, of the tokens in the cache.
    """

    name = "keydiff"

    def scores(self, view: View) -> Tensor:
        """Less the cosine of each key and the mean direction: [B, H, T]."""
        return -cosine_to_mean(view.key, visible(view))


@dataclass(frozen=True)
class ExpectedAttention:
    """Keeps the tokens that can expect most of the next 512 queries: attention times the norm of the value.

    Queries to come are taken as distributed like those so far, before rotary positions; the first four tokens stay.

    Source: Devoto et al. 2025, "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries
    Distribution" (arXiv 2510.00636), section 3, with mean and covariance. The first four queries do not count.
    """

    budget: float
    every: int = RUN
    rule: Rule = field(default=Rule(), repr=False)

    name = "expected_attention"
    hop, context, width = HOP, 0, 0  # observed is what the queries are, not what they attend to
    needs_rotary = True
    __post_init__ = set_budget

    def observe(self, block: Block) -> Tensor:
        """Nothing beside a key: [B, H, T, 0]."""
        key = block.attention.key
        return torch.zeros(*key.shape[:3], 0, device=key.device)

    def summary_size(self, width: int) -> int:
        """Numbers of the mean and covariance of queries of d numbers."""
        return MOMENTS.size(width)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """Mean and covariance of all queries so far, of each query head: [B, Hq, numbers]."""
        return MOMENTS.update(block, summary)

    def scores(self, view: View) -> Tensor:
        """Expected attention times the norm of the value; inf for the first four tokens: [B, H, T]."""
        attention = expected_attention(view)
        return (attention * view.value.to(attention.dtype).norm(dim=-1)).masked_fill(first_tokens(view), torch.inf)
