"""From a table in host memory to a device: the slots of a lookup -> the rows that they name, copied there.

S slots, U rows, of width D. Rows are gathered into two pieces of staging memory, pinned where CUDA is, and copied from
each while the other fills; so the table itself need not be pinned, and lies in large pages like any other.

    gather rows  0..r  -> piece 0 |  copy piece 0 to the device
                                  |  gather rows r..2r -> piece 1  |  copy piece 1
                                                                   |  wait for the copy of piece 0, fill it again
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from ...kernels import native
from ...kernels.embedding_bag.sorting import sort_slots

_PIECE = 8 << 20  # bytes of either piece of staging memory


@dataclass
class ReadStats:
    """What the reads of a table cost.

    Attributes:
        lookups: How many there were.
        slots: Their slots.
        rows: Their distinct rows.
        bytes: Of those rows.
        unique: Seconds to find distinct rows; on CUDA to launch that, as nobody waits for it.
        gather: Seconds of the other thread into staging memory.
        copy: Seconds of the other thread, or of the copy engine, to the device.
        waited: Seconds of the computing thread with nothing else to do.
    """

    lookups: int = 0
    slots: int = 0
    rows: int = 0
    bytes: int = 0
    unique: float = 0.0
    gather: float = 0.0
    copy: float = 0.0
    waited: float = 0.0

    def count(self, slots: int, rows: int, size: int) -> None:
        """Count one lookup of so many slots, distinct rows and bytes of those."""
        self.lookups += 1
        self.slots += slots
        self.rows += rows
        self.bytes += size


def distinct(slots: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of a lookup.

    Args:
        slots: [...], S of them.

    Returns:
        The rows [S + 1], ascending, zeros behind them, and their number U as the last entry: so the shape does not
        depend on U, and a GPU is not waited for. And the place of each slot's row among them, [...].
    """
    if slots.numel() == 0:
        return slots.new_zeros(1, dtype=torch.int64), slots.long()
    ordered, order = sort_slots(slots.flatten().long())
    number = torch.zeros_like(ordered)
    number[1:] = ordered[1:] != ordered[:-1]
    number = number.cumsum(0)
    rows = ordered.new_zeros(len(ordered) + 1)
    rows.scatter_(0, number, ordered)  # where several write, all write the same
    rows[-1:] = number[-1:] + 1
    return rows, torch.empty_like(order).scatter_(0, order, number).view_as(slots)


class Staging:
    """From a table to one device, through two pieces of staging memory. All of it is used by one thread."""

    def __init__(self, values: Tensor, device: torch.device) -> None:
        self.device, cuda = device, device.type == "cuda"
        self.rows = max(1, _PIECE // max(1, values.shape[1] * values.itemsize))
        shape = (self.rows, values.shape[1])
        self.pieces = [torch.empty(shape, dtype=values.dtype, device="cpu", pin_memory=cuda) for _ in range(2)]
        self.stream = torch.cuda.Stream(device) if cuda else None
        self.copies: list[tuple[Any, Any] | None] = [None, None]  # when each piece's began and ended

    def suits(self, values: Tensor, device: torch.device) -> bool:
        """Whether it was made for tables of this dtype and width, and for this device."""
        piece = self.pieces[0]
        return device == self.device and values.dtype == piece.dtype and values.shape[1] == piece.shape[1]

    def bring(self, values: Tensor, rows: Tensor, stats: ReadStats) -> tuple[Tensor, Any]:
        """The rows on the device, and an event of when they are there, or None if they are."""
        with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
            row_values = torch.empty(len(rows), values.shape[1], dtype=values.dtype, device=self.device)
            for number, start in enumerate(range(0, len(rows), self.rows)):
                which, part = number % 2, rows[start : start + self.rows]
                self._wait_for(which, stats)
                piece = self.pieces[which][: len(part)]
                began = perf_counter()
                _gather(values, part, piece, alone=self.stream is None)
                stats.gather += perf_counter() - began
                self._copy(which, piece, row_values[start : start + self.rows], stats)
            return row_values, None if self.stream is None else self.stream.record_event()

    def _copy(self, which: int, piece: Tensor, to: Tensor, stats: ReadStats) -> None:
        if self.stream is None:
            began = perf_counter()
            to.copy_(piece)
            stats.copy += perf_counter() - began
            return
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        events[0].record(self.stream)
        to.copy_(piece, non_blocking=True)
        events[1].record(self.stream)
        self.copies[which] = events

    def _wait_for(self, which: int, stats: ReadStats) -> None:
        events, self.copies[which] = self.copies[which], None
        if events is not None:
            events[1].synchronize()
            stats.copy += events[0].elapsed_time(events[1]) / 1e3


def to_pinned(x: Tensor) -> Tensor:
    """Start to copy x from a CUDA device to pinned memory; the stream says when it is there."""
    return torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=True).copy_(x.detach(), non_blocking=True)


def _gather(values: Tensor, rows: Tensor, out: Tensor, *, alone: bool) -> None:
    """out = values[rows]. alone: on one thread, because the others compute."""
    if native.available(values) and values.is_contiguous():
        native.gather(values, rows, out, **({"least": len(rows)} if alone else {}))
    else:
        torch.index_select(values, 0, rows, out=out)
