"""product_topk against brute force over all n*n slots, in fp64."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.product_topk import OP, product_topk, product_topk_reference
from memx.kernels.product_topk.op import unpruned
from memx.kernels.product_topk.reference import candidate_ranks
from memx.kernels.product_topk.select import smallest


def brute_force(query, keys, k):
    """Score every slot i*n + j, then take the k best."""
    first, second = query.chunk(2, dim=-1)
    scores1 = torch.einsum("bhd,hnd->bhn", first, keys[0])
    scores2 = torch.einsum("bhd,hnd->bhn", second, keys[1])
    every = scores1[..., :, None] + scores2[..., None, :]
    return every.flatten(-2).topk(k, dim=-1)


def draw(tokens, heads, n, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(tokens, heads, width, generator=generator, dtype=torch.float64)
    keys = torch.randn(2, heads, n, width // 2, generator=generator, dtype=torch.float64)
    return query, keys


@pytest.mark.parametrize("n", [1, 2, 5, 16, 33])
@pytest.mark.parametrize("k", [1, 2, 7, 16, 32])
def test_equals_brute_force(n, k):
    k = min(k, n)
    query, keys = draw(9, 3, n, 10, seed=n * 100 + k)
    scores, slots = product_topk(query, keys, k)
    expected, places = brute_force(query, keys, k)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    assert torch.equal(slots, places)


def test_best_first_and_distinct():
    query, keys = draw(50, 2, 12, 8)
    scores, slots = product_topk(query, keys, 12)
    assert (scores[..., :-1] >= scores[..., 1:]).all()
    assert all(len(set(row)) == 12 for row in slots.flatten(0, 1).tolist())


@pytest.mark.parametrize(("k", "candidates"), [(8, 20), (16, 50), (32, 119), (64, 280)])
def test_pruned_candidates_are_as_few_as_can_be(k, candidates):
    assert len(candidate_ranks(k)[0]) == candidates


def test_pruned_equals_unpruned():
    query, keys = draw(40, 3, 48, 16)
    for k in (1, 5, 32, 48):
        for pruned, plain in zip(product_topk(query, keys, k), unpruned(query, keys, k), strict=True):
            torch.testing.assert_close(pruned, plain, rtol=0, atol=1e-12)


def test_pruning_loses_nothing_with_ties():
    query = torch.ones(1, 1, 4, dtype=torch.float64)
    keys = torch.zeros(2, 1, 8, 2, dtype=torch.float64)  # every slot scores 0
    scores, slots = product_topk(query, keys, 8)
    assert (scores == 0).all()
    assert slots.unique().numel() == 8


@pytest.mark.parametrize("n", [6, 30])  # fewer half-keys than 8k: dense; more: sparse
def test_gradients(n):
    query, keys = draw(4, 2, n, 8)
    query.requires_grad_()
    keys.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, c: product_topk(q, c, 3)[0], (query, keys), fast_mode=True)


@pytest.mark.parametrize(("n", "k"), [(12, 5), (40, 3)])
def test_gradients_equal_those_of_the_reference(n, k):
    query, keys = draw(30, 2, n, 8)
    query.requires_grad_()
    keys.requires_grad_()
    upstream = torch.randn(30, 2, k, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad(function(query, keys, k)[0], (query, keys), upstream)
        for function in (product_topk, product_topk_reference)
    )
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 33, 64, 65, 127, 256, 257, 1023, 1024, 5000])
@pytest.mark.parametrize("k", [1, 8, 32])
def test_selection_is_exact(n, k):
    k = min(k, n)
    scores = torch.randn(50, n, generator=torch.Generator().manual_seed(n)).round(decimals=2)  # with ties
    values, positions = smallest(scores, k)
    assert torch.equal(values, scores.topk(k, largest=False).values)
    assert torch.equal(scores.gather(1, positions), values)
    assert all(len(set(row)) == k for row in positions.tolist())


@pytest.mark.parametrize("odd", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_selection_keeps_to_the_row_whatever_it_holds(odd):
    for n in (7, 1023, 1024):
        _, positions = smallest(torch.full((3, n), odd), 5)
        assert ((positions >= 0) & (positions < n)).all()


@pytest.mark.parametrize("n", [64, 1024])
def test_float32_equals_the_reference(n):
    query, keys = (x.float() for x in draw(300, 2, n, 16))
    scores, slots = product_topk(query, keys, 32)
    expected, places = product_topk_reference(query, keys, 32)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    assert (slots == places).float().mean() > 0.999  # near-ties may swap


def test_a_token_is_looked_up_the_same_in_any_batch():
    query, keys = (x.float() for x in draw(3000, 2, 1024, 16))
    scores, slots = product_topk(query, keys, 8)
    for start in (0, 7, 2990):
        part = product_topk(query[start : start + 5], keys, 8)
        torch.testing.assert_close(part[0], scores[start : start + 5], rtol=0, atol=1e-5)
        assert (part[1] == slots[start : start + 5]).float().mean() > 0.99


def test_meta_and_bfloat16():
    query, keys = draw(6, 2, 300, 8)
    scores, slots = product_topk(query.to("meta"), keys.to("meta"), 4)
    assert scores.shape == slots.shape == (6, 2, 4) and slots.dtype == torch.int64
    scores, slots = product_topk(query.bfloat16(), keys.bfloat16(), 4)
    assert scores.dtype == torch.bfloat16 and slots.max() < 300**2


def test_first_half_picks_the_row():
    keys = torch.zeros(2, 1, 4, 1)
    keys[0, 0, 2], keys[1, 0, 3] = 1.0, 1.0
    _, slots = product_topk(torch.ones(1, 1, 2), keys, 1)
    assert slots.item() == 2 * 4 + 3


def test_no_tokens():
    _, keys = draw(1, 2, 6, 8)
    scores, slots = product_topk(torch.empty(0, 2, 8, dtype=torch.float64), keys, 3)
    assert scores.shape == slots.shape == (0, 2, 3)


@pytest.mark.parametrize("shape", OP.shapes[:2], ids=str)
@pytest.mark.parametrize("impl", OP.available(torch.device("cpu")))
def test_passes_its_own_check(shape, impl):
    error, limit = check_op(OP, shape, torch.float32, torch.device("cpu"), impl)
    assert error <= limit


def test_says_what_is_not_there():
    query, keys = draw(1, 1, 2, 4)
    with pytest.raises(MemxError, match="product_topk has no implementation 'triton'"):
        product_topk(query, keys, 1, impl="triton")
