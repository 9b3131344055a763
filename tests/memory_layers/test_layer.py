"""The memory layer against its equations, brute force over all slots, in fp64."""

import copy

import pytest
import torch
from memx import MemoryLayer
from memx.errors import MemxError
from memx.memory_layers.layer import ResidualMemory
from memx.memory_layers.slots import half_keys


def brute_force(layer: MemoryLayer, x):
    """Equations 1 to 5 of the layer, with every one of the n*n slots scored."""
    n, half = layer.keys.shape[2], layer.key_width // 2
    out = []
    for row in x:
        queries = (layer.query.weight @ row).view(layer.heads, 2, half)
        y = 0
        for h in range(layer.heads):
            q, keys = queries[h], layer.keys[:, h]
            if layer.query_norm is not None:

                def rms(v, gain):
                    return v / (v.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain

                q, keys = rms(q, layer.query_norm.weight), rms(keys, layer.key_norm.weight)
            scores = torch.stack([keys[0, i] @ q[0] + keys[1, j] @ q[1] for i in range(n) for j in range(n)])
            best, slots = scores.topk(layer.top_k)
            y = y + best.softmax(0) @ layer.values.weight[slots]
        if layer.gate is not None:
            z = layer.gate.weight @ row
            y = y * z / (1 + (-z).exp())
        if layer.output is not None:
            y = layer.output.weight @ y
        if layer.output_gate is not None:
            y = y / (1 + (-layer.output_gate.weight[0] @ row).exp())
        out.append(y)
    return torch.stack(out)


def make_layer(width, slots, **settings) -> MemoryLayer:
    """A layer in fp64 none of whose weights is zero or one."""
    torch.manual_seed(1)
    layer = MemoryLayer(width, slots, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("width", "slots", "heads", "top_k", "key_width"), [(12, 25, 2, 3, None), (24, 16, 3, 4, 10)])
def test_equals_its_equations(qk_norm, width, slots, heads, top_k, key_width):
    torch.manual_seed(1)
    layer = MemoryLayer(width, slots, heads=heads, top_k=top_k, key_width=key_width, qk_norm=qk_norm).double()
    x = torch.randn(7, width, dtype=torch.float64)
    torch.testing.assert_close(layer(x), brute_force(layer, x), rtol=0, atol=1e-12)


VARIANTS = [
    {"gating": True, "qk_norm": True},
    {"value_width": 7},
    {"value_width": 20, "gating": True},
    {"output_gate": True},
    {"silent": True},
    {"gating": True, "silent": True, "output_gate": True, "value_width": 5},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
@pytest.mark.parametrize(("width", "slots"), [(12, 25), (18, 9)])
def test_every_variant_equals_its_equations(settings, width, slots):
    layer = make_layer(width, slots, heads=2, top_k=3, key_width=6, **settings)
    x = torch.randn(7, width, dtype=torch.float64)
    torch.testing.assert_close(layer(x), brute_force(layer, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, *VARIANTS], ids=str)
def test_every_gradient_equals_that_of_the_equations(settings):
    layer = make_layer(18, 25, heads=2, top_k=3, key_width=6, **settings)
    x = torch.randn(5, 18, dtype=torch.float64, requires_grad=True)
    of = [x, *layer.parameters()]
    direction = torch.randn(5, 18, dtype=torch.float64)
    ours = torch.autograd.grad((layer(x) * direction).sum(), of)
    exact = torch.autograd.grad((brute_force(layer, x) * direction).sum(), of)
    for gradient, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_gradients_equal_finite_differences():
    layer = make_layer(12, 25, heads=2, top_k=3, key_width=6, gating=True, value_width=4)
    named = dict(layer.named_parameters())
    x = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(named, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *named.values()), eps=1e-7, atol=1e-6)


def test_a_width_of_768_equals_its_equations():
    layer = make_layer(768, 64, heads=4, top_k=4, gating=True, qk_norm=True)
    x = torch.randn(2, 768, dtype=torch.float64)
    torch.testing.assert_close(layer(x), brute_force(layer, x), rtol=1e-9, atol=1e-9)


def test_shapes_of_a_gated_layer_with_another_value_width():
    layer = MemoryLayer(24, 25, heads=2, top_k=3, gating=True, value_width=6)
    assert layer.values.weight.shape == (25, 6)
    assert (layer.gate.weight.shape, layer.output.weight.shape) == ((6, 24), (24, 6))
    assert not [name for name, _ in layer.named_parameters() if "bias" in name]


@pytest.mark.parametrize("gating", [False, True])
def test_a_silent_layer_says_nothing_at_first_and_learns_to(gating):
    layer = MemoryLayer(16, 64, heads=2, top_k=4, gating=gating, silent=True)
    feed_forward = torch.nn.Linear(16, 16)
    x = torch.randn(9, 16)
    beside = ResidualMemory(feed_forward, layer)
    assert torch.equal(beside(x), feed_forward(x))
    beside(x).pow(2).sum().backward()
    assert layer.output.weight.grad.abs().sum() > 0
    with torch.no_grad():
        layer.output.weight -= 0.1 * layer.output.weight.grad
    beside(x).pow(2).sum().backward()
    assert layer.values.weight.grad.abs().sum() > 0 and layer.keys.grad.abs().sum() > 0


def test_the_output_gate_starts_at_one_half():
    torch.manual_seed(0)
    layer = MemoryLayer(16, 64, heads=2, top_k=4, output_gate=True)
    x, gate = torch.randn(9, 16), layer.output_gate
    halved, layer.output_gate = layer(x), None
    assert gate.weight.abs().sum() == 0
    torch.testing.assert_close(halved, layer(x) / 2)


def test_a_shared_table_of_another_shape_is_refused():
    with pytest.raises(AssertionError, match="different shape"):
        MemoryLayer(16, 64, top_k=4, values=MemoryLayer(16, 64, top_k=4, value_width=8).values)


def test_any_leading_shape():
    layer = MemoryLayer(16, 64, heads=2, top_k=4).double()
    x = torch.randn(2, 3, 5, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1, 2]))


def test_every_weight_gets_a_gradient():
    layer = MemoryLayer(16, 64, heads=2, top_k=4, qk_norm=True)
    layer(torch.randn(200, 16)).pow(2).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_initial_spread():
    torch.manual_seed(0)
    layer = MemoryLayer(64, 4096, heads=2, top_k=8)
    assert layer.values.weight.std().item() == pytest.approx(64**-0.5, rel=0.02)
    assert layer.keys.abs().max().item() <= 32**-0.5
    assert layer.keys.std().item() == pytest.approx(32**-0.5 / 3**0.5, rel=0.02)


def test_qk_norm_scores_start_at_unit_variance():
    torch.manual_seed(0)
    layer = MemoryLayer(64, 4096, heads=2, top_k=64, qk_norm=True)
    query = layer.query(torch.randn(500, 64)).unflatten(-1, (2, 2, -1))
    scores = torch.einsum("bhpd,phnd->bhpn", layer.query_norm(query), layer.key_norm(layer.keys))
    assert scores.std().item() == pytest.approx(1.0, rel=0.1)


def test_autocast_ranks_by_full_precision_scores():
    torch.manual_seed(0)
    layer = MemoryLayer(64, 4096, heads=2, top_k=8, qk_norm=True)
    x = torch.randn(300, 64)
    with torch.autocast("cpu", torch.bfloat16):
        slots, weights = layer.lookup(x)
        rounded = layer.query(x).float().unflatten(-1, (2, 2, -1))
        out = layer(x)
    query, keys = layer.query_norm(rounded).flatten(-2), layer.key_norm(layer.keys)
    from memx.kernels.product_topk import product_topk

    assert torch.equal(slots, product_topk(query, keys, 8)[1])
    assert weights.dtype == torch.float32 and out.dtype == torch.float32


def test_a_shared_table_is_one_parameter_and_survives_deepcopy_and_dtype():
    first = MemoryLayer(16, 64, heads=2, top_k=4)
    pair = torch.nn.ModuleList([first, MemoryLayer(16, 64, heads=2, top_k=4, values=first.values)])
    assert sum(p.shape == (64, 16) for p in pair.parameters()) == 1
    twin = copy.deepcopy(pair)
    assert twin[1].values is twin[0].values
    assert twin[0].values is not first.values
    assert twin.double()[1].values.weight.dtype == torch.float64
    assert first.values.weight.dtype == torch.float32


def test_two_layers_share_nothing_by_accident():
    one, other = MemoryLayer(16, 64, heads=2, top_k=4), MemoryLayer(16, 64, heads=2, top_k=4)
    assert one.values is not other.values


@pytest.mark.parametrize(("slots", "nearest"), [(1000, 1024), (2, 1), (3, 4), (65535, 65536), (0, 1), (-4, 1)])
def test_slots_that_are_no_square(slots, nearest):
    with pytest.raises(MemxError, match=f"slots {slots} is not a square") as error:
        MemoryLayer(16, slots, top_k=1)
    assert error.value.hint == f"use the nearest, {nearest}"


def test_half_keys_of_large_tables():
    assert half_keys((2**16 - 1) ** 2) == 2**16 - 1


def test_more_kept_than_half_keys():
    with pytest.raises(MemxError, match=r"top_k 9 is not in 1\.\.8"):
        MemoryLayer(16, 64, top_k=9)


def test_shapes_on_meta_and_no_graph_breaks():
    with torch.device("meta"):
        assert MemoryLayer(16, 64, top_k=4)(torch.empty(3, 16)).shape == (3, 16)
    layer, x = MemoryLayer(16, 64, heads=2, top_k=4), torch.randn(5, 16)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))
