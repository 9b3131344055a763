"""A store that processes share, with what earlier ones left in it -> a part of it that only the present ones use.

torchrun keeps its store when it starts ranks anew; the addresses of those that died would be taken for theirs.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_PAUSE = 0.01  # seconds
_WORLD = "memx/world"


def own_part(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """The part of this start, for the ranks that are here now. Raises TimeoutError if they do not come."""
    from torch.distributed.distributed_c10d import PrefixStore

    mine, end = uuid4().hex, time.monotonic() + timeout.total_seconds()
    store.set(_hello(rank), mine)
    while time.monotonic() < end:
        name = _gather(store, size, mine) if rank == 0 else _answer(store, rank, mine)
        if name is not None:
            return PrefixStore(f"memx/{name}", store)
        time.sleep(_PAUSE)
    raise TimeoutError(f"rank {rank} of {size} has waited for the others in vain")


def _gather(store: Store, size: int, mine: str) -> str | None:
    """Rank 0: tell what every rank has said last, until all have found what they said just now."""
    store.set(_WORLD, " ".join([mine, *(_read(store, _hello(rank)) for rank in range(size))]))
    return mine if all(_read(store, _seen(rank)) == mine for rank in range(1, size)) else None


def _answer(store: Store, rank: int, mine: str) -> str | None:
    """Other ranks: what rank 0 has named this start, once it has heard of this rank's."""
    name, *heard = _read(store, _WORLD).split()
    if rank < len(heard) and heard[rank] == mine:
        store.set(_seen(rank), name)
        return name
    return None


def _hello(rank: int) -> str:
    return f"memx/hello/{rank}"


def _seen(rank: int) -> str:
    return f"memx/seen/{rank}"


def _read(store: Store, key: str) -> str:
    """What is there, or - if nothing is."""
    return store.get(key).decode() if store.check([key]) else "-"
