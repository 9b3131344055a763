"""One cache that many choices share: each sequence of a batch sees its own part of the same context, by a mask.

Nothing is copied or moved, so that trying another choice costs what the tokens after the context cost. What a sequence
computes is what it would if the hidden tokens had been evicted.

P sequences, Hq query heads that share H key-value heads (G = Hq / H), N tokens of context, M tokens after it, Q queries
(the last of those), d numbers a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache

from ...errors import MemxError
from ...torch_compat import flash_attention_for_cpu, has_flash_attention_for_cpu
from ...transformers_compat import (
    CacheLayer,
    attention,
    length_dependent_rotary,
    query_count,
    rotary_length,
    wrapped_forward,
)
from ..support import find_decoder
from .cache import EvictingCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION, _CACHE = "memx_masked", "memx_masked_cache"
_ROWS = 64  # sequences whose scores are written out at a time where no fused attention applies


class MaskedCache(Cache):
    """The context of an evicting cache, of which each sequence of a batch sees its own part.

    Args:
        shared: A cache of one sequence that holds its whole context. It is not changed, and must not change.
        masks: Of each layer, the tokens that each sequence sees [P, H, N], bool, as `EvictingCache.choices` gives them.
        dtype: Of the tokens after the context. None: that of the context, which may be kept in a smaller one.

    Attributes:
        length: Number of positions that the whole text will have, as in `EvictingCache`.
    """

    layers: list[MaskedLayer]

    def __init__(self, shared: EvictingCache, masks: Sequence[Tensor], dtype: torch.dtype | None = None) -> None:
        assert len(shared.seen) == 1, "masks are for the context of one sequence"
        states = [layer.state for layer in shared.layers]
        super().__init__(layers=[MaskedLayer(state, mask, dtype) for state, mask in zip(states, masks, strict=True)])
        self.length, self._tokens = shared.length, shared.seen[0]
        self._begun = {name: torch.cat([tensor] * len(masks[0])) for name, tensor in shared.carried.items()}
        self.carried = dict(self._begun)  # as in `EvictingCache`

    def reset(self) -> None:
        """Drop the tokens after the context."""
        super().reset()
        self.carried = dict(self._begun)

    def kept_share(self) -> Tensor:
        """The share of the context that each sequence sees, a mean over layers and heads: [P], float32, on the CPU."""
        seen = [layer.mask.sum(-1).float().mean(1).cpu() for layer in self.layers]
        return torch.stack(seen).mean(0) / self._tokens


class MaskedLayer(CacheLayer):
    """One layer of a `MaskedCache`: the shared context, and each sequence's own tokens after it.

    Attributes:
        mask: The part of the context that each sequence sees [P, H, N], bool.
        keys, values: The tokens after the context [P, H, M, d].
    """

    is_croppable = False

    def __init__(self, state: Any, mask: Tensor, dtype: torch.dtype | None = None) -> None:
        """state: the `LayerState` of the context; dtype: of the tokens after it."""
        super().__init__()
        keys: Any = state.keys
        self.context, self.mask, self.window = (state.keys, state.values), mask, state.window
        self.positions, self.tokens = state.positions, 0 if state.keys is None else int(state.positions.max()) + 1
        assert mask.shape[1:] == keys.shape[1:3], (mask.shape, keys.shape)
        dtype = dtype or keys.dtype
        self.keys: Any = keys.new_empty(len(mask), mask.shape[1], 0, keys.shape[3], dtype=dtype)
        self.values: Any = self.keys.new_empty(*self.keys.shape[:3], state.values.shape[3])
        self.dtype, self.device, self.is_initialized = dtype, keys.device, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the context is there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new tokens [P, H, Q, d]; return all after the context."""
        self.keys = torch.cat([self.keys, key_states], 2)
        self.values = torch.cat([self.values, value_states], 2)
        return self.keys, self.values

    def attend(self, query: Tensor, scale: float) -> Tensor:
        """Attention of the newest Q tokens [P, Hq, Q, d] to what they see of the context, and to each other."""
        queries, after = query.shape[2], self.keys.shape[2]
        own = torch.arange(after - queries, after, device=query.device)[:, None]
        back = own - torch.arange(after, device=query.device)  # [Q, M]
        visible, seen = back >= 0, self.mask[:, :, None]  # [Q, M], [P, H, 1, N]
        if self.window is not None and self.tokens + after > self.window:
            visible = visible & (back < self.window)
            age = self.tokens + own - self.positions[:, :, None]  # [1, H, Q, N]
            seen = seen & (age < self.window)
        keys, values = (tensor.to(query.dtype) for tensor in self.context)
        context = attention_with_lse(query, keys, values, seen, scale)
        return _merged(context, attention_with_lse(query, self.keys, self.values, visible[None, None], scale))

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """Length and offset of a mask; none is used."""
        return self.get_seq_length() + query_count(query_length), 0

    def get_seq_length(self) -> int:
        """Number of tokens so far."""
        return self.tokens + self.keys.shape[2]

    def reset(self) -> None:
        """Drop the tokens after the context."""
        self.keys, self.values = self.keys[:, :, :0], self.values[:, :, :0]


@contextmanager
def masked(model: PreTrainedModel, cache: MaskedCache) -> Iterator[None]:
    """Inside, a model goes on from a masked cache. Give it the cache and the tokens' `position_ids`.

    Args:
        model: A decoder that `attach` supports; the cache's context was read by it under `attach`, which checks that.
        cache: The cache of all forward passes inside.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _masked_attention)
    decoder = find_decoder(model)
    rotary = length_dependent_rotary(decoder)

    def forward(plain: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not cache:
            raise MemxError("this model runs on a masked cache", hint="pass that cache")
        positions = kwargs["position_ids"]
        with rotary_length(rotary, max(cache.length, int(positions.max()) + 1) if rotary else 0):
            return plain(*args, **kwargs, **{_CACHE: cache})

    with wrapped_forward(decoder, forward), attention(decoder, _ATTENTION):
        yield


def _masked_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float | None = None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of queries [P, Hq, Q, d] over a layer of a masked cache: [P, Q, Hq, d]. Called by transformers."""
    layer: MaskedLayer = kwargs[_CACHE].layers[module.layer_idx]
    assert key is layer.keys, "a layer that shares another's keys"
    output = layer.attend(query, query.shape[3] ** -0.5 if scaling is None else scaling)
    return output.transpose(1, 2).contiguous(), None


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention under a mask, and its log-sum-exp. Query heads of a group meet the keys as one.

    Args:
        query: [P, Hq, Q, d].
        key: [P or 1, H, T, d]; not copied for each P.
        value: As the keys.
        visible: The keys that each query sees [P or 1, H or 1, Q or 1, T], bool.
        scale: What the products are multiplied by.

    Returns:
        Attention [P, Hq, Q, d], 0 where nothing is seen; log-sum-exp [P, Hq, Q], natural, then -inf.
    """
    batch, heads, queries = len(query), key.shape[1], query.shape[2]
    rows = query.unflatten(1, (heads, -1)).flatten(2, 3)  # [P, H, G*Q, d]
    groups = rows.shape[2] // queries
    if visible.shape[2] > 1:
        visible = visible[:, :, None].expand(-1, -1, groups, -1, -1).flatten(2, 3)  # [., ., G*Q, T]
    visible = visible.expand(batch, heads, -1, -1)
    learning = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    if query.device.type == "cpu" and value.shape[3] == key.shape[3] and has_flash_attention_for_cpu() and not learning:
        bias = torch.zeros_like(visible, dtype=query.dtype).masked_fill_(~visible, -torch.inf)
        keys, values = key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)
        output, lse = flash_attention_for_cpu(rows, keys, values, causal=False, bias=bias, scale=scale)
    else:
        keys, values = key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)
        parts = [slice(start, start + _ROWS) for start in range(0, batch, _ROWS)]
        done = [_written_out(rows[part], visible[part], keys[part], values[part], scale) for part in parts]
        output, lse = (torch.cat(one) for one in zip(*done, strict=True))
    nothing = ~visible.any(-1)  # of which fused attention makes a mean
    output, lse = output.masked_fill(nothing[..., None], 0), lse.masked_fill(nothing, -torch.inf)
    shape = (groups, queries)
    return output.unflatten(2, shape).flatten(1, 2), lse.unflatten(2, shape).flatten(1, 2)


def _written_out(rows: Tensor, visible: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`attention_with_lse` of rows [p, H, R, d] by plain products."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    scores = ((rows @ key.mT).to(dtype) * scale).masked_fill_(~visible, -torch.inf)
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp_().to(value.dtype) @ value, lse


def _merged(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over two sets of keys, of which each was attended to alone."""
    (output, lse), (more, more_lse) = one, other
    share = (more_lse - torch.logaddexp(lse, more_lse)).exp()[..., None].to(output.dtype)
    return output.lerp(more, share)
