"""One choice for all layers: against brute force, which adds tokens one by one; and each sequence for itself."""

import itertools

import pytest
import torch
from memx.namm.policies.keep import kept_together

SHAPES = ((2, 9), (3, 6), (1, 9))  # heads and tokens of each layer


def case(seed, batch=2):
    """Scores without ties, tokens that exist, protected and preferred ones, of each layer."""
    generator = torch.Generator().manual_seed(seed)

    def lots(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    scores = [lots(batch, *shape) for shape in SHAPES]
    exists = [lots(batch, *shape) < 0.8 for shape in SHAPES]
    for there in exists:
        there[..., -1] = True
    protected = [lots(batch, 1, tokens) < 0.1 for _, tokens in SHAPES]
    preferred = [lots(batch, 1, tokens) < 0.2 for _, tokens in SHAPES]
    return scores, exists, protected, preferred


def entries(scores, exists, protected, preferred, b):
    """(stays, preferred, score) and (layer, head, token) of each token of a sequence, the best first."""
    found = []
    for layer, (heads, tokens) in enumerate(SHAPES):
        for head, token in itertools.product(range(heads), range(tokens)):
            if exists[layer][b, head, token]:
                newest = not exists[layer][b, head, token + 1 :].any()
                stays = newest or bool(protected[layer][b, 0, token])
                rank = (stays, bool(preferred[layer][b, 0, token]), float(scores[layer][b, head, token]))
                found.append((rank, (layer, head, token)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("total", [0, 9, 20, 99])
def test_the_best_of_all_layers_and_heads_stay(total):
    given = case(total)
    kept = kept_together(
        given[0],
        torch.tensor([total, total + 1]),
        **dict(zip(("exists", "protected", "preferred"), given[1:], strict=True)),
    )
    for b in range(2):
        ranked = entries(*given, b)
        count = max(total + b, sum(stays for (stays, _, _), _ in ranked))
        wanted = {place for _, place in ranked[:count]}
        assert {
            (layer, *place) for layer, mask in enumerate(kept) for place in map(tuple, mask[b].nonzero().tolist())
        } == wanted


@pytest.mark.parametrize("seed", range(4))
def test_few_different_scores_leave_the_choice_to_the_order_of_places(seed):
    """By levels, then scores, then the tokens that fewer of their head come after, then layers and heads."""
    scores, exists, protected, preferred = case(seed, batch=3)
    scores = [(one * 3).floor() for one in scores]
    for total in (1, 10, 17, 30, 44):
        kept = kept_together(
            scores, torch.tensor([total, total + 3, 2 * total]), exists=exists, protected=protected, preferred=preferred
        )
        for b, room in enumerate((total, total + 3, 2 * total)):
            found = entries(scores, exists, protected, preferred, b)
            order = sorted(found, key=lambda one: ([-value for value in one[0]], _later(one[1]), one[1][:2]))
            stay = max(room, sum(stays for (stays, _, _), _ in found))
            wanted = {place for _, place in order[:stay]}
            got = {(n, *place) for n, mask in enumerate(kept) for place in map(tuple, mask[b].nonzero().tolist())}
            assert got == wanted


def _later(place):
    """Slots after a token."""
    layer, _, token = place
    return SHAPES[layer][1] - 1 - token


def test_layers_padded_to_their_fullest_head_hold_no_more_than_the_budget():
    """As many of the best as fit, where a layer costs its heads times its fullest head; then each head is filled."""
    scores, exists, protected, preferred = case(3)
    for total in (12, 13, 20, 31, 47):
        kept = kept_together(
            scores, torch.tensor([total, total]), allocation="layer_max", exists=exists, preferred=preferred
        )
        for b in range(2):
            fullest, cost = [0] * len(SHAPES), 0
            counts = {}
            for _, (layer, head, _) in entries(scores, exists, [torch.zeros_like(p) for p in protected], preferred, b):
                counts[layer, head] = counts.get((layer, head), 0) + 1
                if counts[layer, head] > fullest[layer]:
                    if cost + SHAPES[layer][0] > total:
                        break
                    fullest[layer], cost = counts[layer, head], cost + SHAPES[layer][0]
            for layer, most in enumerate(fullest):
                alive = exists[layer][b].sum(-1)
                assert torch.equal(kept[layer][b].sum(-1), alive.clamp(max=max(most, 1)))
            for layer, (heads, _) in enumerate(SHAPES):
                for head in range(heads):
                    mask, there = kept[layer][b, head], exists[layer][b, head] & ~kept[layer][b, head]
                    if there.any() and mask.sum() > 1:
                        rank = preferred[layer][b, 0].double() * 2 + scores[layer][b, head]
                        newest = exists[layer][b, head].nonzero()[-1]
                        mask = mask.index_fill(0, newest.flatten(), False)
                        assert rank[mask].min() > rank[there].max()


def test_ties_go_to_the_newer_tokens_of_all_heads():
    zeros = [torch.zeros(1, 2, 6), torch.zeros(1, 2, 6)]
    first, second = kept_together(zeros, torch.tensor([10]))
    assert first[0].tolist() == [[False] * 3 + [True] * 3] * 2
    assert second[0].tolist() == [[False] * 4 + [True] * 2] * 2


@pytest.mark.parametrize("allocation", ["global", "layer_max"])
def test_a_sequence_keeps_the_same_alone_and_in_a_padded_batch(allocation):
    alone = [[torch.randn(1, 2, length, generator=torch.Generator().manual_seed(7 + length + layer)).double()
              for layer in range(2)] for length in (4, 9)]  # fmt: skip
    scores = [torch.full((2, 2, 9), 9.0, dtype=torch.float64) for _ in range(2)]
    exists = torch.zeros(2, 1, 9, dtype=torch.bool)
    for b, layers in enumerate(alone):
        length = layers[0].shape[2]
        exists[b, :, 9 - length :] = True
        for scored, own in zip(scores, layers, strict=True):
            scored[b, :, 9 - length :] = own[0]
    together = kept_together(scores, torch.tensor([7, 15]), allocation=allocation, exists=[exists, exists])
    for b, (layers, total) in enumerate(zip(alone, (7, 15), strict=True)):
        own = kept_together(layers, torch.tensor([total]), allocation=allocation)
        for mask, wanted in zip(together, own, strict=True):
            assert torch.equal(mask[b, :, 9 - wanted.shape[2] :], wanted[0])
            assert not mask[b, :, : 9 - wanted.shape[2]].any()
