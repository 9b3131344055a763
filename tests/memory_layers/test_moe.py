"""The mixture of experts against a loop over tokens, in fp64; its routing and its load-balance loss."""

import pytest
import torch
from memx import MoeLayer


def make_layer(experts=5, top_k=1, width=12, expert_width=7) -> MoeLayer:
    torch.manual_seed(3)
    return MoeLayer(width, experts, expert_width, top_k=top_k, std=0.5).double()


def one_by_one(layer: MoeLayer, x):
    """Each token through the experts it is sent to, one after another."""
    out = []
    for row in x:
        probabilities = (layer.router.weight @ row).softmax(0)
        best, experts = probabilities.topk(layer.top_k)
        if layer.top_k > 1:
            best = best / best.sum()
        y = 0
        for weight, e in zip(best, experts.tolist(), strict=True):
            z = layer.gate[e] @ row
            y = y + weight * (layer.down[e] @ (z / (1 + (-z).exp()) * (layer.up[e] @ row)))
        out.append(y)
    return torch.stack(out)


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_equals_a_loop_over_tokens(top_k):
    layer = make_layer(top_k=top_k)
    x = torch.randn(40, 12, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x), one_by_one(layer, x), rtol=0, atol=1e-12)
    of = [x, *layer.parameters()]
    direction = torch.randn(40, 12, dtype=torch.float64)
    ours = torch.autograd.grad((layer(x) * direction).sum(), of)
    exact = torch.autograd.grad((one_by_one(layer, x) * direction).sum(), of)
    for gradient, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("top_k", [1, 2])
def test_every_weight_gets_a_gradient(top_k):
    layer = make_layer(top_k=top_k)
    layer(torch.randn(200, 12, dtype=torch.float64)).pow(2).sum().backward()
    for name, parameter in layer.named_parameters():
        assert (parameter.grad.flatten(1).abs().sum(1) > 0).all(), name


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_order_of_tokens_changes_nothing(top_k):
    layer = make_layer(top_k=top_k)
    x, order = torch.randn(30, 12, dtype=torch.float64), torch.randperm(30)
    torch.testing.assert_close(layer(x[order]), layer(x)[order], rtol=0, atol=1e-13)


def test_the_balance_counts_the_tokens_that_it_is_told_to():
    layer = make_layer(top_k=2)
    x, counted = torch.randn(30, 12, dtype=torch.float64), torch.rand(30) < 0.5
    layer(x[counted])
    expected = layer.balance
    layer.counted = counted
    layer(x)
    torch.testing.assert_close(layer.balance, expected)


def test_no_tokens_give_no_outputs():
    assert make_layer()(torch.empty(0, 12, dtype=torch.float64)).shape == (0, 12)


def test_any_leading_shape():
    layer = make_layer(top_k=2)
    x = torch.randn(2, 3, 4, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1, 2]))


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_balance_loss_is_its_formula(top_k):
    layer = make_layer(top_k=top_k)
    x = torch.randn(50, 12, dtype=torch.float64)
    layer(x)
    probabilities = (x @ layer.router.weight.T).softmax(-1)
    experts = probabilities.topk(top_k, dim=-1).indices
    share = torch.tensor([(experts == e).double().sum() / (50 * top_k) for e in range(5)])
    torch.testing.assert_close(layer.balance, 5 * (share * probabilities.mean(0)).sum(), rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(layer.balance, layer.router.weight)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_balance_loss_is_one_when_balanced_and_more_when_not(top_k):
    layer = MoeLayer(6, 6, 4, top_k=top_k)
    with torch.no_grad():
        layer.router.weight.copy_(0.1 * (torch.eye(6) + 0.5 * torch.eye(6).roll(1, 0)))
    layer(torch.eye(6))
    assert layer.balance.item() == pytest.approx(1.0)
    layer(torch.eye(6)[:1].expand(6, 6) * 100)
    assert layer.balance.item() == pytest.approx(6 / top_k, rel=0.01)


def test_no_balance_loss_is_taken_outside_training():
    layer = make_layer().eval()
    layer(torch.randn(4, 12, dtype=torch.float64))
    assert layer.balance is None


def test_unused_experts_get_no_gradient_and_crash_nothing():
    layer = make_layer(experts=64)
    layer(torch.randn(1, 12, dtype=torch.float64)).sum().backward()
    assert (layer.gate.grad.flatten(1).abs().sum(1) > 0).sum() == 1
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_autocast():
    layer = MoeLayer(12, 4, 8, top_k=2, std=0.3)
    x = torch.randn(20, 12)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
        (rounded.sum() + layer.balance).backward()
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
