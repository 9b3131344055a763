"""embedding_bag against a plain loop, its gradients, and its determinism."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.bench import check_op
from memx.kernels.embedding_bag import OP, embedding_bag, embedding_bag_reference


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
