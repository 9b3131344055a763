"""Tucker scores against brute force over all slots, in fp64; the loss on the core."""

import pytest
import torch
from memx.kernels.product_topk import product_topk
from memx.memory_layers.ultramem.tucker import excess, leading_vectors, tucker_scores, tucker_topk


def random_inputs(tokens=6, heads=2, n=7, rank=2, width=3, dtype=torch.float64, seed=0):
    """Queries, half-keys and a core whose second singular value is small."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(tokens, heads, 2 * rank * width, generator=generator, dtype=torch.float64)
    keys = torch.randn(2, heads, n, rank * width, generator=generator, dtype=torch.float64)
    core = 1 / rank + 0.05 * torch.randn(rank, rank, generator=generator, dtype=torch.float64)
    return query.to(dtype), keys.to(dtype), core.to(dtype)


def all_scores(query, keys, core):
    """S_row^T C S_col [T, H, n*n], written as loops over tokens and heads."""
    rank, out = len(core), []
    for token in query:
        for h, q in enumerate(token):
            first, second = (half.view(rank, -1) for half in q.chunk(2))
            rows = torch.stack([keys[0, h].view(len(keys[0, h]), rank, -1)[:, a] @ first[a] for a in range(rank)])
            columns = torch.stack([keys[1, h].view(len(keys[1, h]), rank, -1)[:, a] @ second[a] for a in range(rank)])
            out.append((rows.T @ core @ columns).flatten())
    return torch.stack(out).unflatten(0, query.shape[:2])


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_with_all_half_keys_as_candidates_the_best_slots_are_exact(rank):
    query, keys, core = random_inputs(rank=rank, n=6)
    scores, slots = tucker_topk(query, keys, core, 6)
    expected, best = all_scores(query, keys, core).topk(6)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    assert torch.equal(slots, best)


@pytest.mark.parametrize("rank", [2, 3])
def test_candidates_are_ranked_exactly_and_chosen_by_the_leading_singular_vectors(rank):
    query, keys, core = random_inputs(rank=rank, n=30, tokens=9)
    u, t = leading_vectors(core)
    parts = query.unflatten(-1, (2, rank, -1))
    lists = torch.einsum("thpaw,phnaw->pthan", parts, keys.unflatten(-1, (rank, -1)))
    chosen = [torch.einsum("a,than->thn", v, s).topk(5).indices for v, s in zip((u, t), lists, strict=True)]
    wanted = all_scores(query, keys, core)
    pairs = (chosen[0][..., :, None] * 30 + chosen[1][..., None, :]).flatten(-2)
    best, place = wanted.gather(-1, pairs).topk(5)
    scores, slots = tucker_topk(query, keys, core, 5)
    torch.testing.assert_close(scores, best, rtol=0, atol=1e-12)
    assert torch.equal(slots, pairs.gather(-1, place))


def test_nearly_all_of_the_best_slots_are_found_while_the_core_is_near_rank_one():
    query, keys, core = random_inputs(rank=2, n=32, tokens=100, width=8)
    found = tucker_topk(query, keys, core, 8)[1]
    rows = all_scores(query, keys, core)
    # pairs of two negative scores have large products too, which candidates leave out by their definition
    u, t = leading_vectors(core)
    parts = torch.einsum("thpaw,phnaw->pthan", query.unflatten(-1, (2, 2, -1)), keys.unflatten(-1, (2, -1)))
    positive = [torch.einsum("a,than->thn", v, s) > 0 for v, s in zip((u, t), parts, strict=True)]
    counted = (positive[0][..., :, None] & positive[1][..., None, :]).flatten(-2)
    best = rows.masked_fill(~counted, -torch.inf).topk(8).indices
    recall = (found[..., :, None] == best[..., None, :]).any(-1).double().mean()
    assert recall > 0.95


def test_product_keys_are_the_core_one_of_scores_beside_ones():
    """[s_row; 1]^T I [1; s_col] is s_row + s_col: the same slots, and the scores to the bit."""
    torch.manual_seed(0)
    query, keys = torch.randn(5, 2, 8, dtype=torch.float64), torch.randn(2, 2, 6, 4, dtype=torch.float64)
    ones_query = torch.zeros(5, 2, 16, dtype=torch.float64)
    ones_keys = torch.zeros(2, 2, 6, 8, dtype=torch.float64)
    ones_query[..., :4], ones_query[..., 12:] = query[..., :4], query[..., 4:]
    ones_keys[0, ..., :4], ones_keys[1, ..., 4:] = keys[0], keys[1]
    ones_query[..., 4], ones_query[..., 8] = 1, 1  # the constant parts: 1 * 1 + 0 * 0 ...
    ones_keys[0, ..., 4], ones_keys[1, ..., 0] = 1, 1
    scores, slots = product_topk(query, keys, 6)
    core = torch.eye(2, dtype=torch.float64)
    ours, found = tucker_topk(ones_query, ones_keys, core, 6)
    assert torch.equal(found, slots)
    torch.testing.assert_close(ours, scores, rtol=0, atol=1e-14)


def test_every_gradient_equals_finite_differences():
    query, keys, core = random_inputs(tokens=2, n=5)
    slots = tucker_topk(query, keys, core, 3)[1]
    of = [tensor.requires_grad_() for tensor in (query, keys, core)]
    assert torch.autograd.gradcheck(lambda *given: tucker_scores(*given, slots), of)


def test_gradients_equal_those_of_the_equation():
    query, keys, core = (tensor.requires_grad_() for tensor in random_inputs(n=9, rank=3))
    scores, slots = tucker_topk(query, keys, core, 4)
    direction = torch.randn_like(scores)
    ours = torch.autograd.grad((scores * direction).sum(), (query, keys, core))
    expected = all_scores(query, keys, core).gather(-1, slots)
    exact = torch.autograd.grad((expected * direction).sum(), (query, keys, core))
    for gradient, wanted in zip(ours, exact, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-11)


def test_the_order_and_number_of_tokens_change_nothing(monkeypatch):
    query, keys, core = random_inputs(tokens=40, n=12)
    scores, slots = tucker_topk(query, keys, core, 4)
    order = torch.randperm(40)
    assert torch.equal(tucker_topk(query[order], keys, core, 4)[1], slots[order])
    monkeypatch.setattr("memx.memory_layers.ultramem.tucker._CACHED_SCORES", 200)  # a few tokens at a time
    pieces, again = tucker_topk(query, keys, core, 4)
    assert torch.equal(again, slots)
    torch.testing.assert_close(pieces, scores, rtol=0, atol=1e-12)


def test_float32_finds_the_same_slots_as_float64():
    query, keys, core = random_inputs(tokens=20, n=16)
    exact, slots = tucker_topk(query, keys, core, 4)
    rounded, found = tucker_topk(query.float(), keys.float(), core.float(), 4)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-4, atol=1e-4)
    assert (found == slots).double().mean() > 0.9


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_leading_vectors_are_those_of_the_best_rank_one_core(rank):
    core = torch.randn(rank, rank, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    u, t = leading_vectors(core)
    values = torch.linalg.eigvalsh(core.T @ core)  # ascending squares
    torch.testing.assert_close(u @ core @ t, values[-1].sqrt())
    residual = core - values[-1].sqrt() * torch.outer(u, t)
    torch.testing.assert_close(residual.square().sum(), values[:-1].sum())
    assert u.sum() >= 0
    negative = leading_vectors(-core)  # the core decides on the signs, not the solver
    torch.testing.assert_close(negative, (u, -t))


def test_the_excess_of_a_core_is_its_formula():
    left, right = (torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0] for _ in range(2))
    core = left @ torch.diag(torch.tensor([2.0, 0.5, 0.1], dtype=torch.float64)) @ right
    assert excess(core).item() == pytest.approx((0.5 - 0.15) ** 2 / 2)
    assert excess(core, threshold=0.05).item() == pytest.approx(((0.5 - 0.05) ** 2 + (0.1 - 0.05) ** 2) / 2)
    assert excess(core, threshold=0.6).item() == 0
    assert excess(core[:1, :1]).item() == 0
    assert torch.autograd.gradcheck(excess, (core.requires_grad_(),))


def test_a_step_against_the_excess_lowers_the_second_singular_value_alone():
    core = torch.diag(torch.tensor([1.0, 0.4], dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(excess(core), core)
    torch.testing.assert_close(gradient, torch.diag(torch.tensor([0.0, 2 * 0.25], dtype=torch.float64)))


def test_a_core_that_is_exactly_rank_one_has_finite_gradients():
    core = torch.full((2, 2), 0.5, dtype=torch.float64, requires_grad=True)
    excess(core).backward()
    assert core.grad.abs().sum() == 0
