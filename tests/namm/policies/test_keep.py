"""Which tokens stay: thresholds, budgets, groupings, protection; samples that never influence each other."""

import pytest
import torch
from memx.errors import MemxError
from memx.namm.policies.keep import kept_tokens

SCORES = torch.tensor([[[0.5, -1.0, 0.0, -2.0, -3.0], [-0.1, -0.2, -0.3, -0.4, -0.5]]])  # [1, 2, 5]


def places(kept):
    return [[head.nonzero().flatten().tolist() for head in sample] for sample in kept]


def test_a_threshold_keeps_what_reaches_it_and_the_newest():
    assert places(kept_tokens(SCORES, grouping="per_head")) == [[[0, 2, 4], [4]]]
    assert kept_tokens(SCORES, threshold=-torch.inf, grouping="per_head").all()
    assert places(kept_tokens(SCORES, threshold=torch.inf)) == [[[4], [4]]]


def test_all_heads_keep_as_many_as_the_most_generous():
    """The second head fills up with its next best."""
    assert places(kept_tokens(SCORES)) == [[[0, 2, 4], [0, 1, 4]]]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(0.4, [[0, 4], [0, 4]]), (3, [[0, 2, 4], [0, 1, 4]]), (0.01, [[4], [4]]), (1.0, None), (9, None)],
)
def test_a_budget_keeps_the_best(budget, expected):
    kept = kept_tokens(SCORES, budget=budget)
    assert kept.all() if expected is None else places(kept) == [expected]


def test_protected_tokens_stay_and_count_as_part_of_the_budget():
    protected = torch.tensor([[[False, True, False, True, False]]])
    assert places(kept_tokens(SCORES, budget=3, protected=protected)) == [[[1, 3, 4], [1, 3, 4]]]
    assert places(kept_tokens(SCORES, budget=1e-9, protected=protected)) == [[[1, 3, 4], [1, 3, 4]]]
    assert places(kept_tokens(SCORES, grouping="per_head", protected=protected)) == [[[0, 1, 2, 3, 4], [1, 3, 4]]]


@pytest.mark.parametrize("rule", [{}, {"budget": 0.5}, {"budget": 3}, {"grouping": "per_head"}], ids=str)
def test_a_sample_keeps_the_same_alone_and_in_a_padded_batch(rule):
    generator = torch.Generator().manual_seed(0)
    lengths, most = (3, 11, 7), 11
    alone = [torch.randn(1, 2, length, generator=generator) for length in lengths]
    scores, exists = torch.full((3, 2, most), 9.0), torch.zeros(3, 1, most, dtype=torch.bool)
    for place, (own, length) in enumerate(zip(alone, lengths, strict=True)):
        scores[place, :, most - length :], exists[place, :, most - length :] = own[0], True
    together = kept_tokens(scores, exists=exists, **rule)
    for place, (own, length) in enumerate(zip(alone, lengths, strict=True)):
        assert torch.equal(together[place, :, most - length :], kept_tokens(own, **rule)[0])
        assert not together[place, :, : most - length].any()


def test_ties_fall_to_the_newer():
    assert places(kept_tokens(torch.zeros(1, 1, 6), budget=3)) == [[[3, 4, 5]]]


def test_the_newest_is_the_last_that_exists():
    exists = torch.tensor([[[True, True, True, False, False]]])
    assert places(kept_tokens(SCORES, threshold=torch.inf, exists=exists)) == [[[2], [2]]]


@pytest.mark.parametrize("budget", [0.0, -0.5, 2.5, float("nan")])
def test_mistaken_budgets(budget):
    with pytest.raises(MemxError, match=r"budget must be in \(0, 1\]"):
        kept_tokens(SCORES, budget=budget)


def test_each_head_has_a_budget_of_its_own():
    assert places(kept_tokens(SCORES, budget=torch.tensor([[3, 1]]))) == [[[0, 2, 4], [4]]]


def test_preferred_tokens_stay_within_the_budget():
    """Of more preferred tokens than there is room for, the best; a threshold keeps all of them."""
    preferred = torch.tensor([[[False, True, False, True, False]]])
    assert places(kept_tokens(SCORES, budget=4, preferred=preferred)) == [[[0, 1, 3, 4], [0, 1, 3, 4]]]
    assert places(kept_tokens(SCORES, budget=2, preferred=preferred)) == [[[1, 4], [1, 4]]]
    assert places(kept_tokens(SCORES, threshold=0.4, grouping="per_head", preferred=preferred)) == [
        [[0, 1, 3, 4], [1, 3, 4]]
    ]
