"""The kernels that read and sum rows of bags, against plain sums in float64, at shapes that fill no tile."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.bag_dot import OP as BAG_DOT
from memx.kernels.bag_dot import bag_dot
from memx.kernels.embedding_bag import OP as EMBEDDING_BAG
from memx.kernels.embedding_bag import BagGradient, embedding_bag, row_gradient
from memx.kernels.embedding_bag.segment_kernel import SPLIT


def draw(device, slots=11, width=7, bags=5, rows=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(slots, width, generator=generator, dtype=torch.float64)
    chosen = torch.randint(slots, (bags, rows), generator=generator)
    weights = torch.randn(bags, rows, generator=generator, dtype=torch.float64)
    return values.to(device, dtype), chosen.to(device), weights.to(device, dtype)


@pytest.mark.parametrize("op", [EMBEDDING_BAG, BAG_DOT], ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        {"B": 3, "K": 5, "N": 7, "D": 1},
        {"B": 2, "K": 130, "N": 9, "D": 63},
        {"B": 4, "K": 3, "N": 1, "D": 768},
        {"B": 2, "K": 9, "N": 5, "D": 1000},
    ],
    ids=str,
)
def test_outputs_and_gradients_are_as_near_float64_as_torch_is(op, dtype, shape, device):
    error, limit = check_op(op, shape, dtype, device, "triton")
    assert error <= limit


@pytest.mark.parametrize("slot_type", [torch.int32, torch.int64])
def test_gradients_equal_finite_differences(slot_type, device):
    values, chosen, weights = draw(device, 3, 2, 2, 3)
    values.requires_grad_()
    weights.requires_grad_()
    chosen = chosen.to(slot_type)
    assert torch.autograd.gradcheck(lambda v, w: embedding_bag(v, chosen, w, impl="triton"), (values, weights))
    vectors = torch.randn(2, 2, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, v: bag_dot(x, v, chosen, impl="triton"), (vectors, values))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_bags_are_zero_and_have_gradients(shape, device):
    values, _, _ = draw(device)
    values.requires_grad_()
    weights = torch.zeros(shape, dtype=torch.float64, device=device, requires_grad=True)
    out = embedding_bag(values, torch.zeros(shape, dtype=torch.long, device=device), weights, impl="triton")
    assert out.shape == (shape[0], 7) and (out == 0).all()
    first, second = torch.autograd.grad(out.sum(), (values, weights))
    assert (first == 0).all() and first.shape == values.shape and second.shape == shape


@pytest.mark.parametrize("bags", [SPLIT // 4 - 1, SPLIT // 4, 3 * SPLIT // 4 + 5])
def test_a_hot_row_is_split_and_summed_whole(bags, device):
    """All bags hit row 3, in lists shorter than a block, of one block exactly, and of several with both ends."""
    values, _, weights = draw(device, bags=bags, rows=4)
    values.requires_grad_()
    chosen = torch.full((bags, 4), 3, device=device)
    chosen[0, 0], chosen[-1, -1] = 1, 9  # neighbours, so that the hot row begins and ends inside a block
    dout = torch.randn(bags, 7, dtype=torch.float64, device=device)
    (gradient,) = torch.autograd.grad(embedding_bag(values, chosen, weights, impl="triton"), values, dout)
    expected = torch.zeros_like(values).index_add_(
        0, chosen.flatten(), (weights[..., None] * dout[:, None]).flatten(0, 1)
    )
    torch.testing.assert_close(gradient, expected)


def grouped(device, dtype=torch.float64, impl="triton", **settings):
    """A hot row, rows of many and of few contributions, two uses of one table."""
    _, chosen, weights = draw(device, 40, 63, 100, 6, dtype)
    chosen[:80, :3] = 17
    dout = torch.randn(100, 63, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(device, dtype)
    other = BagGradient(torch.tensor([[17, 45]], device=device), weights[:1, :2], dout[:1])
    return row_gradient([BagGradient(chosen, weights, dout), other], size=64, impl=impl, **settings)


def test_grouped_gradients_equal_those_of_torch(device):
    kernel, plain = grouped(device), grouped(device, impl="torch")
    assert torch.equal(kernel.rows, plain.rows) and torch.equal(kernel.starts, plain.starts)
    for start, stop in ((0, len(plain)), (3, 9), (len(plain) - 1, len(plain)), (2, 2)):
        torch.testing.assert_close(kernel.chunk(start, stop), plain.chunk(start, stop))
    torch.testing.assert_close(kernel.squared_norm(), plain.squared_norm())
    torch.testing.assert_close(kernel.dense(64), plain.dense(64))
    torch.testing.assert_close(kernel.to_sparse(64).to_dense(), plain.dense(64))


def test_half_precision_gradients_are_summed_in_float32(device):
    kernel, plain = grouped(device, torch.bfloat16), grouped(device, torch.bfloat16, impl="torch")
    assert kernel.dtype == kernel.chunk(0, 1).dtype == torch.float32
    torch.testing.assert_close(kernel.dense(64), plain.dense(64))


def test_rows_that_are_not_kept_are_left_out(device):
    keep = torch.arange(64, device=device) % 3 == 2
    kernel, plain = grouped(device, keep=keep), grouped(device, impl="torch")
    assert keep[kernel.rows].all()
    torch.testing.assert_close(kernel.dense(64), plain.dense(64) * keep[:, None])


def test_the_three_ways_to_take_the_gradient_of_values_agree(device):
    values, chosen, weights = draw(device)
    values.requires_grad_()
    sink: list[BagGradient] = []
    dense, rows = (
        torch.autograd.grad(embedding_bag(values, chosen, weights, impl="triton", gradient=mode).pow(2).sum(), values)[
            0
        ]
        for mode in ("dense", "rows")
    )
    embedding_bag(values, chosen, weights, impl="triton", gradient=sink).pow(2).sum().backward()
    assert values.grad is None
    torch.testing.assert_close(rows.to_dense(), dense)
    torch.testing.assert_close(row_gradient(sink, impl="triton").dense(11), dense)


def test_the_same_bits_come_out_each_time(device):
    found = [grouped(device, torch.float32) for _ in range(3)]
    dense, norms = [one.dense(64) for one in found], [one.squared_norm() for one in found]
    assert all(torch.equal(one, dense[0]) for one in dense) and all(torch.equal(one, norms[0]) for one in norms)


def test_a_slot_that_is_not_there_gives_nan_and_reads_nothing(device):
    values, chosen, weights = draw(device, dtype=torch.float32)
    chosen[1, 2], chosen[2, 0] = 11, -1
    sums = embedding_bag(values, chosen, weights, impl="triton")
    assert sums[1:3].isnan().all() and not sums[[0, 3, 4]].isnan().any()
    dots = bag_dot(torch.ones(5, 7, device=device), values, chosen, impl="triton")
    assert dots.isnan().nonzero().tolist() == [[1, 2], [2, 0]]


def test_compiles_without_a_graph_break(device):
    values, chosen, weights = draw(device, dtype=torch.float32)
    values.requires_grad_()

    def loss(values, weights):
        return embedding_bag(values, chosen, weights, impl="triton").pow(2).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    one, other = (torch.autograd.grad(f(values, weights), values)[0] for f in (compiled, loss))
    assert torch.equal(one, other)


def test_an_unknown_implementation_is_one_line(device):
    values, chosen, weights = draw(device)
    with pytest.raises(MemxError, match="no implementation 'cuda'"):
        embedding_bag(values, chosen, weights, impl="cuda")


@pytest.mark.gpu
def test_offsets_beyond_31_bits(device):
    values = torch.empty(1 << 21, 2048, dtype=torch.bfloat16, device=device)
    values[-3:] = torch.arange(3, device=device, dtype=torch.bfloat16)[:, None]
    chosen = torch.arange(3, device=device)[None] + len(values) - 3
    weights = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.bfloat16, device=device)
    assert (embedding_bag(values, chosen, weights, impl="triton") == 10).all()
    assert bag_dot(torch.ones(1, 2048, dtype=torch.bfloat16, device=device), values, chosen).tolist() == [
        [0, 2048, 4096]
    ]
