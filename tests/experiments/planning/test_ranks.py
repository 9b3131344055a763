"""What a plan says that one GPU of several holds, against what a process of several does hold."""

from pathlib import Path

import pytest
import torch
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.distributed.process_group import join
from memx.experiments.distributed.sharding import ShardedParallelism
from memx.experiments.models.build import llama_config, prepare_tables
from memx.experiments.optim.optimizer import Optimizer
from memx.experiments.planning.estimate import cost_of
from memx.experiments.planning.mesh import Plan
from memx.experiments.training.loss import text_loss
from memx.memory_layers.llama import MemoryLlamaForCausalLM, make_weights, tables_of
from torch.distributed.tensor import DTensor

from tests.ranks import run_worlds

CORPUS = {"corpus.sources": ["nowhere"], "memory.kind": "memory+", "memory.layers": [0, 1], "data.vocabulary": 300,
          "training.batch": 8, "training.accumulate": 2}  # fmt: skip


def point_of(changes):
    (point,) = plan(load_config("tiny", {**CORPUS, **changes}.items()))
    return point


def local_bytes(tensors):
    held = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


def hold(changes):
    """Bytes that this rank holds after the backward passes of one step, and after the step."""
    config = point_of(changes).config
    with join("cpu") as world:
        parallelism = ShardedParallelism(config, world, torch.device("cpu"))
        with torch.device("meta"):
            model = MemoryLlamaForCausalLM(llama_config(config, config.data.vocabulary))
        parallelism.shard_tables(model)
        make_weights(model, 0)
        prepare_tables(model, config)
        parallelism.shard_dense(model, torch.device("cpu"))
        optimizer = Optimizer(model, config.training)
        rows = config.training.batch // world.size // config.training.accumulate
        for part in range(config.training.accumulate):
            generator = torch.Generator().manual_seed(100 * world.rank + part)
            blocks = torch.randint(config.data.vocabulary, (rows, config.data.sequence), generator=generator)
            text_loss(model, blocks).backward()
        tables = tables_of(model)
        of_tables = {id(table.weight) for table in tables}
        dense = [parameter for parameter in model.parameters() if id(parameter) not in of_tables]
        parts = [part for table in tables for part in table.gradient_buffer or []]
        found = {
            "weights": local_bytes(dense),
            "gradients": local_bytes(parameter.grad for parameter in dense if parameter.grad is not None),
            "table": local_bytes(table.weight for table in tables),
            "step's reads": local_bytes(tensor for part in parts for tensor in part if tensor is not None),
        }
        optimizer.step(0)
        state = {name: tensor for name, tensor in optimizer.state_tensors().items() if not name.endswith("/step")}
        of_table = [name for name in state if name.startswith("tables/")]
        found["table optimizer"] = local_bytes(state.pop(name) for name in of_table)
        found["optimizer"] = local_bytes(state.values())
        return found


@pytest.mark.parametrize(
    ("ranks", "changes"),
    [
        (2, {}),
        (2, {"parallel.table": "replicated", "training.value_second_moment": "row"}),
        (4, {"parallel.table_ranks": 2, "parallel.shard": 2}),
    ],
    ids=["width", "replicated", "copies"],
)
def test_a_rank_holds_what_the_plan_says(ranks, changes):
    """Exactly, on the first rank, and no rank more."""
    planned = cost_of(point_of(changes), Path("runs"), Plan(ranks)).plan.bytes
    held = run_worlds(hold, (ranks,), {"changes": changes})[ranks]
    assert held[0] == {name: planned[name] for name in held[0]}
    assert all(rank[name] <= held[0][name] for rank in held for name in rank)
