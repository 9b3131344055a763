"""Key-value heads that several processes share out (tensor parallelism): where a choice needs all, they meet here.

Each process holds H heads of a layer and runs the same steps. Scores travel between them, keys and values never do.
b sequences of a group, L layers, t tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ...errors import MemxError

_CONDITIONS = ("exists", "protected", "preferred")
_ABSENT = (True, False, False)  # what each is of a token where none is given


@dataclass(frozen=True, eq=False)
class HeadShards:
    """How the processes of a group share out the heads of each layer: as many to each, in the order of their ranks.

    Attributes:
        group: The processes.
        total: Key-value heads of a layer, in all processes together.
    """

    group: Any
    total: int

    def __deepcopy__(self, memo: Any) -> HeadShards:
        return self  # the group is the process's own, and no cache's

    def split(self, heads: int) -> bool:
        """Whether a layer of which this process holds so many heads is shared out; if not, each process has all.

        Raises MemxError for heads that are neither.
        """
        size = dist.get_world_size(self.group)
        if heads * size not in (self.total, size * self.total):
            raise MemxError(
                f"a process holds {heads} of {self.total} key-value heads, which {size} processes do not share evenly",
                hint="use as many processes as divide the key-value heads",
            )
        return heads < self.total

    def first(self, heads: int) -> int:
        """The number of the first of this process's heads, which are so many."""
        return dist.get_rank(self.group) * heads if self.split(heads) else 0

    def gather(
        self, scores: Sequence[Tensor], conditions: dict[str, list[Tensor | None]]
    ) -> tuple[list[Tensor], dict[str, list[Tensor | None]]]:
        """Bring together what all processes know of the tokens of some layers; every process must ask.

        Args:
            scores: Of each layer [b, H, t], on one device.
            conditions: For each of `exists`, `protected` and `preferred` the tokens [b, H, t] of each layer, or None.

        Returns:
            The same with all heads, each [b, total, T]; as the newest tokens of a head come last, so does padding
            first.
        """
        longest = torch.tensor(max(one.shape[2] for one in scores), device=scores[0].device)
        dist.all_reduce(longest, dist.ReduceOp.MAX, group=self.group)
        width, heads = int(longest), [one.shape[1] for one in scores]
        wide = [one.float() if one.dtype.itemsize < 4 else one for one in scores]
        flags = [_flags(one, [conditions[name][layer] for name in _CONDITIONS]) for layer, one in enumerate(scores)]
        gathered = [self._gathered(_padded(tensors, width), heads) for tensors in (wide, flags)]
        found: dict[str, list[Tensor | None]] = {
            name: [flag.bitwise_and(1 << bit) > 0 for flag in gathered[1]] for bit, name in enumerate(_CONDITIONS)
        }
        for name, given in conditions.items():
            if name != "exists" and all(one is None for one in given):
                found[name] = [None] * len(given)
        return gathered[0], found

    def own(self, mask: Tensor, like: Tensor) -> Tensor:
        """The part of a mask [b, total, T] that is this process's, of tokens like [b, H, t]."""
        heads, tokens = like.shape[1:3]
        first = self.first(heads)
        return mask[:, first : first + heads, mask.shape[2] - tokens :]

    def _gathered(self, tensor: Tensor, heads: Sequence[int]) -> list[Tensor]:
        """[b, all layers' own heads, T] -> of each layer [b, all processes' heads, T]."""
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, tensor, group=self.group)
        return [torch.cat(layer, 1) for layer in zip(*(part.split(list(heads), 1) for part in parts), strict=True)]


def _flags(scores: Tensor, conditions: Sequence[Tensor | None]) -> Tensor:
    """The conditions of each token as bits [b, H, t], uint8, in their order."""
    flags = torch.zeros_like(scores, dtype=torch.uint8)
    for bit, (given, absent) in enumerate(zip(conditions, _ABSENT, strict=True)):
        flags |= (torch.full_like(flags, absent) if given is None else given.to(torch.uint8)) << bit
    return flags


def _padded(tensors: Sequence[Tensor], width: int) -> Tensor:
    """Of each layer [b, H, t] -> [b, all heads, width], zeros before the tokens: of flags, no tokens."""
    return torch.cat([F.pad(one, (width - one.shape[2], 0)) for one in tensors], 1).contiguous()
