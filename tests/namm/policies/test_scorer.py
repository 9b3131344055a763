"""Scores against the equations written out token by token; a population against its members; masks; the flat order."""

from itertools import pairwise

import pytest
import torch
from memx.namm.policies.scorer import (
    BAM_PARAMETERS,
    BAM_SIZES,
    bam_scores,
    count,
    flatten,
    mlp_scores,
    unflatten,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(parameters, tokens, there, strict=False):
    """BAM of one head's tokens [T, 25] in float64, by loops; there [T], bool."""
    p, x, begin, parts = parameters.double(), tokens.double(), 0, []
    for inputs, outputs in ((25, 96), (32, 50), (25, 1)):
        parts.append(
            (p[begin : begin + inputs * outputs].view(inputs, outputs), p[begin + inputs * outputs :][:outputs])
        )
        begin += (inputs + 1) * outputs
    (w1, b1), (w2, b2), (w3, b3) = parts
    query, key, value = (x @ w1 + b1).split(32, -1)
    scores = []
    for i in range(len(x)):
        seen = [j for j in range(i + strict, len(x)) if there[j]]
        read = torch.zeros(32, dtype=torch.float64)
        if seen:
            read = (query[i] @ key[seen].T / 32**0.5).softmax(-1) @ value[seen]
        res, mult = (read @ w2 + b2).split(25)
        scores.append((x[i] * (1 + mult) + res) @ w3 + b3)
    return torch.cat(scores)


def test_it_has_the_published_number_of_parameters():
    assert BAM_PARAMETERS == 2496 + 1650 + 26 == 4172


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_equations(strict, masked):
    parameters, tokens = 0.3 * draw(4172), draw(2, 3, 9, 25, seed=1)
    mask = torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(2)) < 0.7 if masked else None
    scores = bam_scores(parameters, tokens, mask, strict=strict)
    assert scores.shape == (2, 3, 9) and scores.dtype == torch.float32
    there = torch.ones(2, 3, 9, dtype=torch.bool) if mask is None else mask
    for b in range(2):
        for h in range(3):
            expected = by_hand(parameters, tokens[b, h], there[b, h], strict)
            alive = there[b, h]
            torch.testing.assert_close(scores[b, h][alive].double(), expected[alive], rtol=1e-4, atol=1e-4)


def test_zero_parameters_score_zero():
    assert (bam_scores(torch.zeros(4172), draw(1, 2, 5, 25)) == 0).all()


def test_a_member_scores_the_same_alone_and_in_a_population():
    population, tokens = 0.2 * draw(5, 4172), draw(2, 2, 40, 25, seed=1)
    together = bam_scores(population, tokens)
    assert together.shape == (5, 2, 2, 40)
    for member, scores in zip(population, together, strict=True):
        torch.testing.assert_close(bam_scores(member, tokens), scores, rtol=1e-5, atol=1e-5)


def test_a_sample_scores_the_same_alone_and_padded_on_the_left():
    parameters, tokens = 0.2 * draw(4172), draw(2, 2, 12, 25, seed=1)
    mask = torch.ones(2, 1, 12, dtype=torch.bool)
    mask[1, :, :5] = False
    both = bam_scores(parameters, tokens, mask)
    torch.testing.assert_close(both[1:, :, 5:], bam_scores(parameters, tokens[1:, :, 5:]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both[:1], bam_scores(parameters, tokens[:1]), rtol=1e-5, atol=1e-5)


def test_older_tokens_change_nothing_and_newer_ones_do():
    parameters, tokens = 0.2 * draw(4172), draw(1, 1, 10, 25, seed=1)
    older, newer = tokens.clone(), tokens.clone()
    older[..., 0, :] += 1
    newer[..., 9, :] += 1
    before = bam_scores(parameters, tokens)
    torch.testing.assert_close(bam_scores(parameters, older)[..., 1:], before[..., 1:])
    assert (bam_scores(parameters, newer) - before).abs().min() > 1e-6


def test_vectors_and_layers():
    vectors = draw(3, 4172)
    layers = unflatten(vectors, BAM_SIZES)
    assert [tuple(layer.weight.shape) for layer in layers] == [(3, 25, 96), (3, 32, 50), (3, 25, 1)]
    assert torch.equal(layers[0].weight[1].flatten(), vectors[1, :2400])
    assert torch.equal(layers[0].bias[1], vectors[1, 2400:2496])
    assert torch.equal(flatten(layers), vectors)
    with pytest.raises(AssertionError):
        unflatten(draw(1, 4171), BAM_SIZES)


@pytest.mark.parametrize("hidden", [(), (7,), (6, 5)])
def test_the_perceptron(hidden):
    widths = (25, *hidden, 1)
    size = sum((a + 1) * b for a, b in pairwise(widths))
    assert size == count(tuple(pairwise(widths)))
    population, tokens = draw(2, size), draw(2, 3, 4, 25, seed=1)
    found = mlp_scores(population, tokens, hidden=hidden)
    assert found.shape == (2, 2, 3, 4)
    for member, scores in zip(population, found, strict=True):
        x, begin = tokens, 0
        for place, (a, b) in enumerate(pairwise(widths)):
            x = x @ member[begin : begin + a * b].view(a, b) + member[begin + a * b :][:b]
            x = x.relu() if place < len(widths) - 2 else x
            begin += (a + 1) * b
        torch.testing.assert_close(scores, x.squeeze(-1))
        torch.testing.assert_close(mlp_scores(member, tokens, hidden=hidden), scores)


def test_each_member_may_have_tokens_of_its_own():
    generator = torch.Generator().manual_seed(5)
    parameters = torch.randn(3, BAM_PARAMETERS, generator=generator) * 0.2
    tokens = torch.randn(3, 2, 2, 30, 25, generator=generator)
    exists = torch.rand(6, 2, 30, generator=generator) < 0.8
    for mask in (None, exists):
        together = bam_scores(parameters, tokens, mask)
        for member in range(3):
            own = None if mask is None else mask[2 * member : 2 * member + 2]
            alone = bam_scores(parameters[member], tokens[member], own)
            there = torch.ones_like(alone, dtype=torch.bool) if own is None else own
            torch.testing.assert_close(together[member][there], alone[there], rtol=1e-5, atol=1e-5)
    linear = torch.randn(3, 26, generator=generator)
    torch.testing.assert_close(mlp_scores(linear, tokens)[1], mlp_scores(linear[1], tokens[1]))
