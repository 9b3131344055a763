"""The rivals of a NAMM: rules without parameters that score each cached token by its place or its key; all by name.

B sequences, H key-value heads, Q queries, T cached keys. All under a budget keep exactly so many tokens, in every head
or in all heads together, run at the same lengths and leave keys at their original rotary positions, so that a table
compares the choice alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import MemxError, nearest
from ..plugins import find_class, is_plugin, make_plugin, plugin_names
from .attention_rivals import H2O, TOVA, SnapKV
from .base import Policy, Rule, View
from .budgeted import BudgetPolicy, set_budget, unobserved
from .key_rivals import ExpectedAttention, KeyDiff
from .network import RUN

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
        heads = view.first_head + torch.arange(positions.shape[1], device=positions.device)[:, None]
        lots = _hash(_hash(_hash(self.seed & _WORD) + view.layer) + heads)
        return (_hash(lots + positions.long()) >> 8).float() / 2**24


def _hash(number: Any) -> Any:
    """A permutation of the integers of 32 bits that looks random, of an int or an int64 tensor: murmur3's finaliser."""
    number = (number + 0x9E3779B9) & _WORD  # 0 is a fixed point of the rest
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & _WORD  # int64 may overflow, the low half stays right
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & _WORD
    return number ^ (number >> 16)


class Recency(BudgetPolicy):
    """Keeps the newest tokens."""

    name = "recency"

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


class Knorm(BudgetPolicy):
    """Keeps the tokens whose keys are short.

    Source: Devoto et al. 2024, "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression" (arXiv
    2406.11430). Rotary positions leave the norm as it is. Norms within 0.07% of each other count as equal, and of those
    the newer token stays.
    """

    name = "knorm"

    def scores(self, view: View) -> Tensor:
        """The shorter the key the better: [B, H, T]."""
        norms = torch.linalg.vector_norm(view.key, dim=-1, dtype=torch.promote_types(view.key.dtype, torch.float32))
        # a word's keys in the first layer differ by their rotation alone: rounding errors must not choose among them
        return -norms.log2().round(decimals=3)


POLICIES: dict[str, Callable[..., Policy]] = {
    kind.name: kind
    for kind in (Full, Random, Recency, StreamingLLM, H2O, Knorm, TOVA, SnapKV, KeyDiff, ExpectedAttention)
}
"""The built-in policies by name; `make_policy` makes one."""


def check_policy(name: str) -> None:
    """Raise MemxError for a name that is no policy, built in or of a user's own."""
    if name == "kvzip":
        raise MemxError("kvzip reads a text twice, and cannot evict", hint="memx eval-namm compares it with the others")
    if name not in POLICIES and is_plugin(name):
        find_class(name)
    elif name not in POLICIES:
        known = (*POLICIES, *plugin_names())
        hint = nearest(name.lower(), known) or f"choose one of: {', '.join(known)}; or FILE.py:CLASS"
        raise MemxError(f"unknown policy {name!r}", hint=hint)


def make_policy(
    name: str, *, budget: float | None = None, every: int = RUN, seed: int = 0, rule: Rule | None = None
) -> Policy:
    """Make one of the built-in policies, with its published settings, or one of your own.

    Args:
        name: A name in `POLICIES`: "full", "random", "recency", "streamingllm", "h2o", "knorm", "tova", "snapkv",
            "keydiff" or "expected_attention"; or MODULE:CLASS, FILE.py:CLASS or an installed policy's name, whose
            class is called with budget, every and rule.
        budget: Share of all tokens so far that is kept, in (0, 1], or above 1 a number of tokens of each head.
            Required, except for "full".
        every: Tokens between evictions; a multiple of 16.
        seed: Random seed; "random" only.
        rule: How heads share the budget, and which first and newest tokens are kept in any case; its own budget is not
            used. None: every head keeps the same share, and nothing is protected.

    Returns:
        The policy.

    Raises:
        MemxError: The name is unknown, the budget is missing or wrong, or `every` is not a multiple of 16; or
            a policy of your own cannot be imported or made.

    Example:
        ```python
        import memx

        policy = memx.namm.make_policy("h2o", budget=0.5)
        rule = memx.namm.Rule(allocation="global", first=4)
        policy = memx.namm.make_policy("knorm", budget=0.25, rule=rule)
        ```
    """
    check_policy(name)
    if name == "full":
        if budget not in (None, 1):
            raise MemxError("the policy full keeps every token and takes no budget", hint="remove the budget")
        return Full()
    if budget is None:
        raise MemxError(
            f"the policy {name} needs a budget",
            hint="give a share of the cache, e.g. 0.5, or a number of tokens, e.g. 512",
        )
    if name not in POLICIES:
        return make_plugin(name, budget=budget, every=every, rule=replace(rule or Rule(), budget=budget))
    return POLICIES[name](budget, every, rule=rule or Rule(), **({"seed": seed} if name == "random" else {}))
