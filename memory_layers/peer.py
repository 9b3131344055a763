"""PEER, a baseline for the memory layer: hidden states [..., d] -> sums of single-neuron experts [..., d].

Source: He 2024, "Mixture of a Million Experts" (arXiv 2407.04153), section 2. N experts, H heads, k kept per head.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from ..kernels.bag_dot import bag_dot
from ..kernels.embedding_bag import embedding_bag
from .product_keys import ProductKeys
from .tables.initial_scale import gelu, mean_square
from .tables.values import MemoryValues


class PeerLayer(ProductKeys):
    """PEER: a mixture of many experts of one neuron each, selected by product keys.

    The output is the sum of g * gelu(u_i x) * v_i over all heads and selected experts i. u and v are two tables [N, d];
    g is the softmax of a head's k scores.

    Source: He 2024, "Mixture of a Million Experts" (arXiv 2407.04153), section 2.

    Args:
        width: Width d of the hidden states.
        slots: Number of experts N; must be a square.
        heads: Number of query heads H.
        top_k: Experts k that each head selects; at most the square root of `slots`.
        key_width: Width d_k of a query and of a key, both halves together; must be even. None: d/2.
        qk_norm: Whether to apply RMSNorm to query halves and half-keys.
        scores: Whether g is the softmax of a head's k scores, or with "none" the scores.
        output_std: Standard deviation that outputs start with, for inputs of unit variance. None: both tables start as
            N(0, 1/sqrt(d)).

    Raises:
        MemxError: `slots` is not a square, or `top_k` is larger than its square root.
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        heads: int = 8,
        top_k: int = 16,
        key_width: int | None = None,
        qk_norm: bool = False,
        scores: Literal["softmax", "none"] = "softmax",
        output_std: float | None = None,
    ) -> None:
        lookup: dict[str, Any] = dict(heads=heads, top_k=top_k, key_width=key_width, qk_norm=qk_norm, scores=scores)
        super().__init__(width, slots, **lookup)
        std = None if output_std is None else output_std / (self.squared_weights() * mean_square(gelu)) ** 0.5
        self.down, self.up = MemoryValues(slots, width), MemoryValues(slots, width, std=std)
        self.reset_parameters()

    def tables(self) -> tuple[MemoryValues, ...]:
        """The tables u and v."""
        return (self.down, self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's output.

        Args:
            x: Hidden states [..., d].

        Returns:
            The output [..., d], in the dtype of `x`.
        """
        flat = x.flatten(0, -2)  # [T, d]
        slots, gates = self.lookup(flat)
        slots, gates = slots.flatten(1), gates.flatten(1)  # [T, H*k]
        down, up = self.down, self.up
        inner = bag_dot(flat.to(down.weight.dtype), down.weight, slots, gradient=down.gradient)  # [T, H*k]
        weights = (gates * F.gelu(inner)).to(up.weight.dtype)
        y = embedding_bag(up.weight, slots, weights, gradient=up.gradient)
        return y.to(x.dtype).view(x.shape)
