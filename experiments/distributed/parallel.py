"""How one training run lies over the processes of torchrun: config and world -> meshes, shares, sums over ranks.

Every rank sees other rows of a batch. Dense weights are sharded by FSDP2 over `parallel.shard` ranks and replicated
over the rest; value tables over `parallel.table_ranks` ranks, by width or rows, and replicated over the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


class Parallelism:
    """Meshes of a joined world. Raises MemxError for a config that cannot be laid out over so many ranks."""

    def __init__(self, config: TrainConfig, world: World, device: torch.device) -> None:
        assert world.joined, "one process needs no layout"
        check_layout(config, world.size)
        self.world, self.by = world, config.parallel.table
        shard = config.parallel.shard or world.size
        held = 1 if self.by == "replicated" else config.parallel.table_ranks or world.size
        self.dense = init_device_mesh(device.type, (world.size // shard, shard), mesh_dim_names=("replicate", "shard"))
        self.tables = init_device_mesh(device.type, (world.size // held, held), mesh_dim_names=("copies", "table"))
        # a DTensor lies where its mesh computes
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
            sum_gradients(unit)
        register_fsdp_forward_method(model, "logits_at")
        nn.Module.to(model, device)
        # FSDP takes for its root whatever is called first, which is to be the model and not a part of it
        one = torch.zeros(1, 1, dtype=torch.int64, device=device)
        model.logits_at(one[0], one)
        cast(FSDPModule, model).reshard()

    def share_of(self, part: Batch) -> Batch:
        """This rank's rows of a part of a batch: as many on every rank, some of them padding."""
        rows = -(-len(part.tokens) // self.world.size)
        lacking = rows * self.world.size - len(part.tokens)
        mine = slice(self.world.rank * rows, (self.world.rank + 1) * rows)
        fills = (0, 0, -1, -100)  # of tokens, positions, documents, labels
        padded = (nn.functional.pad(x, (0, 0, 0, lacking), value=fill) for x, fill in zip(part, fills, strict=True))
        return Batch(*(x[mine] for x in padded))

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


def check_layout(config: TrainConfig, ranks: int) -> None:
    """Raise MemxError unless a run of this config can be laid out over so many ranks."""
    for name, share in (("shard", config.parallel.shard), ("table_ranks", config.parallel.table_ranks)):
        if share is not None and ranks % share:
            raise MemxError(
                f"parallel.{name} {share} does not divide the {ranks} processes", hint=f"set it to a divisor of {ranks}"
            )
    if config.finetune.train in ("lora", "slots"):
        raise MemxError(f"finetune.train {config.finetune.train} runs in one process", hint="run it without torchrun")
    if config.training.value_optimizer == "dense" and config.memory.slots:
        raise MemxError(
            "training.value_optimizer dense runs in one process", hint="set it to sparse, or run without torchrun"
        )
    if config.parallel.host_values and config.parallel.prefetch > 1:
        raise MemxError(
            f"parallel.prefetch {config.parallel.prefetch}: over several processes one micro-batch may run ahead",
            hint="set parallel.prefetch to 0 or 1",
        )
    if config.memory.kind == "peer" and config.parallel.table != "replicated":
        raise MemxError("PEER's tables are not shared out", hint="set parallel.table=replicated")
