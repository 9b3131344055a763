"""Tables over several ranks: what they read and how they learn is what one table does."""

import pytest
import torch
from memx import MemoryLayer
from memx.experiments.config.training import TrainingConfig
from memx.experiments.optim.value_optimizer import ValueOptimizer
from memx.memory_layers.tables.table_shards import TableShard
from torch import distributed

from tests.ranks import run_worlds

ROWS, WIDTH, TOKENS, STEPS = 64, 24, 16, 3
LAYER = dict(heads=2, top_k=4, qk_norm=True, gating=True)


def make_layer(dtype: torch.dtype, shard: TableShard | None = None) -> MemoryLayer:
    torch.manual_seed(0)
    layer = MemoryLayer(WIDTH, ROWS, **LAYER).to(dtype)
    if shard is not None:
        layer.values.keep_shard(shard)
    return layer


def make_shard(by: str, size: int) -> TableShard:
    """`size` ranks to a copy of the table; the others hold other copies, for other tokens."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    groups = [distributed.new_group([*range(first, first + size)]) for first in range(0, world, size)]
    same = [distributed.new_group([*range(place, world, size)]) for place in range(size)]
    copies = same[rank % size] if world > size else None
    return TableShard(by, groups[rank // size], rank % size, size, ROWS, WIDTH, copies)


def steps(layer: MemoryLayer, x: torch.Tensor, settings: dict) -> tuple:
    """Outputs, then after some steps the weights' gradients of the last, the table and its state."""
    config = TrainingConfig(value_optimizer="sparse", **settings)
    tables = ValueOptimizer({"table": layer.values}, config, seed=3)
    outputs = []
    for step in range(STEPS):
        layer.zero_grad()
        y = layer(x[step])
        outputs.append(y.detach())
        (y.square().sum() + y.sum()).backward()
        gradients = tables.gradients()
        norm = sum(tables.squared_norms(gradients))
        tables.step(gradients, step, 0.01, scale=1 / (1 + norm**0.5))
    rest = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return torch.stack(outputs), rest, layer.values.weight.detach(), tables.state_tensors(), norm


def inputs(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(STEPS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype)


def on_a_rank(by: str, size: int, dtype: torch.dtype, settings: dict) -> tuple:
    distributed.init_process_group("gloo")
    try:
        shard = make_shard(by, min(size, distributed.get_world_size()))
        layer = make_layer(dtype, shard)
        rank, world = distributed.get_rank(), distributed.get_world_size()
        mine = inputs(dtype).chunk(world, dim=1)[rank]
        outputs, rest, table, state, norm = steps(layer, mine, settings)
        return outputs, rest, table, state, norm, (shard.rank, shard.size)
    finally:
        distributed.destroy_process_group()


def put_together(parts: list[torch.Tensor], by: str, size: int, shape: torch.Size) -> torch.Tensor:
    """A whole tensor of the parts of the first copy; all copies must be the same to the bit."""
    for place, part in enumerate(parts):
        assert torch.equal(part, parts[place % size])
    if by == "width" and len(shape) == 1:
        return parts[0]
    return torch.cat(parts[:size], dim=1 if by == "width" else 0)


def test_a_table_by_width_reads_and_learns_as_one_to_the_bit_and_gradients_agree():
    for settings in ({}, {"value_second_moment": "row"}):
        expected = steps(make_layer(torch.float32), inputs(torch.float32), settings)
        found = run_worlds(on_a_rank, (1, 2, 4), dict(by="width", size=4, dtype=torch.float32, settings=settings))
        for size, ranks in found.items():
            outputs = torch.cat([rank[0] for rank in ranks], dim=1)
            # one layer on the same tokens: a matrix product of other tokens may round otherwise
            alone = [make_layer(torch.float32)(part) for part in inputs(torch.float32)[0].chunk(size)]
            assert torch.equal(outputs[0], torch.cat(alone)), size
            torch.testing.assert_close(outputs, expected[0], rtol=1e-5, atol=1e-6)
            check(ranks, expected, "width", size, dict(rtol=1e-4, atol=1e-6))


@pytest.mark.parametrize(("by", "size"), [("width", 2), ("rows", 2), ("rows", 4), ("replicated", 1)])
def test_tables_over_ranks_and_copies_agree_with_one_in_float64(by, size):
    expected = steps(make_layer(torch.float64), inputs(torch.float64), {})
    arguments = dict(by="rows" if by == "replicated" else by, size=size, dtype=torch.float64, settings={})
    found = run_worlds(on_a_rank, (4,), arguments)
    outputs = torch.cat([rank[0] for rank in found[4]], dim=1)
    torch.testing.assert_close(outputs, expected[0], rtol=1e-11, atol=1e-12)
    check(found[4], expected, arguments["by"], size, dict(rtol=1e-9, atol=1e-11))


def check(ranks: list, expected: tuple, by: str, size: int, close: dict) -> None:
    _, rest, table, state, norm = expected
    for name, gradient in rest.items():  # of queries, keys, gates: each rank has its tokens' share
        torch.testing.assert_close(sum(rank[1][name] for rank in ranks), gradient, **close)
    torch.testing.assert_close(put_together([rank[2] for rank in ranks], by, size, table.shape), table, **close)
    for name, whole in state.items():
        parts = [rank[3][name] for rank in ranks]
        torch.testing.assert_close(put_together(parts, by, size, whole.shape), whole, **close)
    for rank in ranks:
        assert rank[4] == pytest.approx(norm, rel=close["rtol"])


def test_a_shared_out_table_draws_its_part_of_the_same_numbers():
    layer = MemoryLayer(WIDTH, 121, heads=1, top_k=4)
    torch.manual_seed(5)
    layer.values.reset_parameters()
    whole = layer.values.weight.detach().clone()
    for by in ("width", "rows"):
        for rank in range(4):
            other = MemoryLayer(WIDTH, 121, heads=1, top_k=4).values
            other.keep_shard(TableShard(by, None, rank, 4, 121, WIDTH))
            torch.manual_seed(5)
            other.reset_parameters()
            assert torch.equal(other.weight, other.shard.part(whole))
