"""The UltraMem layer: hidden states [..., d] -> sums of projected rows [..., d].

d width, d_v value width, N rows, E virtual tables, H heads, k kept per head, r rank of the scores. Sources: Huang et
al. 2024, "Ultra-Sparse Memory Network" (UltraMem, arXiv 2411.12364), section 3; Huang et al. 2025, "UltraMemV2" (arXiv
2508.18756), section 3.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from ...kernels.bag_dot import bag_dot
from ..slots import check_virtual
from ..tables.values import MemoryValues
from .expansion import block_bags, scattered
from .keys import TuckerKeys


class UltraMemLayer(TuckerKeys):
    """An UltraMem layer: Tucker scores over E virtual tables, which are one table seen through E projections.

    For a hidden state x, each head selects the `top_k` of E*N virtual slots with the best scores s. Slot i is row a(i)
    of the table and projection p(i). The output is the sum of s_i * W_p(i)^T v_a(i). With `units` (UltraMemV2) each row
    has a second vector u of width d, and s_i * (u_a(i) x) takes the place of s_i.

    Sources: Huang et al. 2024, UltraMem (arXiv 2411.12364); Huang et al. 2025, UltraMemV2 (arXiv 2508.18756).

    Args:
        width: Width d of the hidden states.
        slots: Rows N of the value table; must be a square.
        heads: Number of query heads H.
        top_k: Slots k that each head selects.
        key_width: Width d_k of a query and of a key, both halves together. None: d/2.
        value_width: Width d_v of a row of the table. None: d/2.
        qk_norm: Whether to apply RMSNorm to the parts of queries and keys.
        rank: Rank r of the scores. 1: the scores of product keys.
        expansion: Virtual tables E, each with a projection [d_v, d]; must be a square.
        shuffle: Whether virtual slots are spread over rows and projections by a permutation. None: if E > 1.
        units: Whether each row is a unit with two vectors, as in PEER, without its activation function.
        scores: "none": scores weigh the rows. "softmax": a softmax over the k scores of a head does.
        output_gate: Whether to scale the output of each token by sigmoid(w x).
        silent: Whether the projections start at zero.
        output_std: Standard deviation that outputs start with, for inputs of unit variance. None: the projections start
            as N(0, 1/sqrt(d_v)).
        values: A table [slots, value_width] to share with another layer. None: make a new one. Not with `units`.

    Attributes:
        excess: How far the core was from rank one in the last forward pass in training mode, a loss on singular values
            beyond the first: the mean of max(0, l_i - 0.15)^2. None for rank 1.

    Raises:
        MemxError: `slots` or `expansion` is not a square, `top_k` exceeds the half-keys in a list, or the key width has
            no 2*r equal parts.
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        heads: int = 2,
        top_k: int = 32,
        key_width: int | None = None,
        value_width: int | None = None,
        qk_norm: bool = True,
        rank: int = 2,
        expansion: int = 4,
        shuffle: bool | None = None,
        units: bool = False,
        scores: Literal["softmax", "none"] = "none",
        output_gate: bool = False,
        silent: bool = False,
        output_std: float | None = None,
        values: MemoryValues | None = None,
    ) -> None:
        lookup: dict[str, Any] = dict(heads=heads, top_k=top_k, key_width=key_width, qk_norm=qk_norm, scores=scores)
        check_virtual(slots, expansion)
        super().__init__(width, expansion * slots, rank=rank, **lookup)
        value_width = value_width or max(1, width // 2)
        assert values is None or not units, "layers of units do not share their tables"
        assert values is None or values.shape == (slots, value_width), "the shared table has a different shape"
        self.slots, self.expansion, self.silent, self.output_std = slots, expansion, silent, output_std
        self.shuffle = expansion > 1 if shuffle is None else shuffle
        self.down = MemoryValues(slots, width) if units else None
        self.output = nn.Linear(expansion * value_width, width, bias=False)
        self.output_gate = nn.Linear(width, 1, bias=False) if output_gate else None
        # a shared table belongs to its first layer; here it is held unregistered, in a tuple
        self.table = MemoryValues(slots, value_width) if values is None else None
        self._shared = (values,)
        self.values.padded = expansion > 1
        self.excess: Tensor | None = None
        self.reset_parameters()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "excess": None}  # of a step, which no copy may share

    @property
    def values(self) -> MemoryValues:
        """The table of the rows that are summed: the one that the layer made, or the shared one."""
        values = self.table if self.table is not None else self._shared[0]
        assert values is not None
        return values

    def tables(self) -> tuple[MemoryValues, ...]:
        """The value table; for units, first that of the vectors u."""
        return (self.values,) if self.down is None else (self.down, self.values)

    def reset_parameters(self) -> None:
        """Draw queries, keys and core; projections N(0, 1/sqrt(d_v)), as `output_std` says, or zero."""
        super().reset_parameters()
        std = self.values.shape[1] ** -0.5
        if self.output_std is not None:
            std = self.output_std * (2 if self.output_gate is not None else 1) / self.squared_weights() ** 0.5
        nn.init.normal_(self.output.weight, std=0.0 if self.silent else std)
        if self.output_gate is not None:
            nn.init.zeros_(self.output_gate.weight)

    def addresses(self, slots: Tensor) -> Tensor:
        """Where virtual slots are: projection p and row a of each as p * N + a."""
        return scattered(slots, self.keys.shape[2]) if self.shuffle else slots

    def rows_of(self, slots: Tensor) -> Tensor:
        """The rows of the table that virtual slots are seen through."""
        return self.addresses(slots) % self.slots

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's output.

        Args:
            x: Hidden states [..., d].

        Returns:
            The output [..., d], in the dtype of `x`.
        """
        # here, where sharded weights are whole
        self.excess = self.core_loss() if self.training else None
        flat = x.flatten(0, -2)  # [T, d]
        slots, weights = self.lookup(flat)
        slots, weights = self.addresses(slots.flatten(1)), weights.flatten(1)  # [T, H*k]
        rows, blocks = slots % self.slots, slots // self.slots
        if self.down is not None:
            down = self.down
            weights = weights * bag_dot(flat.to(down.weight.dtype), down.weight, rows, gradient=down.gradient)
        sums = block_bags(self.values, rows, blocks, weights, self.expansion)  # [T, E, d_v]
        y = self.output(sums.flatten(1).to(x.dtype))
        if self.output_gate is not None:
            y = y * self.output_gate(flat).sigmoid()
        return y.to(x.dtype).view(x.shape)
