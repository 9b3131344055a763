"""Use of a table: the slots of each lookup -> share of slots used and KL from uniform, over a window.

Kept up step by step at the cost of the slots looked up; no step reads the whole table.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import NamedTuple

import torch
from torch import Tensor


class Usage(NamedTuple):
    """How evenly the slots of a table were used.

    Attributes:
        used: Share of the slots that were looked up at least once, 0 to 1.
        kl: Kullback-Leibler divergence of the lookups from a uniform distribution, in nats; 0 is equal use.
        lookups: Number of lookups.
    """

    used: float
    kl: float
    lookups: int


class UsageWindow:
    """Counts which slots a memory layer looks up: set `layer.observe = window.add`, then call `window.read()`.

    Args:
        slots: Number of slots N of the table.
        device: Device of the counts [N]; that of the layer.

    Attributes:
        counts: Lookups of each slot since the last reset [N].
        mask: Which tokens [T] of the next lookup to count, bool; set it to leave out padding. None: all.
    """

    def __init__(self, slots: int, device: torch.device | str = "cpu") -> None:
        self.slots = slots
        self.mask: Tensor | None = None
        self.counts = torch.zeros(slots, dtype=torch.int32, device=device)
        self._restart()

    def _restart(self) -> None:
        # sum over slots of c log c, from which the KL follows: log N - log C + (sum c log c) / C
        self._entropy = torch.zeros((), dtype=torch.float64, device=self.counts.device)
        self._touched: list[Tensor] = []
        self._lookups = 0

    @torch.no_grad()
    def add(self, slots: Tensor) -> None:
        """Count the slots of one lookup.

        Args:
            slots: Slots [T, H, k], integers.
        """
        counted = slots if self.mask is None else slots[self.mask]
        rows, more = torch.unique(counted, return_counts=True)
        before = self.counts[rows]
        after = before + more.to(before.dtype)
        self.counts[rows] = after
        self._entropy += (_c_log_c(after) - _c_log_c(before)).sum()
        self._touched.append(rows[before == 0])
        self._lookups += counted.numel()

    def read(self) -> Usage | None:
        """Summarise the counts since the last reset.

        Returns:
            Share used, divergence from uniform, and number of lookups. None if there were no lookups.
        """
        if not self._lookups:
            return None
        used = sum(len(rows) for rows in self._touched)
        kl = log(self.slots) - log(self._lookups) + float(self._entropy) / self._lookups
        return Usage(used / self.slots, max(0.0, kl), self._lookups)

    def gather(self, total: Callable[[Tensor], Tensor], *, keep: bool) -> None:
        """Put the windows of several ranks together; all of them must call this.

        Args:
            total: Sums a tensor [N] over the ranks.
            keep: Whether the sum is kept here; windows of other ranks are then empty.
        """
        counts = total(self.counts)
        self.reset()
        if keep:
            rows = counts.nonzero().squeeze(1)
            entropy = _c_log_c(counts[rows]).sum()
            self.load_state_tensors({"rows": rows, "counts": counts[rows], "entropy": entropy})

    def reset(self) -> None:
        """Set all counts to zero."""
        for rows in self._touched:
            self.counts[rows] = 0
        self._restart()

    def state_tensors(self) -> dict[str, Tensor]:
        """The window as tensors: the rows [U] looked up, their counts [U], and the sum that the KL follows from."""
        rows = torch.cat([self.counts.new_empty(0, dtype=torch.int64), *self._touched])
        return {"rows": rows, "counts": self.counts[rows], "entropy": self._entropy}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on with a window that `state_tensors` gave."""
        self.reset()
        rows, counts, entropy = (tensors[name].to(self.counts.device) for name in ("rows", "counts", "entropy"))
        self.counts[rows] = counts
        self._entropy.copy_(entropy)
        self._touched, self._lookups = [rows], int(counts.sum())


def _c_log_c(counts: Tensor) -> Tensor:
    return torch.xlogy(counts.double(), counts.double())
