"""A threshold that keeps a target share while reading: exact where scores do not change, near it where they do."""

from dataclasses import dataclass

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.namm.online import calibrate_threshold
from memx.namm.policies.attention_rivals import H2O
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full, Knorm, Recency, make_policy

from .hosts import make_host, prompts


@dataclass(frozen=True)
class Ageing(Recency):
    """Scores that fall with age, by another slope in each head."""

    name = "ageing"

    def scores(self, view):
        slopes = 1.0 + torch.arange(view.ages.shape[1])[:, None] + view.layer
        return -view.ages / slopes


@pytest.fixture(scope="module")
def host():
    return make_host().double()


@torch.no_grad()
@pytest.mark.parametrize("policy", [Knorm(0.5, 32), Ageing(0.5, 32)], ids=lambda policy: policy.name)
def test_the_target_share_is_kept_at_the_last_run(host, policy):
    """Of other lengths than multiples of the interval too; scores do not depend on what was evicted."""
    contexts = prompts(100, 64, 20)
    for share in (0.2, 0.6):
        found = calibrate_threshold(host, policy, contexts, share, rounds=1)
        kept = []
        for ids in contexts[:2]:
            seen = len(ids) // 32 * 32
            with namm.attach(host, Under(policy, found.rule)) as attached:
                host(ids[None, :seen])
            counts = [count for layer in attached.cache.layers for count in layer.state.counts[0]]
            kept.append(sum(counts) / len(counts) / seen)
        assert found.share == pytest.approx(sum(kept) / 2)
        assert abs(found.share - share) < 0.02  # norms that are equal after rounding stay together
        assert found.rule.grouping == "per_head" and found.rule.budget is None


class Under:
    """A policy under another rule."""

    def __init__(self, policy, rule):
        self.policy, self.rule = policy, rule

    def __getattr__(self, name):
        return getattr(self.policy, name)


@torch.no_grad()
def test_protected_tokens_are_kept_within_the_share(host):
    policy = make_policy("knorm", budget=0.5, every=32, rule=Rule(first=4, newest=8))
    found = calibrate_threshold(host, policy, prompts(96), 0.3, rounds=1)
    with namm.attach(host, Under(policy, found.rule)) as attached:
        host(prompts(96)[0][None])
    held = [positions.tolist() for layer in attached.cache.layers for positions in layer.state.held(0)]
    assert all({*range(4), *range(88, 96)} <= {*positions} for positions in held)
    assert abs(found.share - 0.3) < 0.03


def test_what_cannot_be_calibrated_is_refused(host):
    for policy, contexts, share in (
        (Full(), prompts(64), 0.5),
        (Knorm(0.5), prompts(64), 0.5),
        (Knorm(0.5, 32), [], 1),
        (H2O(0.5, 32), prompts(64), 0.5),
    ):
        with pytest.raises(MemxError):
            calibrate_threshold(host, policy, contexts, share)
