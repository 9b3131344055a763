"""How a training run lies over processes: one interface, and its identity for a process that is alone.

What trains, evaluates and saves calls these methods and never asks how many processes there are. Several processes
have `sharding.ShardedParallelism`, which is imported only where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from ..config.training import TrainConfig
from ..data.batches import Batch
from .process_group import World

if TYPE_CHECKING:
    from ...memory_layers.llama import MemoryLlamaForCausalLM
    from ...memory_layers.tables.values import MemoryValues


class Parallelism(Protocol):
    """What the processes of one run share, and how. All ranks call each method, and in the same order."""

    @property
    def world(self) -> World:
        """The processes of the run."""
        ...

    def shard_tables(self, model: MemoryLlamaForCausalLM) -> None:
        """Cut every value table of a model to this rank's part, before the table takes memory."""
        ...

    def shard_dense(self, model: MemoryLlamaForCausalLM, device: torch.device) -> None:
        """Move a model to the device, and cut all weights but the tables' to this rank's part."""
        ...

    def rows_of(self, batch: Batch) -> Batch:
        """This rank's rows of a batch [R, S] that every rank has."""
        ...

    def totals(self, figures: Sequence[float]) -> list[float]:
        """Each figure, summed over the ranks."""
        ...

    def total(self, x: Tensor) -> Tensor:
        """The sum of every rank's x."""
        ...

    def as_saved(self, tensor: Tensor, table: MemoryValues | None) -> Tensor:
        """A tensor as a distributed checkpoint takes it: of a table's rows the part that says where it belongs."""
        ...

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside, every rank has all dense weights of a model, for whatever calls parts of it."""
        ...

    def keep_gathered(self, model: nn.Module, ahead: int) -> AbstractContextManager[None]:
        """Inside, micro-batches of a training step may run ahead of each other (see `sharding.keep_gathered`)."""
        ...


class SingleProcess:
    """`Parallelism` of a process that is alone: nothing is cut, summed or gathered."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()

    def shard_tables(self, model: MemoryLlamaForCausalLM) -> None:
        """Leave the tables whole."""

    def shard_dense(self, model: MemoryLlamaForCausalLM, device: torch.device) -> None:
        """Move the model to the device."""
        nn.Module.to(model, device)  # transformers types its own .to too narrowly

    def rows_of(self, batch: Batch) -> Batch:
        """All of them."""
        return batch

    def totals(self, figures: Sequence[float]) -> list[float]:
        """The figures."""
        return list(figures)

    def total(self, x: Tensor) -> Tensor:
        """The tensor."""
        return x

    def as_saved(self, tensor: Tensor, table: MemoryValues | None) -> Tensor:
        """The tensor."""
        return tensor

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        """The weights are whole already."""
        return nullcontext()

    def keep_gathered(self, model: nn.Module, ahead: int) -> AbstractContextManager[None]:
        """Nothing is gathered."""
        return nullcontext()


def make_parallelism(config: TrainConfig, world: World, device: torch.device) -> Parallelism:
    """Lay a run out over its processes.

    Args:
        config: of the run.
        world: the processes that share it; one that is not joined stands for this process alone.
        device: that this process computes on.

    Returns:
        The identity for one process, else this rank's view of the meshes.

    Raises:
        MemxError: so many processes cannot train this config.
    """
    if not world.joined:
        return SingleProcess(world)
    from .sharding import ShardedParallelism  # brings torch.distributed and FSDP

    return ShardedParallelism(config, world, device)
