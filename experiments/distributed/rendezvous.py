"""A store that processes share, with what earlier ones left in it -> a part of it that only the present ones use.

torchrun keeps its store when it starts ranks anew; the addresses of those that died would be taken for theirs, so that
every start needs a prefix of its own. TORCHELASTIC_RESTART_COUNT cannot be that prefix: an agent counts the failures of
its own machine's ranks only, not the starts that other machines' failures or joining machines cause (torch's
`SimpleElasticAgent`: "membership changes do not count as retries"). After one death among several machines the counts
may differ, and the ranks would wait for each other under different prefixes. So the ranks agree on one by a handshake:

1. Each rank writes a random word, its greeting of this start.
2. Rank 0 writes its own greeting, as the name of the start, followed by the greetings that it has read so far.
3. A rank that finds its greeting behind the name confirms the name; one that does not waits for a newer list.
4. Once all have confirmed it, the name is the prefix.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_PAUSE = 0.01  # seconds
_START = "memx/start"  # the name of the start and the greetings that rank 0 has read


def fresh_store(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """A part of the store that no earlier start has used, the same for all ranks of this start.

    Raises:
        TimeoutError: when the other ranks do not come.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    greeting, end = uuid4().hex, time.monotonic() + timeout.total_seconds()
    store.set(_greeting(rank), greeting)
    while time.monotonic() < end:
        name = _lead(store, size, greeting) if rank == 0 else _follow(store, rank, greeting)
        if name is not None:
            return PrefixStore(f"memx/{name}", store)
        time.sleep(_PAUSE)
    raise TimeoutError(f"rank {rank} of {size}: timed out waiting for the other ranks")


def _lead(store: Store, size: int, greeting: str) -> str | None:
    """Rank 0: publish the greetings; the name of this start once all ranks have confirmed it."""
    store.set(_START, " ".join([greeting, *(_read(store, _greeting(rank)) for rank in range(size))]))
    return greeting if all(_read(store, _confirmed(rank)) == greeting for rank in range(1, size)) else None


def _follow(store: Store, rank: int, greeting: str) -> str | None:
    """Other ranks: the name of this start, confirmed, once rank 0 has read this rank's greeting."""
    name, *greetings = _read(store, _START).split()
    if rank < len(greetings) and greetings[rank] == greeting:
        store.set(_confirmed(rank), name)
        return name
    return None


def _greeting(rank: int) -> str:
    return f"memx/greeting/{rank}"


def _confirmed(rank: int) -> str:
    return f"memx/confirmed/{rank}"


def _read(store: Store, key: str) -> str:
    """The value of a key, or - if there is none."""
    return store.get(key).decode() if store.check([key]) else "-"
