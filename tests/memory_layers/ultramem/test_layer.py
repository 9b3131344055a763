"""The UltraMem layer against its equations, brute force over all virtual slots, in fp64."""

import copy
import math

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.config.training import TrainingConfig
from memx.experiments.optim.optimizer import Optimizer
from memx.kernels.embedding_bag import row_gradient
from memx.memory_layers.layer import MemoryLayer
from memx.memory_layers.ultramem.expansion import scattered
from memx.memory_layers.ultramem.layer import UltraMemLayer
from memx.memory_layers.ultramem.tucker import excess

from .test_tucker import all_scores

VARIANTS = [
    {},
    {"qk_norm": False},
    {"rank": 1},
    {"rank": 1, "scores": "softmax", "qk_norm": False},
    {"rank": 3, "key_width": 12},
    {"scores": "softmax"},
    {"expansion": 1},
    {"expansion": 1, "shuffle": True},
    {"shuffle": False},
    {"units": True, "expansion": 1},
    {"units": True, "value_width": 3, "output_gate": True},
    {"value_width": 20, "output_gate": True},
]


def make_layer(width=12, slots=16, **settings) -> UltraMemLayer:
    """A layer in fp64 none of whose weights is zero or one."""
    torch.manual_seed(1)
    given = {"heads": 2, "top_k": 3, "key_width": 8, **settings}
    layer = UltraMemLayer(width, slots, **given).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name != "core":
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


def brute_force(layer: UltraMemLayer, x):
    """The equations, slot by slot, of the slots that the layer's own search gives."""
    n, expansion, (rows, d_v) = layer.keys.shape[2], layer.expansion, layer.values.shape
    chosen = layer.lookup(x)[0]
    query, keys = (x @ layer.query.weight.T).unflatten(-1, (layer.heads, -1)), layer.keys
    if layer.query_norm is not None:

        def rms(v, gain):
            v = v.unflatten(-1, (-1, len(gain)))
            return (v / (v.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain).flatten(-2)

        query, keys = rms(query, layer.query_norm.weight), rms(keys, layer.key_norm.weight)
    if layer.core is None:
        first, second = query.chunk(2, -1)
        sums = torch.einsum("thw,hnw->thn", first, keys[0])[..., None]
        scores = (sums + torch.einsum("thw,hnw->thn", second, keys[1])[..., None, :]).flatten(-2)
    else:
        scores = all_scores(query, keys, layer.core)
    projections = layer.output.weight.view(len(layer.output.weight), expansion, d_v)
    out = []
    for t, row in enumerate(x):
        y = 0
        for h in range(layer.heads):
            slots = chosen[t, h]
            weights = scores[t, h, slots]
            weights = weights.softmax(0) if layer.scores == "softmax" else weights
            for slot, weight in zip(slots, weights, strict=True):
                address = scattered(slot, n) if layer.shuffle else slot
                block, a = int(address) // rows, int(address) % rows
                inner = 1 if layer.down is None else layer.down.weight[a] @ row
                y = y + weight * inner * (projections[:, block] @ layer.values.weight[a])
        if layer.output_gate is not None:
            y = y / (1 + (-layer.output_gate.weight[0] @ row).exp())
        out.append(y)
    return torch.stack(out)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_outputs_and_gradients_equal_those_of_the_equations(settings):
    layer = make_layer(**settings)
    x = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
    ours, exact = layer(x), brute_force(layer, x)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-11)
    of = [x, *layer.parameters()]
    direction = torch.randn_like(ours)
    for gradient, expected in zip(
        torch.autograd.grad((ours * direction).sum(), of),
        torch.autograd.grad((exact * direction).sum(), of),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"units": True, "expansion": 1}], ids=str)
def test_gradients_equal_finite_differences(settings):
    layer = make_layer(6, 9, heads=1, value_width=3, **settings)
    named = dict(layer.named_parameters())
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(named, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *named.values()), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_rank_one_is_product_keys_to_the_bit(qk_norm):
    torch.manual_seed(0)
    layer = UltraMemLayer(16, 64, rank=1, expansion=1, scores="softmax", qk_norm=qk_norm, heads=2, top_k=4)
    plain = MemoryLayer(16, 64, heads=2, top_k=4, qk_norm=qk_norm)
    names = [name for name in plain.state_dict() if name != "table.weight"]
    assert not plain.load_state_dict({k: layer.state_dict()[k] for k in names}, strict=False).unexpected_keys
    x = torch.randn(50, 16)
    for ours, theirs in zip(layer.lookup(x), plain.lookup(x), strict=True):
        assert torch.equal(ours, theirs)


def test_one_virtual_table_without_permutation_is_a_plain_table_to_the_bit():
    torch.manual_seed(0)
    settings = {"heads": 2, "top_k": 4, "scores": "none"}
    layer = UltraMemLayer(16, 64, rank=1, expansion=1, qk_norm=False, value_width=16, **settings)
    plain = MemoryLayer(16, 64, **settings)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "output.weight"})
    with torch.no_grad():
        layer.output.weight.copy_(torch.eye(16))
    x = torch.randn(50, 16)
    assert torch.equal(layer(x), plain(x))


def test_equal_projections_make_one_table_of_all_virtual_ones():
    layer = make_layer(expansion=4)
    with torch.no_grad():
        one = layer.output.weight[:, :6].clone()
        layer.output.weight.copy_(one.repeat(1, 4))
    x = torch.randn(5, 12, dtype=torch.float64)
    slots, weights = layer.lookup(x)
    plain = layer.values.bag(layer.rows_of(slots).flatten(1), weights.flatten(1)) @ one.T
    torch.testing.assert_close(layer(x), plain, rtol=0, atol=1e-12)


def test_every_virtual_slot_is_a_row_and_each_row_has_every_projection():
    layer = make_layer(slots=16, expansion=4)
    addresses = layer.addresses(torch.arange(64))
    assert torch.equal(addresses.sort().values, torch.arange(64))
    assert torch.equal(torch.bincount(layer.rows_of(torch.arange(64))), torch.full((16,), 4))


def test_usage_counts_rows_of_the_table():
    layer, seen = make_layer(slots=16, expansion=4), []
    layer.observe = seen.append
    layer(torch.randn(30, 12, dtype=torch.float64))
    assert seen[0].shape == (30, 2, 3) and seen[0].max() < 16


@pytest.mark.parametrize("settings", [{}, {"units": True}], ids=str)
def test_the_order_of_tokens_changes_nothing(settings):
    layer = make_layer(**settings)
    x, order = torch.randn(20, 12, dtype=torch.float64), torch.randperm(20)
    torch.testing.assert_close(layer(x[order]), layer(x)[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x.view(2, 5, 2, 12))[1, 3], layer(x.view(2, 5, 2, 12)[1, 3]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{}, {"scores": "softmax"}, {"rank": 1}, {"units": True}, {"qk_norm": False}], ids=str
)
def test_outputs_start_with_the_standard_deviation_asked_for(settings):
    torch.manual_seed(0)
    layer = UltraMemLayer(64, 1024, heads=2, top_k=16, output_std=0.6, **settings)
    x = torch.randn(1000, 64)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    assert layer(x).std().item() == pytest.approx(0.6, rel=0.2)


def test_a_silent_layer_says_nothing_at_first_and_learns_to():
    layer = UltraMemLayer(16, 64, heads=2, top_k=4, silent=True, output_std=1.0)
    x = torch.randn(9, 16)
    assert layer(x).abs().sum() == 0
    (layer(x) - 1).square().sum().backward()
    assert layer.output.weight.grad.abs().sum() > 0


def test_the_loss_on_the_core():
    layer = make_layer()
    assert torch.equal(layer.core_loss(), excess(layer.core))
    assert make_layer(rank=1).core_loss() is None
    layer(torch.randn(3, 12, dtype=torch.float64))
    assert torch.equal(layer.excess, excess(layer.core))
    assert copy.deepcopy(layer).excess is None
    layer.eval()(torch.randn(3, 12, dtype=torch.float64))
    assert layer.excess is None
    torch.manual_seed(0)
    assert UltraMemLayer(16, 64, heads=2, top_k=4).core_loss() == 0  # it starts below the threshold


def test_shared_tables_deepcopy_dtype_and_state():
    first = UltraMemLayer(16, 64, heads=2, top_k=4)
    pair = torch.nn.ModuleList([first, UltraMemLayer(16, 64, heads=2, top_k=4, values=first.values)])
    assert sum(p.shape == (64, 8) for p in pair.parameters()) == 1
    twin = copy.deepcopy(pair)
    assert twin[1].values is twin[0].values and twin[0].values is not first.values
    assert twin.double()[1].values.weight.dtype == torch.float64
    other = torch.nn.ModuleList([UltraMemLayer(16, 64, heads=2, top_k=4)])
    other.append(UltraMemLayer(16, 64, heads=2, top_k=4, values=other[0].values))
    other.load_state_dict(pair.state_dict())
    x = torch.randn(7, 16)
    for ours, theirs in zip(pair, other, strict=True):
        assert torch.equal(ours(x), theirs(x))


def test_made_on_the_meta_device_and_filled_later():
    torch.manual_seed(0)
    made = UltraMemLayer(16, 64, heads=2, top_k=4, output_std=0.5)
    with torch.device("meta"):
        layer = UltraMemLayer(16, 64, heads=2, top_k=4, output_std=0.5)
        assert layer(torch.empty(3, 16)).shape == (3, 16)
    layer.to_empty(device="cpu").load_state_dict(made.state_dict())
    x = torch.randn(7, 16)
    assert torch.equal(layer(x), made(x))
    for module in (layer.table, layer):
        module.reset_parameters()
    assert all(p.isfinite().all() for p in layer.parameters())
    assert not list(layer.buffers())  # nothing but parameters needs to be saved


def test_no_graph_breaks():
    layer, x = UltraMemLayer(16, 64, heads=2, top_k=4), torch.randn(5, 16)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_autocast_ranks_by_full_precision_scores():
    torch.manual_seed(0)
    layer = UltraMemLayer(32, 256, heads=2, top_k=4)
    x = torch.randn(40, 32)
    with torch.autocast("cpu", torch.bfloat16):
        slots, weights = layer.lookup(x)
        rounded = layer.query(x).float()
        out = layer(x)
        out.sum().backward()
    assert weights.dtype == torch.float32 and out.dtype == torch.float32
    layer.query.forward = lambda x: rounded
    assert torch.equal(layer.lookup(x)[0], slots)
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("settings", [{}, {"units": True}], ids=str)
def test_the_sparse_step_touches_the_rows_that_were_read(settings):
    torch.manual_seed(0)
    layer = UltraMemLayer(16, 1024, heads=2, top_k=4, **settings)
    optimizer = Optimizer(layer, TrainingConfig(value_optimizer="sparse", warmup=0))
    before = [table.weight.detach().clone() for table in layer.tables()]
    x = torch.randn(6, 16)
    rows = layer.rows_of(layer.lookup(x)[0])[:3].unique()
    layer(x)[:3].square().sum().backward()
    optimizer.step(0)
    touched = torch.zeros(1024, dtype=torch.bool).index_fill(0, rows, True)
    for table, old, state in zip(layer.tables(), before, optimizer.tables.states.values(), strict=True):
        assert torch.equal(state.last > 0, touched)
        assert torch.equal((table.weight != old).any(-1), touched)


def test_the_sparse_step_counts_each_lookup_once():
    layer = make_layer(expansion=4)
    optimizer = Optimizer(layer, TrainingConfig(value_optimizer="sparse", warmup=0))
    layer(torch.randn(5, 12, dtype=torch.float64)).square().sum().backward()
    (part,) = layer.values.gradient_buffer
    assert part.slots.numel() > 5 * 2 * 3  # padded to the fullest block
    (gradient,) = optimizer.tables.gradients().values()
    assert gradient.starts[-1] == 5 * 2 * 3


def test_gradients_in_buffers_equal_dense_ones():
    layer = make_layer(units=True, expansion=4)
    buffered = copy.deepcopy(layer)
    for table in buffered.tables():
        table.gradient_buffer = []
    x = torch.randn(7, 12, dtype=torch.float64)
    layer(x).square().sum().backward()
    buffered(x).square().sum().backward()
    for table, other in zip(layer.tables(), buffered.tables(), strict=True):
        gradient = row_gradient(other.pop_gradients()).dense(16)
        torch.testing.assert_close(gradient, table.weight.grad, rtol=0, atol=1e-10)


def test_sizes_that_do_not_fit():
    with pytest.raises(MemxError, match="expansion 2 is not a square"):
        UltraMemLayer(16, 64, expansion=2, top_k=1)
    with pytest.raises(MemxError, match="top_k 17 is not in 1"):
        UltraMemLayer(16, 64, expansion=4, top_k=17)
    with pytest.raises(MemxError, match="key_width 10 cannot be split into 2 halves of 2 equal parts") as error:
        UltraMemLayer(16, 64, key_width=10, top_k=4)
    assert error.value.hint == "use a multiple of 4, or rank 1"
    with pytest.raises(AssertionError, match="different shape"):
        UltraMemLayer(16, 64, top_k=4, values=UltraMemLayer(16, 64, top_k=4, value_width=5).values)
    with pytest.raises(AssertionError, match="do not share"):
        UltraMemLayer(16, 64, top_k=4, units=True, values=UltraMemLayer(16, 64, top_k=4).values)


def test_initial_scores_have_unit_variance():
    torch.manual_seed(0)
    layer = UltraMemLayer(64, 1024, heads=2, top_k=8)
    query = layer.query_norm(layer.query(torch.randn(300, 64)).unflatten(-1, (2, 2, 2, -1)))
    keys = layer.key_norm(layer.keys.unflatten(-1, (2, -1)))
    scores = torch.einsum("thpaw,phnaw->thpan", query, keys)
    assert scores.std().item() == pytest.approx(1.0, rel=0.1)
    assert torch.linalg.svdvals(layer.core)[0].item() == pytest.approx(1, abs=0.2)
    assert math.isfinite(layer.core.sum().item())
