"""The tokens of a forward pass as n-gram memories read them, and what these keep from one pass to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..tables.host_rows import PendingRows


@dataclass
class NgramTokens:
    """The tokens of a forward pass, as n-gram memories read them.

    Attributes:
        windows: Classes of the last n tokens at each column [B, Q, n], int64.
        positions: Positions of the tokens [B or 1, Q].
        valid: Which columns are tokens, not padding [B, Q]; None: all.
        carried: What goes with the sequences of a cache from one forward pass to the next, by name [B, ...]; None
            without a cache.
        pending: Rows that are on their way from host memory, by layer.
    """

    windows: Tensor
    positions: Tensor
    valid: Tensor | None = None
    carried: dict[str, Tensor] | None = None
    pending: dict[int, PendingRows] = field(default_factory=dict)
