"""The processes that `torchrun` starts: rank and size from its environment -> one group that agrees, gathers and fails
together. Without torchrun the world is this process alone, and nothing here does anything. Torch is imported late.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...errors import MemxError
from ...results.store.runs import Run, RunStore, WatchedRun
from ..runtime.signals import Interrupted
from .rank_errors import LostRank, raise_first, told_by, understood
from .rendezvous import own_part

if TYPE_CHECKING:
    import torch

_Result = TypeVar("_Result")
_MARKS = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR")
_PLACE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
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

    def on_first(self, work: Callable[[], _Result], follow: Callable[[Any], Any] | None = None) -> _Result:
        """Run on rank 0 and give every rank the (picklable) result, or raise on every rank what it raised.

        follow: what the other ranks do meanwhile with each item that rank 0 broadcasts from its work.
        """
        if not self.joined:
            return work()
        done: Any = self.broadcast(_Done(*self._attempt(work)) if self.is_first else None)
        while not isinstance(done, _Done):
            assert follow is not None, "rank 0 broadcasts to ranks that do not follow"
            try:
                follow(done)
            except Exception as error:
                if not getattr(error, "told", False):
                    raise  # else rank 0 has met it too, and says how it ends
            done = self.broadcast(None)
        if done.error is not None:
            raise done.error
        return cast(_Result, done.result)

    def together(self, work: Callable[[], _Result]) -> _Result:
        """Run on every rank; this rank's own result. What one raised, the first of them, is raised on every rank."""
        if not self.joined:
            return work()
        result, error = self._attempt(work)
        raise_first(self.gather(error))
        return cast(_Result, result)

    def each(self, work: Callable[[], _Result]) -> list[_Result]:
        """`together`, with every rank's picklable result, by rank."""
        if not self.joined:
            return [work()]
        found = self.gather(self._attempt(work))
        raise_first([error for _, error in found])
        return [cast(_Result, result) for result, _ in found]

    def in_turn(self, work: Callable[[], _Result]) -> _Result:
        """`together`, on the first rank of each machine before the others, who find the files that it has made."""
        early = self.together(lambda: work() if self.local_rank == 0 else None)
        late = self.together(lambda: work() if self.local_rank else None)
        return cast(_Result, late if self.local_rank else early)

    def any(self, said: bool) -> bool:
        """Whether any rank says so."""
        return any(self.gather(said)) if self.joined else said

    def gather(self, item: _Result) -> list[_Result]:
        """Every rank's picklable item, by rank, on every rank."""
        if not self.joined:
            return [item]
        from torch import distributed

        found: list[Any] = [None] * self.size
        with self._collective():
            distributed.all_gather_object(found, item)
        return found

    def broadcast(self, item: _Result) -> _Result:
        """Rank 0's picklable item, on every rank."""
        if not self.joined:
            return item
        from torch import distributed

        held = [item]
        with self._collective():
            distributed.broadcast_object_list(held, src=0)
        return held[0]

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.joined:
            self.gather(None)

    @contextmanager
    def claimed(self, store: RunStore, name: str, *, resume: bool = False, force: bool = False) -> Iterator[Run]:
        """`RunStore.claim` by rank 0; the other ranks watch the same folder. Raises MemxError as that does."""
        with ExitStack() as stack:
            run = self.on_first(lambda: stack.enter_context(store.claim(name, resume=resume, force=force)))
            yield run if self.is_first else WatchedRun(run.folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, this process is none of torchrun's: for work of one rank that could itself be shared out."""
        kept = {name: os.environ.pop(name) for name in (*_MARKS, *_PLACE) if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(kept)

    def _attempt(self, work: Callable[[], _Result]) -> tuple[_Result | None, Exception | None]:
        """What work returns or raises; the latter in a form that can be sent. A lost rank is raised: nobody listens."""
        try:
            return work(), None
        except LostRank:
            raise
        except Exception as error:
            return None, told_by(self.rank, error)

    @contextmanager
    def _collective(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise understood(error, self.size) from error


@dataclass(frozen=True)
class _Done:
    """How rank 0's work ended."""

    result: Any
    error: Exception | None


def launched() -> World:
    """The place of this process as torchrun's environment tells it; alone where nothing does."""
    if not any(name in os.environ for name in _MARKS):
        return World()
    rank, size, local, local_size = (int(os.environ.get(name, default)) for name, default in _PLACE.items())
    return World(rank, size, local, local_size)


def is_quiet(error: BaseException) -> bool:
    """Whether rank 0 tells the user of this error, so that this rank need not."""
    same = isinstance(error, MemxError) and not getattr(error, "alone", False)
    return launched().rank > 0 and (getattr(error, "told", False) or same or isinstance(error, Interrupted))


def speaker() -> str:
    """What a line for the user begins with: the rank, on every rank but the first."""
    rank = launched().rank
    return f"rank {rank}: " if rank else ""


@contextmanager
def join(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, over nccl where they compute on CUDA and gloo elsewhere.

    Alone, nothing is started. Raises MemxError for more processes than CUDA devices; what a collective raises because a
    rank is gone becomes a `LostRank` that says so.
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
            store=own_part(shared, world.rank, world.size, _TIMEOUT),
            rank=world.rank,
            world_size=world.size,
            timeout=_TIMEOUT,
        )
        yield World(world.rank, world.size, world.local_rank, world.local_size, joined=True)
    except MemxError as error:
        if not getattr(error, "told", False):
            error.alone = True  # other ranks may not have met it
        raise
    except Exception as error:
        found = understood(error, world.size)
        if found is error:
            raise
        raise found from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _check_devices(world: World, devices: int) -> None:
    if world.local_size > devices:
        raise MemxError(
            f"{world.local_size} processes on this machine, and {devices} CUDA devices",
            hint=f"torchrun --nproc-per-node {devices}, or a device of cpu",
        )


def local_device(world: World, device: torch.device) -> torch.device:
    """The device of this rank: the CUDA device of its local rank where the run is on CUDA."""
    import torch

    return torch.device("cuda", world.local_rank) if device.type == "cuda" and world.joined else device
