"""Tables of head shares: exact totals, windows, interpolation, and what is no table."""

import copy
import pickle

import pytest
from memx.errors import MemxError
from memx.namm.policies.heuristics import make_policy
from memx.namm.policies.rule import Rule, under_rule
from memx.namm.policies.shares import HeadShares, total_tokens

SHARES = HeadShares((0.2, 0.4), (((0.5, 0.1), (0.0, 0.2)), ((0.9, 0.2), (0.1, 0.4))), "a test")


@pytest.mark.parametrize("budget", [0.01, 0.125, 0.2, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("tokens", [3, 100, 4099])
def test_heads_together_keep_exactly_the_budget(budget, tokens):
    rooms = SHARES.rooms(budget, tokens)
    flat = [room for layer in rooms for room in layer]
    assert sum(flat) == total_tokens(budget, tokens, [2, 2]) == max(4, int(budget * 4 * tokens + 1e-9))
    assert all(1 <= room <= tokens for room in flat)


@pytest.mark.parametrize("tokens", [3, 100, 4099])
def test_a_budget_in_tokens_is_that_of_a_mean_head(tokens):
    assert total_tokens(64, tokens, [2, 2]) == 4 * min(64, tokens)
    assert SHARES.rooms(64, 320) == SHARES.rooms(0.2, 320)
    assert Rule(budget=64).budget_tokens([tokens, 10**9 + 1]) == [min(64, tokens), 64]


def test_rooms_follow_the_shares():
    assert SHARES.rooms(0.2, 1000) == [[499, 100], [1, 200]]  # the head without a share keeps one token
    assert SHARES.rooms(0.2, 1000, least=16) == [[490, 98], [16, 196]]
    rooms = SHARES.rooms(0.6, 1000)
    assert rooms[0][0] > rooms[1][1] > rooms[0][1] > rooms[1][0] and sum(map(sum, rooms)) == 2400


def test_a_layer_with_a_window_holds_no_more_than_that():
    assert total_tokens(0.5, 100, [2, 2], [None, 20]) == 140
    rooms = SHARES.rooms(0.5, 100, [None, 20])
    assert sum(map(sum, rooms)) == 140 and max(rooms[1]) <= 20


def test_shares_between_two_budgets_are_interpolated():
    assert [share for layer in SHARES.at(0.3) for share in layer] == pytest.approx([0.7, 0.15, 0.05, 0.3])
    assert [share for layer in SHARES.at(0.1) for share in layer] == pytest.approx([0.25, 0.05, 0.0, 0.1])
    assert SHARES.at(1.0) == ((1.0, 1.0), (1.0, 1.0))


def test_a_table_is_read_back_as_it_was_written():
    assert HeadShares.from_tree(SHARES.tree()) == SHARES
    for tree in (None, {}, {"budgets": [0.5], "tables": [[["a"]]]}):
        with pytest.raises(MemxError, match="not a table of head shares"):
            HeadShares.from_tree(tree)


@pytest.mark.parametrize(
    ("budgets", "tables"),
    [((), ()), ((0.5, 0.2), (((1.0,),),) * 2), ((0.5,), (((1.5,),),)), ((0.2, 0.5), (((0.1,),), ((0.1, 0.2),)))],
)
def test_what_is_no_table_is_refused(budgets, tables):
    with pytest.raises(MemxError):
        HeadShares(budgets, tables)


@pytest.mark.parametrize(
    "wrong", [{"allocation": "all"}, {"allocation": "table"}, {"first": -1}, {"newest": -2}], ids=str
)
def test_a_rule_that_means_nothing_is_refused(wrong):
    with pytest.raises(MemxError):
        Rule(budget=0.5, **wrong)


def test_a_policy_under_another_rule_is_copied_and_pickled():
    policy = under_rule(make_policy("knorm", budget=0.5), Rule(budget=0.25))
    for other in (copy.copy(policy), copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert (other.rule.budget, other.name, other.policy.rule.budget) == (0.25, "knorm", 0.5)
    with pytest.raises(AttributeError, match="nothing_of_it"):
        _ = policy.nothing_of_it
