"""embedding_bag against a plain loop, its gradients, and its determinism."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.embedding_bag import OP, BagGradient, embedding_bag, embedding_bag_reference, row_gradient
from memx.kernels.embedding_bag.sums import dot_products, gather


def draw(slots=11, width=7, bags=5, rows=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(slots, width, generator=generator, dtype=dtype)
    chosen = torch.randint(slots, (bags, rows), generator=generator)
    weights = torch.randn(bags, rows, generator=generator, dtype=dtype)
    return values, chosen, weights


@pytest.mark.parametrize("function", [embedding_bag, embedding_bag_reference])
@pytest.mark.parametrize(
    ("slots", "width", "bags", "rows"), [(11, 7, 5, 6), (1, 1, 1, 1), (3, 768, 4, 2), (5, 63, 9, 40)]
)
def test_equals_a_plain_loop(function, slots, width, bags, rows):
    values, chosen, weights = draw(slots, width, bags, rows)
    out = function(values, chosen, weights)
    for b in range(bags):
        expected = sum(weights[b, k] * values[chosen[b, k]] for k in range(rows))
        torch.testing.assert_close(out[b], expected, rtol=0, atol=1e-12)


def test_int32_slots_give_the_same():
    values, chosen, weights = draw()
    assert torch.equal(embedding_bag(values, chosen.int(), weights), embedding_bag(values, chosen, weights))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_bags_are_zero(shape):
    values, _, _ = draw()
    out = embedding_bag(values, torch.empty(shape, dtype=torch.long), torch.empty(shape, dtype=torch.float64))
    assert out.shape == (shape[0], 7)
    assert (out == 0).all()


def test_gradients_of_values_and_weights():
    values, chosen, weights = draw()
    values.requires_grad_()
    weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: embedding_bag(v, chosen, w), (values, weights))


def test_gradient_of_weights_is_the_dot_product():
    values, chosen, weights = draw()
    weights.requires_grad_()
    upstream = torch.randn(5, 7, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(embedding_bag(values, chosen, weights), weights, upstream)
    torch.testing.assert_close(gradient, torch.einsum("bd,bkd->bk", upstream, values[chosen]))


def test_all_bags_hitting_one_row():
    values, _, _ = draw()
    values.requires_grad_()
    chosen = torch.full((100, 4), 3)
    embedding_bag(values, chosen, torch.ones(100, 4, dtype=torch.float64)).sum().backward()
    assert (values.grad[3] == 400).all()
    assert values.grad.abs().sum() == 400 * 7


def test_backward_repeats_bit_for_bit():
    values, chosen, weights = draw(slots=50, width=64, bags=4000, rows=8, dtype=torch.float32)
    values.requires_grad_()
    first, second = (
        torch.autograd.grad(embedding_bag(values, chosen, weights).pow(2).sum(), values)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def parts(*sizes, slots=11, width=7, dtype=torch.float64):
    """Uses of one table by bags of the given (bags, rows), and the dense sum of their gradients by a plain loop."""
    uses, dense = [], torch.zeros(slots, width, dtype=dtype)
    for seed, (bags, rows) in enumerate(sizes):
        _, chosen, weights = draw(slots, width, bags, rows, dtype, seed)
        dout = torch.randn(bags, width, generator=torch.Generator().manual_seed(seed + 100), dtype=dtype)
        uses.append(BagGradient(chosen, weights, dout))
        for b in range(bags):
            for k in range(rows):
                dense[chosen[b, k]] += weights[b, k] * dout[b]
    return uses, dense


@pytest.mark.parametrize("width", [1, 63, 768])
@pytest.mark.parametrize("sizes", [[(5, 6)], [(5, 6), (3, 2)], [(0, 4), (2, 3)], [(1, 1)]], ids=str)
def test_row_gradient_equals_a_plain_loop(sizes, width):
    uses, dense = parts(*sizes, slots=2000, width=width)
    gradient = row_gradient(uses)
    touched = torch.cat([use.slots.flatten() for use in uses]).unique()
    assert torch.equal(gradient.rows, touched) and len(gradient) == len(touched)
    torch.testing.assert_close(gradient.dense(2000), dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient.squared_norm(), dense.square().sum())
    for start, stop in [(0, len(touched)), (0, 1), (len(touched) - 1, len(touched)), (1, 1)]:
        torch.testing.assert_close(gradient.chunk(start, stop), dense[touched[start:stop]], rtol=0, atol=1e-12)
    sparse = gradient.to_sparse(2000)
    assert sparse.is_coalesced()
    torch.testing.assert_close(sparse.to_dense(), dense, rtol=0, atol=1e-12)


def test_slots_beyond_32_bits_are_sorted():
    slots = torch.tensor([[2**40, 5], [3, 2**40]])
    gradient = row_gradient([BagGradient(slots, torch.ones(2, 2), torch.ones(2, 1))])
    assert gradient.rows.tolist() == [3, 5, 2**40] and gradient.chunk(0, 3).flatten().tolist() == [1, 1, 2]


def test_row_gradient_of_nothing():
    uses, _ = parts((0, 4), (3, 0))
    gradient = row_gradient(uses)
    assert len(gradient) == 0 and gradient.squared_norm() == 0
    assert torch.equal(gradient.dense(11), torch.zeros(11, 7, dtype=torch.float64))
    assert gradient.to_sparse(11).shape == (11, 7)


def test_row_gradient_leaves_out_rows_that_are_not_kept():
    uses, dense = parts((5, 6), (3, 2))
    keep = torch.arange(11) % 3 == 0
    gradient = row_gradient(uses, keep)
    assert keep[gradient.rows].all()
    torch.testing.assert_close(gradient.dense(11), dense * keep[:, None], rtol=0, atol=1e-12)


def test_many_chunks_give_the_same_bits_on_any_number_of_threads():
    _, chosen, weights = draw(200_000, 3, 30_000, 4, torch.float32)
    uses = [BagGradient(chosen, weights, torch.randn(30_000, 3))]
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            gradient = row_gradient(uses)
            seen.append((gradient.squared_norm(), gradient.dense(200_000)))
    finally:
        torch.set_num_threads(before)
    assert len(gradient) > 2 * 32_768  # from so many numbers on torch shares a sum among threads
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_half_precision_gradients_are_summed_in_float32():
    uses = [BagGradient(torch.zeros(1000, 1, dtype=torch.long), torch.ones(1000, 1), torch.ones(1000, 3).bfloat16())]
    assert torch.equal(row_gradient(uses).dense(1), torch.full((1, 3), 1000.0))


def test_the_three_ways_to_take_the_gradient_of_values_agree():
    values, chosen, weights = draw()
    values.requires_grad_()
    upstream = torch.randn(5, 7, dtype=torch.float64)
    (dense,) = torch.autograd.grad(embedding_bag_reference(values, chosen, weights), values, upstream)
    (rows,) = torch.autograd.grad(embedding_bag(values, chosen, weights, gradient="rows"), values, upstream)
    assert rows.is_coalesced()
    torch.testing.assert_close(rows.to_dense(), dense, rtol=0, atol=1e-12)
    sink = []
    for slots in (chosen, chosen.int()):  # two layers that share a table; the weights need no gradient
        embedding_bag(values, slots, weights, gradient=sink).backward(upstream)
    assert values.grad is None
    torch.testing.assert_close(row_gradient(sink).dense(11), 2 * dense, rtol=0, atol=1e-12)


def test_a_sink_leaves_the_gradient_of_weights_and_takes_nothing_from_a_frozen_table():
    values, chosen, weights = draw()
    weights.requires_grad_()
    sink = []
    embedding_bag(values, chosen, weights, gradient=sink).sum().backward()
    assert not sink
    torch.testing.assert_close(weights.grad, values[chosen].sum(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_equals_its_reference_up_to_rounding(dtype):
    given = draw(40, 64, 9, 5, dtype)
    leaves = [given[0].requires_grad_(), given[1], given[2].requires_grad_()]
    wide = [x.detach().double().requires_grad_() if x.is_floating_point() else x for x in leaves]
    out, exact = embedding_bag(*leaves), embedding_bag_reference(*wide)
    torch.testing.assert_close(out.double(), exact, rtol=0.01, atol=0.05)
    for x, y in zip(
        *(torch.autograd.grad(o.sum(), [v, w]) for o, (v, _, w) in ((out, leaves), (exact, wide))), strict=True
    ):
        torch.testing.assert_close(x.double(), y, rtol=0.01, atol=0.05)


def test_autocast_changes_nothing():
    values, chosen, _ = draw(dtype=torch.float32)
    vectors = torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        low = dot_products(vectors, values, chosen)
    assert torch.equal(low, dot_products(vectors, values, chosen))


def test_gather_is_exact():
    values, chosen, _ = draw(dtype=torch.float32)
    assert torch.equal(gather(values, chosen[0]), values[chosen[0]])


def test_compiles_with_its_backward():
    values, chosen, weights = draw()
    values.requires_grad_()
    compiled = torch.compile(lambda v: embedding_bag(v, chosen, weights), backend="aot_eager", fullgraph=True)
    grads = [
        torch.autograd.grad(f(values).pow(2).sum(), values)[0]
        for f in (compiled, lambda v: embedding_bag(v, chosen, weights))
    ]
    assert torch.equal(*grads)


@pytest.mark.parametrize("shape", OP.shapes[:2], ids=str)
def test_passes_its_own_check(shape):
    error, limit = check_op(OP, shape, torch.float32, torch.device("cpu"))
    assert error <= limit


def test_the_check_notices_a_wrong_op():
    import dataclasses

    def shifted(values, slots, weights, impl="auto"):
        return embedding_bag(values, (slots + 1) % len(values), weights)

    def no_gradient(values, slots, weights, impl="auto"):
        return embedding_bag(values.detach(), slots, weights) + 0 * values.sum()

    for wrong in (shifted, no_gradient):
        error, limit = check_op(dataclasses.replace(OP, run=wrong), OP.shapes[0], torch.float32, torch.device("cpu"))
        assert error > limit


def test_says_what_is_not_there():
    with pytest.raises(MemxError, match="embedding_bag has no implementation 'triton'"):
        embedding_bag(*draw(), impl="triton")
