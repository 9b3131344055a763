"""PEER against its equation, brute force over all experts, in fp64; both tables trained densely and sparsely."""

import copy
from math import sqrt

import pytest
import torch
from memx import PeerLayer
from memx.experiments.config.training import TrainingConfig
from memx.experiments.optim.optimizer import Optimizer
from memx.kernels.embedding_bag import row_gradient


def brute_force(layer: PeerLayer, x):
    """y = sum over heads and kept experts of g gelu(u_i x) v_i, with every one of the n*n experts scored."""
    n, half = layer.keys.shape[2], layer.key_width // 2
    out = []
    for row in x:
        queries = (layer.query.weight @ row).view(layer.heads, 2, half)
        y = 0
        for h in range(layer.heads):
            s1, s2 = (layer.keys[p, h] @ queries[h, p] for p in range(2))
            best, experts = (s1[:, None] + s2[None]).flatten().topk(layer.top_k)
            assert len(s1) == n
            inner = layer.down.weight[experts] @ row
            gelu = inner * (1 + torch.erf(inner / sqrt(2))) / 2
            y = y + (best.softmax(0) * gelu) @ layer.up.weight[experts]
        out.append(y)
    return torch.stack(out)


def make_layer(width=12, slots=25, **settings) -> PeerLayer:
    torch.manual_seed(2)
    return PeerLayer(width, slots, **{"heads": 3, "top_k": 4, **settings}).double()


@pytest.mark.parametrize(("width", "slots", "key_width"), [(12, 25, None), (18, 49, 10), (768, 16, None)])
def test_equals_its_equation(width, slots, key_width):
    layer = make_layer(width, slots, key_width=key_width)
    x = torch.randn(6, width, dtype=torch.float64)
    torch.testing.assert_close(layer(x), brute_force(layer, x), rtol=0, atol=1e-11)


def test_every_gradient_equals_that_of_the_equation():
    layer = make_layer()
    x = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    of = [x, *layer.parameters()]
    direction = torch.randn(6, 12, dtype=torch.float64)
    ours = torch.autograd.grad((layer(x) * direction).sum(), of)
    exact = torch.autograd.grad((brute_force(layer, x) * direction).sum(), of)
    for gradient, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_gradients_equal_finite_differences():
    layer = make_layer(6, 16, heads=2, top_k=3, key_width=4)
    named = dict(layer.named_parameters())
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(named, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *named.values()), eps=1e-7, atol=1e-6)


def test_a_sink_holds_the_gradients_of_both_tables():
    layer = make_layer()
    sinking = copy.deepcopy(layer)
    for table in sinking.tables():
        table.gradient_buffer = []
    for x in torch.randn(2, 7, 12, dtype=torch.float64):
        layer(x).pow(2).sum().backward()
        sinking(x).pow(2).sum().backward()
    for table, other in zip(layer.tables(), sinking.tables(), strict=True):
        assert other.weight.grad is None and len(other.gradient_buffer) == 2
        gradient = row_gradient(other.gradient_buffer).dense(25)
        torch.testing.assert_close(gradient, table.weight.grad, rtol=0, atol=1e-12)
    for name in ("query.weight", "keys"):
        torch.testing.assert_close(sinking.get_parameter(name).grad, layer.get_parameter(name).grad, rtol=0, atol=1e-12)


def test_tokens_that_no_loss_depends_on_touch_no_row_of_either_table():
    torch.manual_seed(0)
    layer = PeerLayer(16, 1024, heads=2, top_k=4)
    config = TrainingConfig(value_optimizer="sparse", warmup=0)
    optimizer = Optimizer(layer, config)
    x = torch.randn(6, 16)
    slots, _ = layer.lookup(x)
    touched = torch.zeros(1024, dtype=torch.bool)
    touched[slots[:3].flatten()] = True
    layer(x)[:3].pow(2).sum().backward()
    optimizer.step(0)
    for state in optimizer.tables.states.values():
        assert torch.equal(state.last > 0, touched)


def test_the_tables_are_two():
    layer = make_layer()
    assert layer.tables() == (layer.down, layer.up) and layer.down.weight is not layer.up.weight
    assert not torch.equal(layer.down.weight, layer.up.weight)


def test_any_leading_shape_and_autocast():
    layer = PeerLayer(16, 64, heads=2, top_k=4)
    x = torch.randn(2, 3, 5, 16)
    exact = copy.deepcopy(layer).double()
    torch.testing.assert_close(exact(x.double())[1, 2], exact(x[1, 2].double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.float32
        layer(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
