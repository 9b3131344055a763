"""TF-IDF of slots against loops over plain lists."""

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


def draw(seed, lookups=60, slots=80):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(lookups, generator=generator).square() * slots).long()


def of_reference(batches, slots=80) -> SlotScores:
    scores = SlotScores(slots)
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
