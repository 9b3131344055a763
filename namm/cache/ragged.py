"""Tokens that survived an eviction in which heads kept different numbers: stored head by head, without padding.

    sequence 0, head 0   sequence 0, head 1   sequence 1, head 0   ...
    token token newest   newest               token newest         ...      offsets: 0, 3, 4, 6, ...

B sequences, H heads, S tokens in all, d numbers a key, e a value. What came since the eviction lies in `LayerState`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

_BY_KEY = ("keys", "values", "positions", "policy_state")


@dataclass(eq=False)
class RaggedTokens:
    """The tokens of a layer, [S, ...] each: those of a head lie together, oldest first.

    Attributes:
        counts: Tokens of each head, [B][H].
        offsets: [B*H + 1], int64: where the tokens of head h of sequence b begin, at b*H + h; and the end.
        keys: [S, d].
        values: [S, e].
        positions: [S], int32: how many tokens of its sequence came before each.
        policy_state: [S, width]: the policy's numbers for each.
    """

    counts: list[list[int]]
    offsets: Tensor
    keys: Tensor
    values: Tensor
    positions: Tensor
    policy_state: Tensor

    @classmethod
    def of(cls, counts: list[list[int]], mask: Tensor, *tensors: Tensor) -> RaggedTokens:
        """The tokens of a mask [B, H, T], of tensors [B, H, T, ...] in the order of the attributes."""
        offsets = torch.tensor([0, *accumulate(chain(*counts))], device=mask.device)
        return cls(counts, offsets, *gathered(mask, tensors))

    @property
    def most(self) -> int:
        """Tokens of the fullest head."""
        return max(chain(*self.counts))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def exists(self) -> Tensor:
        """Where the tokens lie in a padded tensor: [B, H, most], bool, packed to the right."""
        counts = torch.tensor(self.counts, device=self.keys.device)
        return torch.arange(self.most, device=self.keys.device) >= self.most - counts[..., None]

    def padded(self, name: str) -> Tensor:
        """One of the tensors as [B, H, most, ...], packed to the right, zeros in front."""
        flat, exists = getattr(self, name), self.exists()
        padded = flat.new_zeros(*exists.shape, *flat.shape[1:])
        padded[exists] = flat
        return padded

    def set_state(self, padded: Tensor) -> None:
        """Store the policy's numbers [B, H, most, width], packed to the right."""
        self.policy_state = padded[self.exists()]

    def select(self, order: Sequence[int]) -> RaggedTokens:
        """The sequences of these numbers, in this order; a number may come again."""
        heads, ends = len(self.counts[0]), self.offsets.tolist()
        parts = [slice(ends[b * heads], ends[(b + 1) * heads]) for b in order]
        counts = [list(self.counts[b]) for b in order]
        offsets = torch.tensor([0, *accumulate(chain(*counts))], device=self.offsets.device)
        tensors = [getattr(self, name) for name in _BY_KEY]
        return RaggedTokens(counts, offsets, *(torch.cat([tensor[part] for part in parts]) for tensor in tensors))

    def of_head(self, name: str, sequence: int, head: int) -> Tensor:
        """The tokens of one head of one of the tensors: [n, ...]."""
        place = sequence * len(self.counts[0]) + head
        start, stop = self.offsets[place : place + 2].tolist()
        return getattr(self, name)[start:stop]


def gathered(mask: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The entries of a mask [B, H, T] of each tensor [B, H, T, ...]: [S, ...], exact copies in the mask's order."""
    if all(tensor.is_contiguous() for tensor in tensors):
        index = mask.flatten().nonzero().squeeze(1)
        return [tensor.flatten(0, 2).index_select(0, index) for tensor in tensors]
    # copies of a sequence share its memory: one after another, so that they are not all written out
    ones = [slice(b, b + 1) for b in range(len(mask))]
    parts = [gathered(mask[one], [tensor[one].contiguous() for tensor in tensors]) for one in ones]
    return [torch.cat(of_tensor) for of_tensor in zip(*parts, strict=True)]
