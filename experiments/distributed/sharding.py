"""Training over several processes: config and world -> device meshes, shards of weights and tables, sums over ranks.

Every rank computes other rows of a batch. Dense weights are sharded by FSDP2 over `parallel.shard` ranks and replicated
over the rest; value tables over `parallel.table_ranks` ranks, by width or rows, and replicated over the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, Shard

from ...errors import MemxError
from ...memory_layers.llama import MemoryLlamaForCausalLM, tables_of
from ...memory_layers.tables.exchange import total
from ...memory_layers.tables.table_shards import TableShard
from ...memory_layers.tables.values import MemoryValues
from ...torch_compat import sum_gradients
from ..config.training import TrainConfig
from ..data.batches import Batch
from .process_group import World
from .refusals import check_parallelism


class ShardedParallelism:
    """One of several processes: `Parallelism` over device meshes, for a world whose collectives work."""

    def __init__(self, config: TrainConfig, world: World, device: torch.device) -> None:
        """Make the meshes; every rank calls this. Raises MemxError for a config that so many ranks cannot train."""
        assert world.joined, "one process needs no mesh"
        check_parallelism(config, world.size)
        self.world, self.by = world, config.parallel.table
        shard = config.parallel.shard or world.size
        held = 1 if self.by == "replicated" else config.parallel.table_ranks or world.size
        self.dense = init_device_mesh(device.type, (world.size // shard, shard), mesh_dim_names=("replicate", "shard"))
        self.tables = init_device_mesh(device.type, (world.size // held, held), mesh_dim_names=("copies", "table"))
        # what is saved is a DTensor, which must lie where its mesh computes: on the host, if the tables do
        at = "cpu" if config.parallel.host_values else device.type
        self.saved = self.tables if at == device.type else init_device_mesh(at, tuple(self.tables.shape))

    def table_shard(self, slots: int, width: int) -> TableShard:
        """This rank's part of a table [slots, width]."""
        copies, group = self.tables["copies"], self.tables["table"]
        return TableShard(
            "width" if self.by == "width" else "rows",
            group.get_group(),
            group.get_local_rank(),
            group.size(),
            slots,
            width,
            copies.get_group() if copies.size() > 1 else None,
        )

    def shard_tables(self, model: nn.Module) -> None:
        """Cut every table of a model to this rank's part."""
        for table in tables_of(model):
            table.keep_shard(self.table_shard(*table.shape))

    @torch.no_grad()
    def shard_dense(self, model: MemoryLlamaForCausalLM, device: torch.device) -> None:
        """Shard all weights but the tables' by FSDP2, block by block. Gradients are summed over ranks, not averaged.

        All of the model is on the device then, tables in host memory excepted.
        """
        blocks: Any = model.model.layers
        for unit in [*blocks, model]:
            ignored = {parameter for table in tables_of(unit) for parameter in table.parameters()}
            fully_shard(unit, mesh=self.dense, ignored_params=cast(Any, ignored))
            sum_gradients(unit)  # losses are divided by the tokens of all ranks already
        register_fsdp_forward_method(model, "logits_at")
        nn.Module.to(model, device)
        # FSDP takes for its root whatever is called first, which is to be the model and not a part of it
        one = torch.zeros(1, 1, dtype=torch.int64, device=device)
        model.logits_at(one[0], one)
        cast(FSDPModule, model).reshard()

    def rows_of(self, batch: Batch) -> Batch:
        """This rank's rows: as many on every rank, some of them padding, since every rank must join each collective."""
        rows = -(-len(batch.tokens) // self.world.size)
        lacking = rows * self.world.size - len(batch.tokens)
        own = slice(self.world.rank * rows, (self.world.rank + 1) * rows)
        fills = (0, 0, -1, -100)  # of tokens, positions, documents, labels
        padded = (nn.functional.pad(x, (0, 0, 0, lacking), value=fill) for x, fill in zip(batch, fills, strict=True))
        return Batch(*(x[own] for x in padded))

    def totals(self, figures: Sequence[float]) -> list[float]:
        """Each figure summed over the ranks, in float64."""
        summed = torch.tensor(figures, dtype=torch.float64)
        distributed.all_reduce(summed)
        return summed.tolist()

    def total(self, x: Tensor) -> Tensor:
        """The sum of every rank's x."""
        return total(x, None)

    def as_saved(self, tensor: Tensor, table: MemoryValues | None) -> Tensor:
        """A tensor as a distributed checkpoint takes it; one of a table's rows says which part of the whole it is."""
        if table is None or table.shard is None:
            return tensor
        shard = table.shard
        if shard.by == "rows" or tensor.dim() > 1:
            dim = 0 if shard.by == "rows" else 1
            shape = torch.Size((shard.slots, shard.width)[: tensor.dim()])
            stride = (shape[-1], 1) if len(shape) == 2 else (1,)
            places = [Replicate(), Shard(dim)]
            return DTensor.from_local(tensor, self.saved, places, run_check=False, shape=shape, stride=stride)
        return tensor

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Dense weights gathered on every rank inside, for whatever calls parts of a model; all ranks do the same."""
        assert isinstance(model, FSDPModule)
        model.unshard()
        try:
            yield
        finally:
            model.reshard()

    def keep_gathered(self, model: nn.Module, ahead: int) -> AbstractContextManager[None]:
        """See `keep_gathered`."""
        return keep_gathered(model, ahead)


@contextmanager
def keep_gathered(model: nn.Module, ahead: int) -> Iterator[None]:
    """Inside, weights that FSDP has gathered once stay gathered: another micro-batch may be halfway through a block.

    Afterwards every block is sharded again, and after each use, as FSDP does by default. Nothing happens for a model
    without FSDP, or for ahead=0.

    Args:
        model: what is trained.
        ahead: micro-batches whose forward pass may have begun before that of another has ended.

    Raises:
        MemxError: more than one is ahead; FSDP shards a block again after the second of the forward passes in it.
    """
    units = [module for module in model.modules() if isinstance(module, FSDPModule)] if ahead else []
    if units and ahead > 1:
        raise MemxError(
            f"parallel.prefetch {ahead} is above 1, the limit with sharded dense weights",
            hint="set parallel.prefetch to 0 or 1",
        )
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.set_reshard_after_backward(False, recurse=False)
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not model, recurse=False)
            unit.set_reshard_after_backward(True, recurse=False)
            unit.reshard()
