"""The memory layer against its equations, brute force over all slots, in fp64."""

import copy

import pytest
import torch
from memx import MemoryLayer
from memx.errors import MemxError
from memx.memory_layers.slots import half_keys


def brute_force(layer: MemoryLayer, x):
    """Equations 1 to 4 of the layer, with every one of the n*n slots scored."""
    n, half = layer.keys.shape[2], layer.key_width // 2
    out = torch.zeros_like(x)
    for t, row in enumerate(x):
        queries = (layer.query.weight @ row).view(layer.heads, 2, half)
        for h in range(layer.heads):
            q, keys = queries[h], layer.keys[:, h]
            if layer.query_norm is not None:

                def rms(v, gain):
                    return v / (v.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain

                q, keys = rms(q, layer.query_norm.weight), rms(keys, layer.key_norm.weight)
            scores = torch.stack([keys[0, i] @ q[0] + keys[1, j] @ q[1] for i in range(n) for j in range(n)])
            best, slots = scores.topk(layer.top_k)
            out[t] += best.softmax(0) @ layer.values.weight[slots]
    return out


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("width", "slots", "heads", "top_k", "key_width"), [(12, 25, 2, 3, None), (24, 16, 3, 4, 10)])
def test_equals_its_equations(qk_norm, width, slots, heads, top_k, key_width):
    torch.manual_seed(1)
    layer = MemoryLayer(width, slots, heads=heads, top_k=top_k, key_width=key_width, qk_norm=qk_norm).double()
    x = torch.randn(7, width, dtype=torch.float64)
    torch.testing.assert_close(layer(x), brute_force(layer, x), rtol=0, atol=1e-12)


def test_any_leading_shape():
    layer = MemoryLayer(16, 64, heads=2, top_k=4)
    x = torch.randn(2, 3, 5, 16)
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
    assert error.value.hint == f"the nearest is {nearest}"


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
