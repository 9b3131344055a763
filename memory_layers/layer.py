"""The memory layer: hidden states [..., d] -> weighted sums of table rows [..., d].

d width, d_v value width, N slots, H heads, k kept per head. Source: Berges et al. 2024, "Memory Layers at Scale"
(arXiv 2412.09764), section 2.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from .product_keys import ProductKeys
from .tables.initial_scale import mean_square, silu
from .tables.values import MemoryValues


class MemoryLayer(ProductKeys):
    """A product-key memory layer: a large trainable table of which each token reads a few rows.

    It replaces a feed-forward layer, or is added to one. For a hidden state x, each head selects the `top_k` slots with
    the best scores; y is the sum of their rows of the value table, weighted by a softmax over the scores and added up
    over the heads. The output is y. With `gating` (Memory+) it is W2(y * silu(W1 x)). Without gating it is W2 y if
    `silent` is set or `value_width` differs from `width`.

    Source: Berges et al. 2024, "Memory Layers at Scale" (arXiv 2412.09764), section 2.

    Args:
        width: Width d of the hidden states.
        slots: Rows N of the value table; must be a square, such as 16,384.
        heads: Number of query heads H.
        top_k: Slots k that each head selects; at most the square root of `slots`.
        key_width: Width d_k of a query and of a key, both halves together; must be even. None: d/2.
        value_width: Width d_v of a row of the table. None: d.
        qk_norm: Whether to apply RMSNorm to query halves and half-keys.
        gating: Whether the output is W2(y * silu(W1 x)).
        output_gate: Whether to scale the output of each token by sigmoid(w x).
        scores: Whether the rows of a head are weighted by a softmax over its scores, or with "none" by the scores.
        output_std: Standard deviation that outputs start with, for inputs of unit variance. None: the table and W2
            start as N(0, 1/sqrt(d_v)).
        silent: Whether W2 starts at zero, so that a layer added to a trained feed-forward changes nothing at first.
        values: A table [slots, value_width] to share with another layer. None: make a new one. Keys are never shared.

    Raises:
        MemxError: `slots` is not a square, or `top_k` is larger than its square root.

    Example:
        ```python
        import torch
        from memx import MemoryLayer

        layer = MemoryLayer(512, slots=16_384, heads=4, top_k=32)
        y = layer(torch.randn(8, 128, 512))  # [8, 128, 512], as a feed-forward layer returns
        ```
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        heads: int = 4,
        top_k: int = 32,
        key_width: int | None = None,
        value_width: int | None = None,
        qk_norm: bool = False,
        gating: bool = False,
        output_gate: bool = False,
        scores: Literal["softmax", "none"] = "softmax",
        output_std: float | None = None,
        silent: bool = False,
        values: MemoryValues | None = None,
    ) -> None:
        lookup: dict[str, Any] = dict(heads=heads, top_k=top_k, key_width=key_width, qk_norm=qk_norm, scores=scores)
        super().__init__(width, slots, **lookup)
        value_width = value_width or width
        assert values is None or values.shape == (slots, value_width), "the shared table has a different shape"
        self.silent, self.output_std = silent, output_std
        self.gate = nn.Linear(width, value_width, bias=False) if gating else None
        projected = gating or silent or value_width != width
        self.output = nn.Linear(value_width, width, bias=False) if projected else None
        self.output_gate = nn.Linear(width, 1, bias=False) if output_gate else None
        # A table of one's own is a submodule. A shared one belongs to its first layer: here it is held in a
        # tuple, unregistered, so that it is saved once, stepped once, and follows deepcopy, .to() and loading.
        std = self._last_std() if output_std is not None and self.output is None else None
        self.table = MemoryValues(slots, value_width, std=std) if values is None else None
        self._shared = (values,)
        self.reset_parameters()

    @property
    def values(self) -> MemoryValues:
        """The value table that this layer reads: the one it made, or the shared one."""
        values = self.table if self.table is not None else self._shared[0]
        assert values is not None
        return values

    def tables(self) -> tuple[MemoryValues, ...]:
        """The value table."""
        return (self.values,)

    def reset_parameters(self) -> None:
        """Draw queries and keys, W1 N(0, 1/sqrt(d)), W2 as `output_std` says or zero, the output gate at one half."""
        super().reset_parameters()
        for linear in (self.gate, self.output):
            if linear is not None:
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        if self.output is not None and self.output_std is not None:
            nn.init.normal_(self.output.weight, std=self._last_std())
        if self.output is not None and self.silent:
            nn.init.zeros_(self.output.weight)
        if self.output_gate is not None:
            nn.init.zeros_(self.output_gate.weight)

    def _last_std(self) -> float:
        """The scale of what is applied last, W2 or without it the table, that gives outputs `output_std`."""
        assert self.output_std is not None
        squares = self.squared_weights() * (mean_square(silu) if self.gate is not None else 1.0)
        return self.output_std * (2 if self.output_gate is not None else 1) / squares**0.5

    def read(self, slots: Tensor, weights: Tensor) -> Tensor:
        """Sum the rows of slots [T, H, k], weighed by weights: [T, d_v]."""
        # [T, H*k] rows in one bag per token
        return self.values.bag(slots.flatten(1), weights.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's output.

        Args:
            x: Hidden states [..., d].

        Returns:
            The output [..., d], in the dtype of `x`.
        """
        flat = x.flatten(0, -2)  # [T, d]
        y = self.read(*self.lookup(flat)).to(x.dtype)
        if self.gate is not None:
            y = y * F.silu(self.gate(flat))
        if self.output is not None:
            y = self.output(y)
        if self.output_gate is not None:
            y = y * self.output_gate(flat).sigmoid()
        return y.to(x.dtype).view(x.shape)


class ResidualMemory(nn.Module):
    """A feed-forward and a memory side by side: feed_forward(x) + memory(x)."""

    def __init__(self, feed_forward: nn.Module, memory: nn.Module) -> None:
        super().__init__()
        self.feed_forward, self.memory = feed_forward, memory

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states x [..., d] to the layer's output [..., d]."""
        return self.feed_forward(x) + self.memory(x)
