"""The attention function that hosts run under a policy: torch's own attention, then queries and keys go to the cache.

B sequences, Hq query heads that share H key-value heads, Q queries, T cached keys, d numbers a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from ...errors import MemxError
from ...kernels.ragged_attention import ragged_attention
from ...torch_compat import flash_attention_for_cpu, has_flash_attention_for_cpu
from .cache import EvictingCache
from .masks import bottom_right_causal
from .state import LayerState
from .views import visible

ATTENTION = "memx"  # its name among transformers' attention functions
CACHE = "memx_cache"  # the argument by which a decoder hands its cache down to it
COLUMNS = "memx_columns"  # the argument that says which columns of a piece are tokens [B, N]; none if all are
_ADDED = {"s_aux": "attention sinks", "position_bias": "a position bias", "head_mask": "a head mask"}
_WINDOW_IN_MASK = ("PhimoeAttention",)  # have windows without saying so to the attention function
_OTHER_MODEL = "use a model with standard attention, e.g. Llama, Mistral, Qwen, Gemma or GPT-2"


def register() -> None:
    """Make the function known to transformers, which finds it by name; once is enough, more does no harm."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, observed_attention)


def observed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of queries [B, Hq, Q, d] over the slots of a cache's layer: [B, Q, Hq, d]. Called by transformers."""
    cache: EvictingCache | None = kwargs.get(CACHE)
    kind = type(module).__name__
    if kwargs.get("output_attentions"):
        raise MemxError("output_attentions is not supported with an eviction policy", hint="remove output_attentions")
    if cache is None:
        raise MemxError(f"{kind} does not hand the policy's cache to its attention function", hint=_OTHER_MODEL)
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int) or index >= len(cache.layers):
        raise MemxError(f"{kind} does not say to which layer of the cache it belongs", hint=_OTHER_MODEL)
    layer = cache.layers[index]
    cached = key is layer.state.keys and value is layer.state.values
    if kind in _WINDOW_IN_MASK:
        kwargs["sliding_window"] = layer.state.window
    if unsupported := _unsupported(layer.state.window, attention_mask, softcap, kwargs, cached=cached):
        raise MemxError(f"an eviction policy does not support {kind}: it {unsupported}", hint=_OTHER_MODEL)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    hop = layer.state.policy.hop
    observing = hop > 0 and query.shape[2] >= hop
    if layer.state.ragged is None or dropout:
        state = layer.state.padded()
        output, lse = attend(
            query, state.keys, state.values, visible(state), scale, dropout=dropout, with_lse=observing
        )
    else:
        output, lse = attend_ragged(query, layer.state, scale)
    with torch.no_grad():
        layer.update_policy(query.detach(), lse, scale)
    return output.transpose(1, 2).contiguous(), None


def _unsupported(
    window: int | None, mask: Any, softcap: float | None, kwargs: dict[str, Any], *, cached: bool
) -> str | None:
    """What an attention module does that `attend` would not; None if nothing.

    window: as the config says; mask, softcap, kwargs: what the module passes; cached: whether to its cached keys.
    """
    if mask is not None:
        return "passes an attention mask"
    if softcap is not None:
        return "caps attention scores"
    if kwargs.get("is_causal") is False:
        return "attends to later tokens"
    if not cached:
        return "attends to other keys and values than those that it caches"
    for name, what in _ADDED.items():
        if kwargs.get(name) is not None:
            return f"adds {what} ({name})"
    passed = kwargs.get("sliding_window")
    if passed != window:
        return f"has a sliding window of {passed}, where its config says {window}"
    return None


def attend_ragged(query: Tensor, state: LayerState, scale: float) -> tuple[Tensor, Tensor]:
    """Attention [B, Hq, Q, d] over a layer's ragged tokens and its slots, and the log-sum-exp [B, Hq, Q] over both.

    Without gradients.
    """
    old, window = state.ragged, state.window_in_use()
    assert old is not None
    query, key, value = query.detach(), state.keys.detach(), state.values.detach()
    own = state.new_tokens.positions[:, 0].to(query.device)  # made where the input is, not where the layer is
    where: Any = (None, None, None) if window is None else (old.positions, own, window)
    before, old_lse = ragged_attention(query, old.keys, old.values, old.offsets, scale, *where, longest=old.most)
    seen = visible(state)
    if _has_lse(query, value, 0.0) and seen is None and query.shape[2] == 1:
        output, lse = flash_attention_for_cpu(query, key, value, causal=False, scale=scale)
    elif _has_lse(query, value, 0.0):
        output, lse = _fused(query, key, value, seen, scale)
    else:  # slots are heads of one length
        each = key.shape[2]
        offsets = torch.arange(0, (len(old.offsets) - 1) * each + 1, each, device=key.device)
        where = (state.positions.flatten(), own, window) if window is not None or query.shape[2] > 1 else ()
        flat = (key.flatten(0, 2), value.flatten(0, 2), offsets)
        output, lse = ragged_attention(query, *flat, scale, *where, longest=each)
    both = torch.logaddexp(lse, old_lse)
    share = (old_lse - both).exp_()[..., None].to(output.dtype)
    return output.lerp(before, share), both


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    scale: float,
    *,
    dropout: float = 0.0,
    with_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention [B, Hq, Q, d], and the log-sum-exp of the scores [B, Hq, Q] if asked and had for nothing.

    visible [B or 1, H or 1, Q, T], bool: the keys that each query sees; None: all up to its own, the queries' own keys
    being the last Q.
    """
    group, (queries, keys) = query.shape[1] // key.shape[1], (query.shape[2], key.shape[2])
    causal = visible is None and queries > 1
    if _has_lse(query, value, dropout) and (with_lse or (causal and queries < keys)):
        return _fused(query, key, value, visible, scale)
    if visible is not None and visible.shape[1] > 1:
        visible = visible.repeat_interleave(group, 1)
    if causal and queries < keys and query.device.type == "cpu":
        visible, causal = bottom_right_causal(queries, keys, query.device)[None, None], False
    options: Any = dict(dropout_p=dropout, scale=scale)
    if group > 1 and queries == 1:  # queries of a group as queries of one head
        query = query.unflatten(1, (-1, group)).squeeze(3)  # [B, H, G, d]
        if visible is not None and visible.shape[1] > 1:
            visible = visible.unflatten(1, (-1, group)).squeeze(3)
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, **options)
        return output.flatten(1, 2)[:, :, None], None
    if group > 1 and query.device.type != "cpu" and (visible is not None or queries < keys):
        # fused attention on a GPU takes groups without a mask alone
        key, value, group = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1), 1
    mask: Any = visible
    if causal and queries < keys:
        mask, causal = causal_lower_right(queries, keys), False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=group > 1, **options
    ), None


def _fused(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """`attend` on a CPU by what scaled_dot_product_attention runs there, but with its log-sum-exp."""
    queries, old = query.shape[2], key.shape[2] - query.shape[2]
    if visible is not None:
        visible = visible.repeat_interleave(query.shape[1] // visible.shape[1], 1) if visible.shape[1] > 1 else visible
        bias = torch.zeros_like(visible, dtype=query.dtype).masked_fill_(~visible, -torch.inf)
        output, lse = flash_attention_for_cpu(query, key, value, causal=False, bias=bias, scale=scale)
        return output, lse.contiguous()
    output, lse = flash_attention_for_cpu(query, key[:, :, old:], value[:, :, old:], causal=queries > 1, scale=scale)
    if old == 0:
        return output, lse.contiguous()
    # older keys are seen by all queries: two runs without a mask cost less than one with it
    before, old_lse = flash_attention_for_cpu(query, key[:, :, :old], value[:, :, :old], causal=False, scale=scale)
    both = torch.logaddexp(lse, old_lse)
    share = (old_lse - both).exp_()[..., None].to(output.dtype)
    return output.lerp(before, share), both.contiguous()


def _has_lse(query: Tensor, value: Tensor, dropout: float) -> bool:
    """Whether torch's fused attention here returns a log-sum-exp; if not, the policy's own pass computes it."""
    return (
        query.device.type == "cpu"
        and query.dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        and query.shape[3] == value.shape[3]
        and dropout == 0
        and not (torch.is_grad_enabled() and (query.requires_grad or value.requires_grad))
        and has_flash_attention_for_cpu()
    )
