"""The threshold that keeps a wanted share: against trying every threshold, and against the cache that results."""

from dataclasses import replace
from math import inf

import pytest
import torch
from memx import namm
from memx.namm.evolution.population import ObserveOnly
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full
from memx.namm.policies.network import Namm
from memx.namm.threshold import ContextScores, score_context, with_threshold

from .hosts import make_host, prompts


def kept_by_hand(found, threshold, grouping):
    """Tokens and heads one after another; the newest that exists stays, equal scores keep the newer."""
    total = heads = 0
    for scores, exists in zip(found.scores, found.exists, strict=True):
        counts = []
        for head in range(scores.shape[1]):
            there = range(scores.shape[2]) if exists is None else exists[0, head].nonzero()[:, 0].tolist()
            counts.append(sum(float(scores[0, head, t]) >= threshold or t == max(there) for t in there))
        if grouping == "layer_max":
            there = [scores.shape[2] if exists is None else int(one) for one in
                     ([0] * len(counts) if exists is None else exists[0].sum(-1))]  # fmt: skip
            counts = [min(max(counts), one) for one in there]
        total, heads = total + sum(counts), heads + len(counts)
    return (total / heads + found.held) / found.tokens


@pytest.mark.parametrize("grouping", ["per_head", "layer_max"])
def test_it_is_the_lowest_threshold_that_keeps_no_more(grouping):
    draw = torch.Generator().manual_seed(0)
    scores = [torch.randn(1, 2, 12, generator=draw).round(decimals=1) * size for size in (1, 3, 0.2)]
    exists = [None, torch.arange(12) >= torch.tensor([[[5], [0]]]), None]
    found = ContextScores(scores, exists, 13, 1)
    values = torch.cat([one.flatten() for one in scores]).unique().tolist()
    for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.9, 1.0):
        fit = [one for one in (-inf, *values, inf) if kept_by_hand(found, one, grouping) <= share]
        wanted = min(fit) if fit else inf
        threshold = found.threshold(share, grouping)
        assert kept_by_hand(found, threshold, grouping) == pytest.approx(kept_by_hand(found, wanted, grouping))
        assert found.kept_share(threshold, grouping) == pytest.approx(kept_by_hand(found, threshold, grouping))


@torch.no_grad()
@pytest.mark.parametrize(("kind", "sizes"), [("llama", {}), ("mistral", {"sliding_window": 90})])
@pytest.mark.parametrize("grouping", ["per_head", "layer_max"])
@pytest.mark.parametrize("safe", [{}, {"first": 9, "newest": 20}], ids=["all alike", "protected"])
def test_the_cache_is_of_that_size(kind, sizes, grouping, safe):
    host = make_host(kind, **sizes).double()
    (context,) = prompts(197)
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(1))
    policy = Namm(parameters, variance=torch.full((17,), 0.01), rule=Rule(grouping=grouping, **safe), every=64)
    with namm.attach(host, ObserveOnly()) as attached:
        host(context[None])
    found = score_context(attached.cache, policy)
    heads = sum(one.shape[1] for one in found.scores)
    for share in (0.3, 0.45):
        moved = with_threshold(policy, found.threshold(share, grouping), grouping)
        cache = attached.cache.fork(moved, continue_with=Full())
        kept = sum(sum(layer.state.counts[0]) for layer in cache.layers) / heads / 197
        step = 1 / 197 if grouping == "layer_max" else 1 / 197 / heads
        assert share - step - 1e-9 <= kept <= share + 1e-9
        assert kept == pytest.approx(found.kept_share(moved.rule.threshold, grouping))
        cache = attached.cache.fork(replace(policy, rule=Rule(budget=share, **safe)), continue_with=Full())
        assert found.equal_share(share) == pytest.approx(
            sum(sum(layer.state.counts[0]) for layer in cache.layers) / heads / 197
        )
    moved = with_threshold(replace(policy, rule=Rule(budget=0.5, **safe)), 0.2, grouping)
    assert moved.rule == Rule(0.2, None, grouping, **safe)
