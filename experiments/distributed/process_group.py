"""The processes that `torchrun` starts: rank and size from its environment -> one group that agrees, gathers and fails
together. Without torchrun the world is this process alone, and nothing here does anything. Torch is imported late.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from ...errors import MemxError
from ...results.store.runs import Run, RunStore, WatchedRun
from ..runtime.lifecycle import RunFailed
from ..runtime.signals import Interrupted
from .rank_errors import Attempt, UnsharedError, attempt, explained, is_shared, results
from .rendezvous import fresh_store

if TYPE_CHECKING:
    import torch

_Result = TypeVar("_Result")
_TORCHRUN = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR")  # of which one is there in a process that torchrun started
_PLACE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
_TIMEOUT = timedelta(hours=2)  # of a collective: the first rank may convert a model or ask questions for that long


@dataclass(frozen=True)
class World:
    """One process among all that torchrun started, and what it does with the others.

    Every rank has to call the same methods in the same order. `World` is the word of WORLD_SIZE; torch's own class
    `ProcessGroup` is what is joined beneath.

    Attributes:
        rank: this process, 0 to size - 1.
        size: how many processes there are on all machines.
        local_rank: this process among those of its machine.
        local_size: how many processes this machine has.
        joined: whether collectives work; False for a process alone, which does everything itself.
    """

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
        """Run work on rank 0, while the others wait.

        Returns:
            Rank 0's picklable result, on every rank.

        Raises:
            Exception: on every rank, what the work raised on rank 0.
        """
        if not self.joined:
            return work()
        done: Any = self.broadcast(attempt(self.rank, work) if self.is_first else None)
        return results([done])[0]

    def together(self, work: Callable[[], _Result]) -> _Result:
        """Run work on every rank.

        Returns:
            This rank's own result, which need not be picklable.

        Raises:
            Exception: on every rank, what the first rank that failed raised.
        """
        if not self.joined:
            return work()
        own = attempt(self.rank, work)
        results(self.gather(Attempt(self.rank, None, own.error, own.details)))
        return cast(_Result, own.result)

    def each(self, work: Callable[[], _Result]) -> list[_Result]:
        """`together`, with every rank's picklable result, by rank."""
        return results(self.gather(attempt(self.rank, work))) if self.joined else [work()]

    def in_turn(self, work: Callable[[], _Result]) -> _Result:
        """`together`, on the first rank of each machine before the others, who find the files that it has made."""
        early = self.together(lambda: work() if self.local_rank == 0 else None)
        late = self.together(lambda: work() if self.local_rank else None)
        return cast(_Result, late if self.local_rank else early)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return any(self.gather(flag))

    def gather(self, item: _Result) -> list[_Result]:
        """Every rank's picklable item, by rank, on every rank."""
        if not self.joined:
            return [item]
        from torch import distributed

        items: list[Any] = [None] * self.size
        with self._collective():
            distributed.all_gather_object(items, item)
        return items

    def broadcast(self, item: _Result) -> _Result:
        """Rank 0's picklable item, on every rank."""
        if not self.joined:
            return item
        from torch import distributed

        items = [item]
        with self._collective():
            distributed.broadcast_object_list(items, src=0)
        return items[0]

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.gather(None)

    @contextmanager
    def claimed(self, store: RunStore, name: str, *, resume: bool = False, force: bool = False) -> Iterator[Run]:
        """`RunStore.claim` by rank 0; the other ranks watch the same folder. Raises MemxError as that does."""
        with ExitStack() as stack:
            run = self.on_first(lambda: stack.enter_context(store.claim(name, resume=resume, force=force)))
            yield run if self.is_first else WatchedRun(run.folder)

    @contextmanager
    def _collective(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            _raise_explained(error, self.size)


def launched() -> World:
    """The place of this process as torchrun's environment tells it; a world of one without torchrun."""
    if not any(name in os.environ for name in _TORCHRUN):
        return World()
    rank, size, local, local_size = (int(os.environ.get(name, default)) for name, default in _PLACE.items())
    return World(rank, size, local, local_size)


@contextmanager
def without_torchrun() -> Iterator[None]:
    """Inside, torchrun's environment is hidden: for work of one rank that would else share itself out over all."""
    hidden = {name: os.environ.pop(name) for name in (*_TORCHRUN, *_PLACE) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def is_quiet(error: BaseException) -> bool:
    """Whether rank 0 tells the user of this error, so that this rank need not.

    A mistake that was met before the ranks joined is in what all of them read, and so is met by all.
    """
    # so are numbers that are not finite, as the loss is that of all ranks
    everywhere = isinstance(error, MemxError | RunFailed) and not isinstance(error, UnsharedError)
    return launched().rank > 0 and (is_shared(error) or everywhere or isinstance(error, Interrupted))


def line_prefix() -> str:
    """What a line for the user begins with: the rank, on every rank but the first."""
    rank = launched().rank
    return f"rank {rank}: " if rank else ""


@contextmanager
def join(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, over nccl where they compute on CUDA and gloo elsewhere.

    Args:
        device: of the run's config; "cpu" never takes nccl.

    Yields:
        The joined world; without torchrun a world of one, for which nothing is started.

    Raises:
        MemxError: for more processes than CUDA devices.
        UnsharedError: for a MemxError that only this rank may have met.
        LostRank: when a collective failed because another rank is gone.
    """
    world = launched()
    if world.size == 1:
        yield world
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        _check_devices(world, torch.cuda.device_count())
        torch.cuda.set_device(world.local_rank)
    try:
        shared, *_ = next(rendezvous("env://", timeout=_TIMEOUT))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=fresh_store(shared, world.rank, world.size, _TIMEOUT),
            rank=world.rank,
            world_size=world.size,
            timeout=_TIMEOUT,
        )
        yield replace(world, joined=True)
    except MemxError as error:
        if is_shared(error):
            raise
        raise UnsharedError(error.message, hint=error.hint) from error
    except Exception as error:
        _raise_explained(error, world.size)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _raise_explained(error: Exception, ranks: int) -> NoReturn:
    explanation = explained(error, ranks)
    if explanation is error:
        raise error
    raise explanation from error


def _check_devices(world: World, devices: int) -> None:
    if world.local_size > devices:
        raise MemxError(
            f"{world.local_size} processes on this machine but only {devices} CUDA devices",
            hint=f"use torchrun --nproc-per-node {devices}, or the device cpu",
        )


def local_device(world: World, device: torch.device) -> torch.device:
    """The device of this rank: the CUDA device of its local rank where the run is on CUDA."""
    import torch

    return torch.device("cuda", world.local_rank) if device.type == "cuda" and world.joined else device
