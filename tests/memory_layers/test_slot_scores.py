"""Scores of slots, TF-IDF and KL, against loops over plain lists."""

from math import log

import pytest
import torch
from memx.memory_layers.slot_scores import SlotScores


def by_hand(batch, reference):
    scores = {}
    for slot in sorted(set(batch)):
        share = sum(other == slot for other in batch) / len(batch)
        batches_with = sum(slot in seen for seen in reference)
        scores[slot] = share * log((len(reference) + 1) / (batches_with + 1))
    return scores


def kl_by_hand(batch, reference, slots):
    seen = [slot for part in reference for slot in part]
    scores = {}
    for slot in sorted(set(batch)):
        p = sum(other == slot for other in batch) / len(batch)
        q = (sum(other == slot for other in seen) + 1) / (len(seen) + slots)
        scores[slot] = p * log(p / q)
    return scores


def draw(seed, lookups=60, slots=80):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(lookups, generator=generator).square() * slots).long()


def of_reference(batches, slots=80, by="tfidf") -> SlotScores:
    scores = SlotScores(slots, by=by)
    for batch in batches:
        scores.add_reference(batch)
    return scores


def test_equals_a_loop():
    reference = [draw(seed) for seed in range(7)]
    scores, batch = of_reference([part.view(5, 3, 4) for part in reference]), draw(99)
    expected = by_hand(batch.tolist(), [part.tolist() for part in reference])
    rows, found = scores.scores(batch.view(3, 4, 5))
    assert rows.tolist() == list(expected)
    assert found.tolist() == pytest.approx(list(expected.values()), rel=1e-12)
    best = sorted(expected, key=lambda slot: (-expected[slot], slot))[:9]
    assert scores.top_rows(batch, 9).tolist() == sorted(best)


def test_a_slot_of_every_reference_batch_scores_zero():
    scores = of_reference([torch.tensor([1, 1, 2]), torch.tensor([1, 3])])
    rows, found = scores.scores(torch.tensor([1, 1, 1, 1, 2, 5]))
    assert rows.tolist() == [1, 2, 5]
    assert found.tolist() == pytest.approx([0.0, log(3 / 2) / 6, log(3) / 6])
    assert scores.top_rows(torch.tensor([1, 1, 1, 1, 2, 5]), 2).tolist() == [2, 5]


def test_ties_go_to_the_lower_row():
    scores = of_reference([torch.tensor([0])])
    assert scores.top_rows(torch.tensor([9, 7, 5, 3]), 2).tolist() == [3, 5]


def test_asking_for_more_rows_than_were_looked_up_gives_those():
    assert SlotScores(80).top_rows(torch.tensor([4, 2, 4]), 500).tolist() == [2, 4]


def test_kl_equals_a_loop():
    reference = [draw(seed) for seed in range(7)]
    scores, batch = of_reference([part.view(5, 3, 4) for part in reference], by="kl"), draw(99)
    expected = kl_by_hand(batch.tolist(), [part.tolist() for part in reference], 80)
    rows, found = scores.scores(batch.view(3, 4, 5))
    assert found.dtype == torch.float64
    assert rows.tolist() == list(expected)
    assert found.tolist() == pytest.approx(list(expected.values()), rel=1e-12)
    best = sorted(expected, key=lambda slot: (-expected[slot], slot))[:9]
    assert scores.top_rows(batch, 9).tolist() == sorted(best)


def test_kl_scores_add_up_to_the_divergence():
    reference, batch = [draw(seed) for seed in range(5)], draw(3, lookups=200)
    _, found = of_reference(reference, by="kl").scores(batch)
    used = torch.bincount(batch, minlength=80).double()
    usual = sum(torch.bincount(part, minlength=80) for part in reference).double() + 1
    p, q = used / used.sum(), usual / usual.sum()
    expected = torch.nn.functional.kl_div(q.log(), p, reduction="sum")
    assert float(found.sum()) == pytest.approx(float(expected), rel=1e-12)


def test_kl_prefers_a_rare_slot_to_a_common_one_of_the_same_count():
    scores = of_reference([torch.tensor([1] * 9), torch.tensor([1, 2])], slots=10, by="kl")
    assert scores.top_rows(torch.tensor([1, 2, 3]), 1).tolist() == [3]
    assert scores.top_rows(torch.tensor([1, 2, 3]), 2).tolist() == [2, 3]
