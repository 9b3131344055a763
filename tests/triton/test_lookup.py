"""The lookup kernel against brute force over all n*n slots."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.product_topk import OP, product_topk


def draw(device, tokens=5, heads=2, n=9, half=3, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(tokens, heads, 2 * half, generator=generator)
    keys = torch.randn(2, heads, n, half, generator=generator)
    return query.to(device, dtype), keys.to(device, dtype)


@pytest.mark.parametrize(
    ("tokens", "heads", "n", "half", "k"),
    [(1, 1, 1, 1, 1), (5, 2, 9, 3, 4), (17, 1, 70, 5, 7), (3, 1, 33, 40, 33), (2, 2, 140, 63, 32), (1, 1, 300, 16, 20)],
)
def test_equals_brute_force_over_all_pairs(tokens, heads, n, half, k, device):
    query, keys = draw(device, tokens, heads, n, half)
    scores, slots = product_topk(query, keys, k, impl="triton")
    first, second = query.double().chunk(2, -1)
    exact = keys.double()
    pairs = (
        torch.einsum("bhd,hnd->bhn", first, exact[0])[..., :, None]
        + (torch.einsum("bhd,hnd->bhn", second, exact[1])[..., None, :])
    )
    best, place = pairs.flatten(-2).topk(k)
    torch.testing.assert_close(scores.double(), best, rtol=1e-5, atol=1e-5)
    assert slots.dtype == torch.int64 and torch.equal(slots, place)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape", [{"B": 5, "H": 2, "d_k": 14, "n": 20, "k": 6}, {"B": 2, "H": 1, "d_k": 96, "n": 65, "k": 8}]
)
def test_outputs_and_gradients_are_as_near_float64_as_torch_is(shape, dtype, device):
    error, limit = check_op(OP, shape, dtype, device, "triton")
    assert error <= limit


def test_gradients_equal_those_of_torch(device):
    query, keys = draw(device, 6, 3, 12, 5)
    weights = torch.randn(6, 3, 8, device=device)
    found = []
    for impl in ("triton", "torch"):
        leaves = [x.clone().requires_grad_() for x in (query, keys)]
        scores, _ = product_topk(*leaves, 8, impl=impl)
        found.append(torch.autograd.grad((scores * weights).sum(), leaves))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_ties_fall_to_the_lower_slots_each_time(device):
    query, keys = torch.ones(3, 1, 2, device=device), torch.ones(2, 1, 6, 1, device=device)
    scores, slots = product_topk(query, keys, 4, impl="triton")
    assert (scores == 2).all() and slots.tolist() == [[[0, 1, 2, 3]]] * 3


def test_negative_and_huge_scores_are_ranked(device):
    query = torch.tensor([[[-1.0, -1.0]]], device=device)
    keys = torch.tensor([[[[3.0], [1.0], [1e30]]], [[[2.0], [-1e30], [0.0]]]], device=device)
    scores, slots = product_topk(query, keys, 3, impl="triton")
    torch.testing.assert_close(scores.flatten().tolist(), [1e30, 1e30, 0.0])
    assert slots.flatten().tolist()[2] == 2 * 3 + 1 and {*slots.flatten().tolist()[:2]} == {1, 4}


def test_lists_of_negative_scores_shorter_than_a_tile(device):
    """What a tile holds behind the end of a list scores zero there, and must not be taken for the best."""
    query, keys = -torch.ones(2, 1, 6, device=device), torch.rand(2, 1, 9, 3, device=device) + 0.5
    scores, slots = product_topk(query, keys, 4, impl="triton")
    expected, places = product_topk(query, keys, 4, impl="torch")
    torch.testing.assert_close(scores, expected)
    assert torch.equal(slots, places) and (scores < 0).all()


def test_no_tokens(device):
    query, keys = draw(device, tokens=0)
    scores, slots = product_topk(query, keys, 3, impl="triton")
    assert scores.shape == slots.shape == (0, 2, 3)


def test_float64_is_ranked_by_torch(device):
    query, keys = draw(device, dtype=torch.float64)
    assert product_topk(query, keys, 3)[0].dtype == torch.float64
    with pytest.raises(MemxError, match="no implementation 'triton'"):
        product_topk(query, keys, 3, impl="triton")


def test_compiles_without_a_graph_break(device):
    query, keys = draw(device)
    compiled = torch.compile(lambda q, k: product_topk(q, k, 4, impl="triton"), fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(query, keys), product_topk(query, keys, 4, impl="triton"), strict=True):
        assert torch.equal(one, other)
