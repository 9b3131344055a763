"""Measured tables of head shares: the mean of what heads keep under one threshold."""

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.namm.head_shares import measure_shares, shares_of_scores
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import make_policy

from .hosts import make_host, prompts


def test_shares_are_means_over_contexts_of_what_one_threshold_keeps():
    first = torch.tensor([[[9.0, 8, 7, 6]], [[5.0, 4, 3, 2]]])  # [2 layers, 1 head, 4 tokens]
    second = first.flip(0)
    table = shares_of_scores([first, first, first, second], (0.5,), source="a test").tables[0]
    assert table == ((0.75 * 0.75 + 0.25 * 0.25,), (0.75 * 0.25 + 0.25 * 0.75,))  # the newest of each head stays
    assert shares_of_scores([first], (0.25, 0.5)).source == "scores, 1 context"
    with pytest.raises(MemxError, match="no contexts"):
        shares_of_scores([], (0.5,))


def test_a_layer_with_a_window_counts_with_the_tokens_that_it_can_hold():
    wide, near = torch.tensor([[9.0, 8, 7, 6]]), torch.tensor([[99.0, 98, 5, 4]])  # the first two are out of the window
    table = shares_of_scores([[wide, near]], (0.5,), reach=(None, 2)).tables[0]
    # two pairs of each layer, of which none is one that no query sees; the newest of each head stays
    assert table == ((0.75,), (0.25,))
    assert shares_of_scores([[wide, near]], (0.75,), reach=(None, 2)).tables[0] == ((1.0,), (0.25,))


@torch.no_grad()
@pytest.mark.parametrize("name", ["knorm", "h2o"])
def test_a_policy_measures_what_it_keeps_by_itself(name):
    host = make_host().double()
    contexts = prompts(64, 96)
    measured = measure_shares(host, make_policy(name, budget=0.5), contexts, (0.25, 0.5))
    for budget, table in zip(measured.budgets, measured.tables, strict=True):
        wanted = torch.zeros(2, 2)
        for ids in contexts:
            policy = make_policy(name, budget=budget, every=len(ids), rule=Rule(allocation="global"))
            with namm.attach(host, policy) as attached:
                host(ids[None])
            wanted += torch.tensor([layer.state.counts[0] for layer in attached.cache.layers]) / len(ids) / 2
        assert torch.allclose(torch.tensor(table), wanted)
    assert measured.source == f"{name}, 2 contexts"


def test_a_policy_that_observes_queries_by_other_hops_is_refused():
    class Odd(type(make_policy("knorm", budget=0.5))):
        hop = 4

    with pytest.raises(MemxError, match="observes queries 4 at a time"):
        measure_shares(make_host(), Odd(0.5), prompts(64))
