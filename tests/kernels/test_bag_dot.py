"""bag_dot against a plain loop, and its gradients in the three modes."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.bag_dot import OP, bag_dot, bag_dot_reference
from memx.kernels.embedding_bag import row_gradient


def draw(slots=11, width=7, bags=5, rows=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(bags, width, generator=generator, dtype=dtype)
    values = torch.randn(slots, width, generator=generator, dtype=dtype)
    return vectors, values, torch.randint(slots, (bags, rows), generator=generator)


@pytest.mark.parametrize("function", [bag_dot, bag_dot_reference])
@pytest.mark.parametrize(
    ("slots", "width", "bags", "rows"), [(11, 7, 5, 6), (1, 1, 1, 1), (3, 768, 4, 2), (5, 63, 9, 40), (9, 4, 3, 2000)]
)
def test_equals_a_plain_loop(function, slots, width, bags, rows):
    vectors, values, chosen = draw(slots, width, bags, rows)
    out = function(vectors, values, chosen)
    for b in range(bags):
        expected = torch.stack([vectors[b] @ values[slot] for slot in chosen[b]])
        torch.testing.assert_close(out[b], expected, rtol=0, atol=1e-12)


def test_int32_slots_give_the_same():
    vectors, values, chosen = draw(dtype=torch.float32)
    assert torch.equal(bag_dot(vectors, values, chosen.int()), bag_dot(vectors, values, chosen))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_bags(shape):
    vectors, values, _ = draw(bags=shape[0])
    values.requires_grad_()
    out = bag_dot(vectors, values, torch.empty(shape, dtype=torch.long))
    assert out.shape == shape
    out.sum().backward()
    assert (values.grad == 0).all()


def test_gradients():
    vectors, values, chosen = draw()
    vectors.requires_grad_()
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v: bag_dot(x, v, chosen), (vectors, values))


def test_the_three_ways_to_take_the_gradient_of_values_agree():
    vectors, values, chosen = draw()
    values.requires_grad_()
    upstream = torch.randn(5, 6, dtype=torch.float64)
    (dense,) = torch.autograd.grad(bag_dot_reference(vectors, values, chosen), values, upstream)
    (rows,) = torch.autograd.grad(bag_dot(vectors, values, chosen, gradient="rows"), values, upstream)
    assert rows.is_coalesced()
    torch.testing.assert_close(rows.to_dense(), dense, rtol=0, atol=1e-12)
    sink = []
    bag_dot(vectors, values, chosen, gradient=sink).backward(upstream)
    assert values.grad is None
    torch.testing.assert_close(row_gradient(sink).dense(11), dense, rtol=0, atol=1e-12)


def test_meta_and_compiled():
    vectors, values, chosen = draw()
    assert bag_dot(*(x.to("meta") for x in (vectors, values, chosen))).shape == (5, 6)
    compiled = torch.compile(bag_dot, backend="eager", fullgraph=True)
    assert torch.equal(compiled(vectors, values, chosen), bag_dot(vectors, values, chosen))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_its_own_check(dtype):
    error, limit = check_op(OP, OP.shapes[0], dtype, torch.device("cpu"))
    assert error <= limit


def test_says_what_is_not_there():
    with pytest.raises(MemxError, match="bag_dot has no implementation 'triton'"):
        bag_dot(*draw(), impl="triton")
