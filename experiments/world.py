"""The processes that `torchrun` starts: rank and size from its environment -> one group that agrees, gathers and fails
together. Without torchrun the world is this process alone, and nothing here does anything. Torch is imported late.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import MemxError

if TYPE_CHECKING:
    import torch

_Result = TypeVar("_Result")
_TIMEOUT = timedelta(hours=2)  # of a collective: the first rank may convert a model or ask questions for that long


@dataclass(frozen=True)
class World:
    """One process among `size`: rank of all, local_rank and local_size of this machine's. joined: collectives work."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    joined: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def on_first(self, work: Callable[[], _Result]) -> _Result:
        """Run on rank 0 and give every rank the (picklable) result, or raise on every rank what it raised."""
        if not self.joined:
            return work()
        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told[0] = work()
            except Exception as error:
                told[1] = error
        self._broadcast(told)
        if told[1] is not None:
            setattr(told[1], "told", True)  # noqa: B010 - to the user, by rank 0
            raise told[1]
        return cast(_Result, told[0])

    def any(self, said: bool) -> bool:
        """Whether any rank says so."""
        return any(self.gather(said)) if self.joined else said

    def gather(self, item: _Result) -> list[_Result]:
        """Every rank's picklable item, by rank, on every rank."""
        if not self.joined:
            return [item]
        from torch import distributed

        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, item)
        return found

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.joined:
            self.gather(None)

    def _broadcast(self, items: list[Any]) -> None:
        from torch import distributed

        distributed.broadcast_object_list(items, src=0)


def launched() -> World:
    """The place of this process as torchrun's environment tells it; alone where nothing does."""
    if "TORCHELASTIC_RUN_ID" not in os.environ and "MASTER_ADDR" not in os.environ:
        return World()
    rank, size, local, local_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
    )
    return World(rank, size, local, local_size)


def is_quiet(error: BaseException) -> bool:
    """Whether rank 0 tells the user of this error, so that this rank need not."""
    same = isinstance(error, MemxError) and not getattr(error, "alone", False)
    return launched().rank > 0 and (getattr(error, "told", False) or same)


def speaker() -> str:
    """What a line for the user begins with: the rank, on every rank but the first."""
    rank = launched().rank
    return f"rank {rank}: " if rank else ""


@contextmanager
def join(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, over nccl where they compute on CUDA and gloo elsewhere.

    Alone, nothing is started. Inside, an error of a collective is a `RuntimeError` that says a rank was lost.
    """
    world = launched()
    if world.size == 1:
        yield world
        return
    import torch
    from torch import distributed

    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(world.local_rank)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_TIMEOUT)
    try:
        yield World(world.rank, world.size, world.local_rank, world.local_size, joined=True)
    except MemxError as error:
        if not getattr(error, "told", False):
            error.alone = True  # other ranks may not have met it
        raise
    except Exception as error:
        raise _understood(error, world) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def local_device(world: World, device: torch.device) -> torch.device:
    """The device of this rank: the CUDA device of its local rank where the run is on CUDA."""
    import torch

    return torch.device("cuda", world.local_rank) if device.type == "cuda" and world.joined else device


_LOST = ("connection closed", "connection reset", "broken pipe", "timed out", "socket", "gloo", "nccl", "recvvalue")


def _understood(error: Exception, world: World) -> Exception:
    """What a failed collective means: another rank is gone. Other errors stay what they are."""
    from torch import distributed

    names: Sequence[str] = ("DistBackendError", "DistNetworkError", "DistStoreError")
    kinds = tuple(getattr(distributed, name) for name in names if hasattr(distributed, name))
    text = str(error).lower()
    lost = isinstance(error, kinds) or (type(error) is RuntimeError and any(sign in text for sign in _LOST))
    if not lost:
        return error
    first = str(error).splitlines()[0][:160]
    return RuntimeError(
        f"rank {world.rank} of {world.size} has lost another rank, so the run ends here; --resume goes on from the "
        f"last saved state ({first})"
    )
