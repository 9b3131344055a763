"""Tables in host memory: they read, learn and are saved as any table, and stay where they are."""

import copy
import pickle

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.config.training import TrainingConfig
from memx.experiments.optim.value_optimizer import ValueOptimizer
from memx.kernels import native
from memx.memory_layers.layer import MemoryLayer
from memx.memory_layers.llama import MemoryLlamaConfig, MemoryLlamaForCausalLM, keep_on_host, tables_of
from memx.memory_layers.tables import staging
from memx.memory_layers.tables.host_rows import HostRows
from memx.memory_layers.tables.staging import distinct
from memx.memory_layers.tables.table_shards import TableShard
from memx.memory_layers.tables.values import MemoryValues
from torch import distributed, nn

from tests.ranks import run_worlds

ROWS, WIDTH, TOKENS, STEPS = 64, 24, 16, 3
MODEL = dict(
    vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2,
    num_key_value_heads=2, pad_token_id=0, eos_token_id=1, memory_layers=(0, 2, 3), memory_slots=64, memory_heads=2,
    memory_top_k=4,
)  # fmt: skip


def make_layers(dtype=torch.float32, on_host=False) -> nn.Sequential:
    """Two memory layers that read one table."""
    torch.manual_seed(0)
    first = MemoryLayer(WIDTH, ROWS, heads=2, top_k=4, gating=True)
    layers = nn.Sequential(first, MemoryLayer(WIDTH, ROWS, heads=2, top_k=4, values=first.values))
    first.values.to(dtype)
    if on_host:
        assert keep_on_host(layers) == [first.values]
    return layers


def inputs():
    return torch.randn(STEPS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def train(layers: nn.Sequential, x: torch.Tensor, **settings) -> tuple:
    """Outputs of each step, the weights' gradients of the last, the table and its state."""
    (table,) = (module for module in layers.modules() if isinstance(module, MemoryValues))
    config = TrainingConfig(value_optimizer="sparse", **settings)
    tables, outputs = ValueOptimizer({"table": table}, config, seed=3), []
    for step, given in enumerate(x):
        layers.zero_grad()
        y = layers(given)
        outputs.append(y.detach())
        (y.square().sum() + y.sum()).backward()
        gradients = tables.gradients()
        norm = sum(tables.squared_norms(gradients))
        tables.step(gradients, step, 0.01, scale=1 / (1 + norm**0.5))
    rest = {name: p.grad for name, p in layers.named_parameters() if p.grad is not None}
    return outputs, rest, table.weight.detach(), tables.state_tensors()


def check_same(one, other):
    """The same tensors, to the bit, anywhere in the same structure."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
        return
    pairs = zip(one.items(), other.items(), strict=True) if isinstance(one, dict) else zip(one, other, strict=True)
    for mine, its in pairs:
        if isinstance(mine, str):
            assert mine == its
        else:
            check_same(mine, its)


@pytest.fixture(params=["compiled loops", "torch"])
def loops(request, monkeypatch):
    """With and without the compiled gather, and in pieces of a few rows."""
    if request.param == "torch":
        monkeypatch.setattr(native, "available", lambda *tensors: False)
    monkeypatch.setattr(staging, "_PIECE", 5 * WIDTH * 4)


@pytest.mark.parametrize("settings", [{}, {"value_second_moment": "row"}], ids=str)
def test_outputs_gradients_and_steps_are_those_of_a_table_on_the_device(loops, settings):
    expected = train(make_layers(), inputs(), **settings)
    check_same(train(make_layers(on_host=True), inputs(), **settings), expected)


@pytest.mark.parametrize("rounding", ["stochastic", "masters"])
def test_half_precision_tables_too(loops, rounding):
    expected = train(make_layers(torch.bfloat16), inputs(), value_rounding=rounding)
    check_same(train(make_layers(torch.bfloat16, on_host=True), inputs(), value_rounding=rounding), expected)


def test_distinct_rows_by_brute_force():
    generator = torch.Generator().manual_seed(0)
    for shape, slots in (((1, 1), 5), ((7, 3), 4), ((40, 8), 2**40), ((0, 4), 9)):
        for dtype in (torch.int64, torch.int32):
            given = torch.randint(min(slots, torch.iinfo(dtype).max), shape, generator=generator).to(dtype)
            rows, places = distinct(given)
            found = sorted(set(given.flatten().tolist()))
            assert rows[: int(rows[-1])].tolist() == found
            assert places.shape == given.shape and [found[i] for i in places.flatten()] == given.flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows_come_whole_in_any_number_of_pieces(monkeypatch, dtype):
    values = torch.randn(300, 7).to(dtype)
    slots = torch.randint(300, (50, 4))
    for piece in (1, 7 * values.itemsize * 3, 1 << 20):
        monkeypatch.setattr(staging, "_PIECE", piece)
        host = HostRows()
        for given in (slots, slots[:0], slots[:1], slots.flip(0)):
            rows, places = host.read(values, given)
            assert rows.dtype == dtype and torch.equal(rows[places], values[given])
            assert len(rows) == len(given.unique())
        distinct_rows = [len(part.unique()) for part in (slots, slots[:0], slots[:1], slots)]
        assert host.stats.lookups == 4 and host.stats.slots == 404 and host.stats.rows == sum(distinct_rows)
        assert host.stats.bytes == sum(distinct_rows) * 7 * values.itemsize


def test_a_slot_that_is_not_there_is_an_error_and_nothing_hangs(loops):
    table = make_layers(on_host=True)[0].values
    for wrong in (ROWS, -1):
        with torch.no_grad(), pytest.raises(IndexError):
            table.bag(torch.tensor([[0, wrong]]), torch.ones(1, 2))
    with torch.no_grad():
        assert torch.equal(table.bag(torch.tensor([[3]]), torch.ones(1, 1))[0], table.weight[3])


def test_moving_a_model_leaves_the_table_where_it_is_and_casts_it():
    layers = make_layers(on_host=True)
    weight, before = layers[0].values.weight, layers[0].values.weight.detach().clone()
    layers.to("meta")
    assert layers[0].values.weight is weight and torch.equal(weight, before)
    assert layers[0].keys.is_meta and layers[1].query.weight.is_meta
    layers.to(torch.bfloat16)
    table = layers[0].values
    assert table.weight.device.type == "cpu" and torch.equal(table.weight, before.bfloat16())
    assert table.host is not None and [*dict(layers.named_parameters())].count("0.table.weight") == 1


def test_a_table_without_memory_gets_it_on_the_host():
    with torch.device("meta"):
        table = MemoryValues(ROWS, WIDTH)
    table.keep_on_host()
    table.to_empty(device="cpu")
    table.reset_parameters()
    assert table.weight.shape == (ROWS, WIDTH) and 0.15 < float(table.weight.detach().std()) < 0.25


def test_copies_and_pickles_read_alike_and_on_their_own():
    layers = make_layers(on_host=True)
    x = inputs()[0]
    with torch.no_grad():
        expected = layers(x)
        for other in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
            assert torch.equal(other(x), expected) and other[0].values.host is not layers[0].values.host
            other[0].values.weight.zero_()
            assert not other(x).equal(expected)
        assert torch.equal(layers(x), expected)


def test_a_model_is_saved_and_loaded_as_ever(tmp_path):
    torch.manual_seed(0)
    model = MemoryLlamaForCausalLM(MemoryLlamaConfig(**MODEL)).eval()
    tokens = torch.arange(2, 20)[None]
    with torch.no_grad():
        expected = model(tokens).logits
        keep_on_host(model)
        assert torch.equal(model(tokens).logits, expected)
        model.save_pretrained(tmp_path)
        loaded = MemoryLlamaForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.equal(loaded(tokens).logits, expected)
        assert [table.host for table in tables_of(loaded)] == [None]
        keep_on_host(loaded)
        loaded.load_state_dict(model.state_dict())
        assert torch.equal(loaded(tokens).logits, expected)
        written = [model.generate(tokens, max_new_tokens=4, do_sample=False) for model in (model, loaded)]
    assert torch.equal(*written)


def test_a_dense_step_is_refused_and_a_frozen_table_is_not():
    layers = make_layers(on_host=True)
    with pytest.raises(MemxError, match="no dense gradient"):
        layers(inputs()[0])
    layers[0].values.weight.requires_grad_(False)
    layers(inputs()[0]).sum().backward()
    assert layers[0].keys.grad is not None


def test_models_that_cannot_keep_tables_on_the_host():
    with pytest.raises(MemxError, match="no value table"):
        keep_on_host(nn.Linear(2, 2))
    peer = MemoryLlamaForCausalLM(MemoryLlamaConfig(**MODEL | {"memory_kind": "peer"}))
    with pytest.raises(MemxError, match="PEER"):
        keep_on_host(peer)


def on_a_rank(by: str, on_host: bool) -> tuple:
    distributed.init_process_group("gloo")
    try:
        layers = make_layers()
        rank, size = distributed.get_rank(), distributed.get_world_size()
        layers[0].values.keep_shard(TableShard(by, distributed.group.WORLD, rank, size, ROWS, WIDTH))
        if on_host:
            keep_on_host(layers)
        return train(layers, inputs().chunk(size, dim=1)[rank])
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("by", ["width", "rows"])
def test_tables_that_ranks_share_out_too(by):
    expected = run_worlds(on_a_rank, (2,), dict(by=by, on_host=False))[2]
    check_same(run_worlds(on_a_rank, (2,), dict(by=by, on_host=True))[2], expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_the_table_stays_in_host_memory_and_outputs_are_those_of_one_on_the_device(dtype):
    x = inputs().cuda()
    direct, ours = make_layers(dtype).cuda(), make_layers(dtype, on_host=True).cuda()
    assert ours[0].values.weight.device.type == "cpu" and ours[0].keys.is_cuda
    expected, found = train(direct, x), train(ours, x)
    assert torch.equal(found[0][0], expected[0][0])  # before the steps, which another device rounds otherwise
    torch.testing.assert_close(found[2].float(), expected[2].cpu().float(), rtol=0.02, atol=1e-3)
