"""A threshold for eviction while reading: contexts and a target share -> the score from which on tokens are kept.

While a text is read, each run of a policy decides before later tokens have been scored, so that no budget can be shared
between heads by comparing all scores of the text. A fixed threshold can: it is the same for all layers and heads, and
is calibrated on other texts so that, on average, it keeps the target share. How much it keeps of one text then depends
on the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import MemxError
from ..transformers_compat import input_device
from .attachment import attach
from .cache.cache import EvictingCache
from .policies.base import Policy, Rule, View
from .policies.rule import Around, under_rule
from .trial import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OnlineThreshold(NamedTuple):
    """What `calibrate_threshold` found.

    Attributes:
        rule: A rule with the threshold: each head keeps exactly the tokens that reach it.
        share: The mean share of the tokens seen that it kept at the last run of each context.
    """

    rule: Rule
    share: float


def calibrate_threshold(
    model: PreTrainedModel, policy: Policy, contexts: Iterable[Tensor], share: float, *, rounds: int = 3
) -> OnlineThreshold:
    """Find the threshold with which a policy keeps a share of the cache while it reads.

    Each context is read once with the full cache, while the lowest score that each token ever gets is noted: a token
    survives a threshold if none of its scores is below it. That gives a first threshold for any share. As scores change
    once tokens are evicted, contexts are then read under it `rounds` times, each time after the first with the share
    that is asked for corrected by the one that was kept; the threshold that came nearest is returned.

    Args:
        model: A decoder that `attach` supports.
        policy: The policy, which runs every `policy.every` tokens. Of its rule the protected tokens are kept.
        contexts: Token ids of texts, [N] each, of the lengths that the threshold is for; shorter ones than
            `policy.every` are left out.
        share: Mean share of the tokens seen so far that should be kept at a run, in (0, 1).
        rounds: Readings of every context under a threshold, at least 1.

    Returns:
        The rule, and the share that it kept of these contexts.

    Raises:
        MemxError: The share is outside (0, 1), the policy never runs, or every context is shorter than its interval.

    Example:
        ```python
        from dataclasses import replace

        import memx

        model, tokenizer = memx.load_model("smollm2")
        contexts = [tokenizer("one two three " * 60, return_tensors="pt").input_ids[0]]
        namm = replace(memx.namm.load("universal"), every=64)
        found = memx.namm.calibrate_threshold(model, namm, contexts, 0.5)
        namm = replace(namm, rule=found.rule)
        ```
    """
    if not 0 < share < 1:
        raise MemxError(f"the target share must be between 0 and 1, got {share:g}", hint="use e.g. 0.25")
    if policy.every is None:
        raise MemxError(f"policy {policy.name} never evicts while it reads", hint="use one with an eviction interval")
    every = policy.every
    long = [ids for ids in contexts if len(ids) >= every]
    if not long:
        raise MemxError(
            f"every context is shorter than the eviction interval of {every} tokens", hint="give longer contexts"
        )
    rule = replace(policy.rule, budget=None, grouping="per_head", allocation="equal", threshold=-inf)
    curve = _curve([_lowest(model, policy, rule, ids[: len(ids) // every * every]) for ids in long])
    found, asked = [], share
    for _ in range(max(rounds, 1)):
        at = replace(rule, threshold=curve.threshold(asked))
        kept = sum(_kept(model, policy, at, ids) for ids in long) / len(long)
        found.append(OnlineThreshold(at, kept))
        asked = min(max(asked * share / kept, 1e-4), 1.0)
    return min(found, key=lambda one: abs(one.share - share))


class _Curve(NamedTuple):
    """Scores, the highest first, and the mean share that is kept if all down to each of them are."""

    scores: Tensor
    shares: Tensor

    def threshold(self, share: float) -> float:
        """The lowest threshold that keeps no more than a share."""
        fits = int((self.shares <= share).sum())
        return float(self.scores[fits - 1]) if fits else float(self.scores[0])


def _curve(contexts: Sequence[Tensor]) -> _Curve:
    """How much is kept at which threshold, the mean over contexts of their lowest scores."""
    weights = [torch.full_like(one, 1 / len(one) / len(contexts)) for one in contexts]
    scores, order = torch.cat(list(contexts)).double().sort(descending=True)
    return _Curve(scores, torch.cat(weights).double()[order].cumsum(0))


def _lowest(model: PreTrainedModel, policy: Policy, rule: Rule, ids: Tensor) -> Tensor:
    """The lowest score that each token of a context gets in each head while it is read with the full cache, flat."""
    listener: Any = _Listener(policy, rule)
    with evaluating(model), attach(model, listener) as attached, torch.no_grad():
        attached.decoder(input_ids=ids[None].to(input_device(model)), use_cache=True)
    return torch.cat([lowest.flatten().cpu() for lowest in listener.lowest.values()])


def _kept(model: PreTrainedModel, policy: Policy, rule: Rule, ids: Tensor) -> float:
    """The share of tokens times heads that is kept at the last run of a context under a rule."""
    assert policy.every is not None
    seen = len(ids) // policy.every * policy.every
    with evaluating(model), attach(model, under_rule(policy, rule)) as attached, torch.no_grad():
        attached.decoder(input_ids=ids[None, :seen].to(input_device(model)), use_cache=True)
        cache: EvictingCache | None = attached.cache
    assert cache is not None
    counts = [count for layer in cache.layers for count in layer.state.counts[0]]
    return sum(counts) / len(counts) / seen


class _Listener(Around):
    """A policy that keeps everything and notes the lowest score of each token [H, T], by layer."""

    def __init__(self, policy: Policy, rule: Rule) -> None:
        self.policy, self.rule = policy, rule
        self.lowest: dict[int, Tensor] = {}

    def scores(self, view: View) -> Tensor:
        """The policy's own scores."""
        scores, exists = self.policy.scores(view), view.recent.exists
        positions, length = view.recent.positions[0].long(), int(view.seen[0])
        safe = (positions < self.rule.first) | (view.ages[0] < max(self.rule.newest, 1))  # whatever they score
        now = scores[0].float().masked_fill(safe if exists is None else safe | ~exists[0], inf)
        lowest = now.new_full((now.shape[0], length), inf)
        if (before := self.lowest.get(view.layer)) is not None:
            lowest[:, : before.shape[1]] = before
        lowest.scatter_reduce_(1, positions.clamp(max=length - 1), now, "amin")
        if view.recent.window is not None:  # what has left it is gone, whatever it scored
            lowest[:, : max(length - max(1, view.recent.window - 1), 0)] = -inf
        self.lowest[view.layer] = lowest
        return scores
