"""Micro-batches of a step, interleaved: while the table rows of one are fetched, another computes.

The rows that a memory layer reads follow from hidden states, so those of the next micro-batch are known only once its
forward pass has come to the layer. Forward passes therefore run in threads that take turns: one computes at a time, and
when a lookup has asked for its rows (`memory_layers/tables/host_rows.py`) the turn goes to the next micro-batch. Turns
go round in a fixed order, whatever takes how long: gradients, statistics and collectives come in the same order each
time and on every rank, and each micro-batch computes what it would alone, to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from itertools import chain, islice
from threading import Semaphore, Thread
from typing import Any, Generic, TypeVar

import torch

from ...memory_layers.tables.host_rows import before_waiting

Part = TypeVar("Part")
Found = TypeVar("Found")


def run_overlapped(
    parts: Iterable[Part],
    forward: Callable[[Part], Found],
    backward: Callable[[Found], object],
    *,
    ahead: int = 1,
    turn: Callable[[Part], object] = lambda part: None,
) -> None:
    """Run forward and then backward for every part: backward in the caller's thread and in the order of the parts.

    parts: taken as they are needed. ahead: forward passes that may have begun before that of a part is through, each of
    which holds its activations; 0 runs one part after another. turn: called with a part, in the caller's thread, before
    its forward begins and each time it goes on, to set what is kept outside of it, as the mask that statistics of use
    count by. Forward passes run with the caller's grad mode, autocast, threads and CUDA stream; the rest of what torch
    keeps by thread they must set themselves. Autocast's cache, which threads would share, is off where parts run ahead:
    a weight that a forward pass uses twice is cast twice. Whatever a forward or backward raises ends all and is raised.
    """
    left = iter(parts)
    first = [*islice(left, 1 + (ahead > 0))]
    left, under_way = chain(first, left), deque[_Forward[Part, Found]]()
    if len(first) < 2:
        for part in left:
            turn(part)
            backward(forward(part))
        return

    def go_on(one: _Forward[Part, Found]) -> None:
        turn(one.part)
        one.go_on()

    def begin() -> None:
        for part in islice(left, 1):
            under_way.append(_Forward(part, forward))
            go_on(under_way[-1])

    try:
        for _ in range(ahead + 1):
            begin()
        while under_way:
            for one in tuple(under_way):
                if not one.ended:
                    go_on(one)
                while under_way and under_way[0].ended:
                    backward(under_way.popleft().found())
                    begin()
    finally:
        for one in under_way:
            one.stop()


class _Stopped(BaseException):
    """Raised in a forward pass that nobody needs any more."""


class _Forward(Generic[Part, Found]):
    """The forward pass of one part, in a thread that computes only while it has the turn."""

    def __init__(self, part: Part, forward: Callable[[Part], Found]) -> None:
        self.part, self.ended = part, False
        self._forward, self._settings = forward, _Settings()
        self._given, self._back = Semaphore(0), Semaphore(0)
        self._stopping = False
        self._found: list[Found] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=copy_context().run, args=(self._run,), name="memx-forward", daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Give it the turn until it waits for rows or ends. Raises what it raised."""
        self._given.release()
        self._back.acquire()  # a signal's exception comes through here
        if self._error is not None:
            raise self._error

    def found(self) -> Found:
        """What it returned, once."""
        self._thread.join()
        return self._found.pop()

    def stop(self) -> None:
        """End it where it waits next, and wait for that."""
        self._stopping = True
        self._given.release()
        self._thread.join()

    def _run(self) -> None:
        self._given.acquire()
        try:
            if not self._stopping:
                with self._settings.apply(), before_waiting(self._give_way):
                    self._found.append(self._forward(self.part))
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.ended = True
            self._back.release()

    def _give_way(self) -> None:
        self._back.release()
        self._given.acquire()
        if self._stopping:
            raise _Stopped


class _Settings:
    """What torch keeps for each thread, as it is in the one that makes this."""

    def __init__(self) -> None:
        self.threads, self.grad = torch.get_num_threads(), torch.is_grad_enabled()
        self.autocast: dict[str, Any] = {
            device: torch.get_autocast_dtype(device) for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)
        }
        self.stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Have them in this thread."""
        torch.set_num_threads(self.threads)
        torch.set_autocast_cache_enabled(False)
        with ExitStack() as stack:
            if self.stream is not None:
                torch.cuda.set_device(self.stream.device)
                stack.enter_context(torch.cuda.stream(self.stream))
            stack.enter_context(torch.set_grad_enabled(self.grad))
            for device, dtype in self.autocast.items():
                stack.enter_context(torch.autocast(device, dtype, cache_enabled=False))
            yield
