"""How one layer of a host turns its queries and keys by their positions: x, position -> x turned, or turned back.

Of the d numbers of a head, n are turned in pairs: pair j of a token at position p by the angle p f_j. Source: Su et al.
2021, "RoFormer" (arXiv 2104.09864), equation 15. `namm/host_rotary.py` finds the rotation of a host, and checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import MemxError


@dataclass(frozen=True, eq=False)
class Rotary:
    """The rotary positions of one layer.

    Attributes:
        width: Numbers d of a head. 0: the rotation is not known, and asking for it is an error.
        frequencies: Radians a position of each pair [n / 2]; empty where nothing is turned. Negative: the other way.
        interleaved: Whether a pair is two neighbours; else its halves lie n / 2 apart.
        start: First of the n numbers that are turned.
        scaling: Factor of the numbers that are turned (YaRN's attention factor).
        read: Gives the frequencies and scaling of now, where they depend on the length of the text. None: fixed.
    """

    width: int
    frequencies: Tensor
    interleaved: bool = False
    start: int = 0
    scaling: float = 1.0
    read: Callable[[], tuple[Tensor, float]] | None = None

    def __deepcopy__(self, memo: Any) -> Rotary:
        return self  # it belongs to the host, which is not copied with a cache

    @property
    def known(self) -> bool:
        """Whether the rotation was found and checked."""
        return self.width > 0

    def current(self) -> Rotary:
        """The rotation as the host computes it now, for frequencies that depend on the length of the text."""
        if self.read is None:
            return self
        frequencies, scaling = self.read()
        if frequencies is self.frequencies and scaling == self.scaling:
            return self
        return replace(self, frequencies=frequencies, scaling=scaling)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn queries or keys as the host does.

        Args:
            x: [..., T, d], before rotary positions.
            positions: Positions [..., T], of shapes that broadcast.

        Returns:
            [..., T, d] after rotary positions, in float32, or float64 of float64 numbers.

        Raises:
            MemxError: The rotation of the host is not known.
        """
        return self._turn(x, positions, 1.0, self.scaling)

    def unrotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn queries or keys back to what they were before rotary positions: the inverse of `rotate`.

        Args:
            x: [..., T, d], after rotary positions.
            positions: Positions [..., T], of shapes that broadcast.

        Returns:
            [..., T, d] before rotary positions, in float32, or float64 of float64 numbers.

        Raises:
            MemxError: The rotation of the host is not known.
        """
        return self._turn(x, positions, -1.0, 1 / self.scaling)

    def mean_rotation(self, first: Tensor, count: int) -> Tensor:
        """The rotation averaged over `count` positions, as a matrix.

        Args:
            first: First of the positions [B].
            count: How many.

        Returns:
            [B, d, d], float32: R, so that R x is the mean of x rotated to each of the positions.

        Raises:
            MemxError: The rotation of the host is not known.
        """
        self._check()
        positions = first[:, None] + torch.arange(count, device=first.device)  # [B, count]
        each = torch.eye(self.width, device=first.device)  # [d, d]: a row for each direction
        # turning is linear: the mean of cosines and sines turns by the mean
        cos, sin = (part.mean(1, keepdim=True) for part in self._angles(positions, torch.float32))  # [B, 1, n / 2]
        return self._combine(each.expand(len(first), -1, -1), cos, sin, self.scaling).mT

    def _check(self) -> None:
        if not self.known:
            raise MemxError(
                "this policy needs keys before rotary positions, and the model's rotation is not known",
                hint="use a policy without unrotated keys or expected attention, or another model",
            )

    def _angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # in float32 whatever the host computes in, as hosts do: angles are then theirs, also far from the start
        angles = positions[..., None].float() * self.frequencies.to(positions.device).float()
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _turn(self, x: Tensor, positions: Tensor, sign: float, scaling: float) -> Tensor:
        self._check()
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if not len(self.frequencies):
            return x
        cos, sin = self._angles(positions, x.dtype)
        return self._combine(x, cos, sin * sign, scaling)

    def _combine(self, x: Tensor, cos: Tensor, sin: Tensor, scaling: float) -> Tensor:
        """x [..., T, d] with each pair (a, b) turned: (a cos - b sin, b cos + a sin), times the scaling."""
        stop = self.start + 2 * len(self.frequencies)
        before, part, after = x.tensor_split([self.start, stop], -1)
        a, b = part.unflatten(-1, (-1, 2)).unbind(-1) if self.interleaved else part.chunk(2, -1)
        if scaling != 1:
            cos, sin = cos * scaling, sin * scaling
        pair = a * cos - b * sin, b * cos + a * sin
        turned = torch.stack(pair, -1).flatten(-2) if self.interleaved else torch.cat(pair, -1)
        if turned.shape[-1] == x.shape[-1]:
            return turned
        return torch.cat([before.expand(*turned.shape[:-1], -1), turned, after.expand(*turned.shape[:-1], -1)], -1)


UNKNOWN = Rotary(0, torch.empty(0))


def no_rotation(width: int) -> Rotary:
    """Of a layer that turns nothing, with heads of this width."""
    return Rotary(width, torch.empty(0))
