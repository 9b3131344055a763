"""The n-gram memory: hidden states [B, Q, d] and token windows [B, Q, n] -> what is added to the hidden states.

J rows a token, one for each n-gram order and hash head, of width w; e = J * w. Source: Engram (DeepSeek 2026, arXiv
2601.07372), section 2. Written from its equations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..slots import check_orders
from ..tables.table_layer import TableLayer
from ..tables.values import MemoryValues
from .convolution import CausalConvolution
from .hashing import NgramHash, draw_multipliers
from .primes import table_primes
from .tokens import NgramTokens


class EngramLayer(TableLayer):
    """An n-gram memory: each token reads rows that a hash of its last tokens selects, and a gate lets them in.

    With e the rows of all heads, one after another, the gate is a = sigmoid(RMSNorm(h) . RMSNorm(W_K e) / sqrt(d)),
    v = a * W_V e, and the output is v; with `convolution` it is v + SiLU(C(RMSNorm(v))), C a causal depthwise
    convolution of 4 taps, 3 tokens apart. A model adds the output to its hidden states before a block's attention.

    Source: Engram (arXiv 2601.07372), section 2.

    Args:
        width: Width d of the hidden states.
        slots: Wanted rows of the table over all hash heads; each head gets a prime number of them, so a few more.
        vocabulary: Number of token classes.
        heads: Hash heads of each n-gram order.
        ngrams: Orders of the n-grams.
        row_width: Width w of a row. None: d / J, at least 1.
        layer: Number of the block, which the hash depends on.
        seed: Random seed of the hash.
        primes: Rows of each head by order. None: those of a model with one such layer.
        multipliers: Multipliers of the hash. None: drawn from `seed` and `layer`.
        signed_root: Whether the gate takes the signed square root of the dot product.
        convolution: Whether a convolution follows.
        silent: Whether W_V starts at zero, so that a layer added to a trained model changes nothing at first.

    Attributes:
        rows: Rows of the table.

    Raises:
        MemxError: `ngrams` are not different numbers from 1 to 8.

    Example:
        ```python
        import torch
        from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM

        config = MemoryLlamaConfig(
            vocab_size=2048, hidden_size=64, intermediate_size=176, num_hidden_layers=4, num_attention_heads=4,
            memory_kind="engram", memory_layers=[1], memory_slots=4096,
        )
        model = MemoryLlamaForCausalLM(config)  # model.set_token_classes(tokenizer) merges upper and lower case
        logits = model(torch.tensor([[3, 5, 7, 11]])).logits  # [1, 4, 2048]
        ```
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        vocabulary: int,
        heads: int = 8,
        ngrams: Sequence[int] = (2, 3),
        row_width: int | None = None,
        layer: int = 0,
        seed: int = 0,
        primes: Sequence[Sequence[int]] | None = None,
        multipliers: Sequence[int] | None = None,
        signed_root: bool = False,
        convolution: bool = False,
        silent: bool = False,
    ) -> None:
        super().__init__()
        check_orders(ngrams)
        primes = primes or table_primes(slots, heads, len(ngrams), 1)[0]
        self.hash = NgramHash(ngrams, primes, multipliers or draw_multipliers(max(ngrams), vocabulary, seed, layer))
        self.width, self.slots, self.layer = width, self.hash.rows, layer
        self.signed_root, self.silent = signed_root, silent
        row_width = row_width or max(1, width // self.hash.lookups)
        read = self.hash.lookups * row_width  # e
        # drawn as one row of width e, the hidden states' scale being that of a memory layer's output
        self.table = MemoryValues(self.slots, row_width, std=read**-0.5)
        self.key = nn.Linear(read, width, bias=False)
        self.value = nn.Linear(read, width, bias=False)
        self.hidden_norm = nn.RMSNorm(width, eps=1e-6)
        self.key_norm = nn.RMSNorm(width, eps=1e-6)
        self.convolution = CausalConvolution(width) if convolution else None
        self.reset_parameters()

    @property
    def window(self) -> int:
        """Tokens n of the longest n-gram."""
        return max(self.hash.orders)

    def tables(self) -> tuple[MemoryValues, ...]:
        """The table."""
        return (self.table,)

    def reset_parameters(self) -> None:
        """Draw W_K and W_V N(0, 1/sqrt(e)), W_V zero if silent; norms at one, the convolution at zero."""
        for linear in (self.key, self.value):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        if self.silent:
            nn.init.zeros_(self.value.weight)
        for norm in (self.hidden_norm, self.key_norm):
            nn.init.ones_(norm.weight)
        if self.convolution is not None:
            self.convolution.reset_parameters()

    def prefetch(self, tokens: NgramTokens, device: torch.device) -> None:
        """Have the rows of a forward pass brought from host memory now; they follow from its tokens alone.

        Nothing happens for a table on the device.

        Args:
            tokens: The tokens; the rows wait in their `pending`.
            device: Where the layer computes.
        """
        if self.table.host is not None and self.table.whole:
            tokens.pending[self.layer] = self.table.start_reading(self._slots(tokens, device).view(-1, 1))

    def _slots(self, tokens: NgramTokens, device: torch.device) -> Tensor:
        """The rows that each token reads [B*Q, J]."""
        return self.hash(tokens.windows.to(device)).flatten(0, 1)

    def forward(self, hidden: Tensor, tokens: NgramTokens) -> Tensor:
        """Compute what is added to the hidden states.

        Args:
            hidden: Hidden states [B, Q, d].
            tokens: The tokens at the same columns.

        Returns:
            The output [B, Q, d], in the dtype of `hidden`.
        """
        slots = self._slots(tokens, hidden.device)  # [B*Q, J]
        if self.observe is not None:
            self.observe(slots)
        ones = torch.ones(slots.numel(), 1, dtype=self.table.weight.dtype, device=slots.device)
        rows = self.table.bag(slots.view(-1, 1), ones, pending=tokens.pending.pop(self.layer, None))  # [B*Q*J, w]
        read = rows.view(*hidden.shape[:2], self.key.in_features)  # [B, Q, e]
        read = read.to(self.key.weight.dtype)  # the table may have another
        value = self._gate(hidden, self.key(read))[..., None].to(read.dtype) * self.value(read)
        if self.convolution is not None:
            value = value + F.silu(self.convolution(value, tokens, f"convolution/{self.layer}"))
        return value.to(hidden.dtype)

    def _gate(self, hidden: Tensor, key: Tensor) -> Tensor:
        """How much of its rows each token lets in, 0 to 1: [B, Q]."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        dot = (_normed(self.hidden_norm, hidden.to(wide)) * _normed(self.key_norm, key.to(wide))).sum(-1)
        dot = dot * self.width**-0.5
        if self.signed_root:
            dot = dot.sign() * dot.abs().clamp_min(1e-6).sqrt()
        return dot.sigmoid()

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"ngrams={self.hash.orders}, lookups={self.hash.lookups}"


def _normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """RMSNorm in the dtype of x, whatever that of the norm's weights."""
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)
