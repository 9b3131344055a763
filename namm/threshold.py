"""How much a threshold keeps: a context that was read and a wanted share of it -> the threshold that keeps so much.

Scores of all layers and heads meet the same threshold: they decide where tokens stay, the threshold how many. Knowing
every layer's scores before the first choice is possible after a context was read, not while it is: see `online.py`.
L layers, H heads, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf
from typing import Any

import torch
from torch import Tensor

from .cache.cache import EvictingCache
from .policies.base import Policy, Rule, View
from .policies.heuristics import Full
from .policies.keep import Grouping, newest
from .policies.network import Namm
from .policies.rule import Around


@dataclass(frozen=True)
class ContextScores:
    """What a policy thinks of one sequence: scores [1, H, T] and which of the tokens exist, of each layer.

    tokens: all that the sequence ever had; held: those that stay in any case, as no policy has seen them yet.
    """

    scores: list[Tensor]
    exists: list[Tensor | None]
    tokens: int
    held: int

    def kept_share(self, threshold: float, grouping: Grouping) -> float:
        """The share of tokens times heads that stays: see `kept_tokens`."""
        stay = 0
        for scores, there in self._layers():
            counts = (((scores >= threshold) & there) | newest(there)).sum(-1)
            most = int(counts.max()) if grouping == "layer_max" else counts
            stay += int(there.sum(-1).clamp(max=most).sum() if grouping == "layer_max" else counts.sum())
        return self._share(stay)

    def equal_share(self, share: float) -> float:
        """The share of tokens times heads that stays if every head keeps a share, or all that it can see of it."""
        room = max(1, int(self.tokens * Fraction(str(share)))) - self.held
        return self._share(sum(int(there.sum(-1).clamp(max=max(room, 1)).sum()) for _, there in self._layers()))

    def _layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores and which tokens exist, [H, T], of each layer."""
        for scores, exists in zip(self.scores, self.exists, strict=True):
            there = torch.ones_like(scores, dtype=torch.bool) if exists is None else exists.expand_as(scores)
            yield scores[0], there[0]

    def _share(self, stay: int) -> float:
        heads = sum(scores.shape[1] for scores in self.scores)
        return (stay / heads + self.held) / self.tokens

    def threshold(self, share: float, grouping: Grouping) -> float:
        """The lowest threshold that keeps at most a share of tokens times heads; inf if each keeps more."""
        if self.kept_share(-inf, grouping) <= share:
            return -inf
        values = torch.cat([scores.flatten().cpu() for scores in self.scores]).unique()  # layers may lie apart
        low, high = 0, len(values)  # that before low keeps too much, that at high does not, or is inf
        while low < high:
            middle = (low + high) // 2
            if self.kept_share(float(values[middle]), grouping) <= share:
                high = middle
            else:
                low = middle + 1
        return float(values[low]) if low < len(values) else inf


def score_context(cache: EvictingCache, policy: Policy) -> ContextScores:
    """What a policy thinks of the one sequence of a cache that was read under another, which notes the same."""
    assert len(cache.seen) == 1, "one sequence at a time"
    listener: Any = _Listener(policy)
    cache.fork(listener, continue_with=Full())
    return ContextScores(listener.scores_of, listener.exists_of, cache.seen[0], cache.seen[0] % max(policy.hop, 1))


@dataclass(frozen=True)
class _Listener(Around):
    """Writes down what a policy says, and keeps everything."""

    policy: Policy
    scores_of: list[Tensor] = field(default_factory=list)
    exists_of: list[Tensor | None] = field(default_factory=list)

    name = "listener"
    rule = Rule(threshold=-inf)

    def scores(self, view: View) -> Tensor:
        scores, exists = self.policy.scores(view), view.recent.exists
        if (window := view.recent.window) is not None:  # what has left it goes, whatever it scores
            near = view.ages < max(1, window - 1)
            exists = near if exists is None else exists & near
        rule = self.policy.rule
        if rule.first or rule.newest:  # those stay, whatever they score
            kept = (view.recent.positions < rule.first) | (view.ages < rule.newest)
            scores = scores.masked_fill(kept, inf)
        self.scores_of.append(scores)
        self.exists_of.append(exists)
        return scores


def with_threshold(namm: Namm, threshold: float, grouping: Grouping) -> Namm:
    """A NAMM with another threshold, and no budget; the first and newest tokens that it keeps stay the same."""
    return replace(namm, rule=Rule(threshold, None, grouping, first=namm.rule.first, newest=namm.rule.newest))
