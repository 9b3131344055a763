"""The bytes of a cache before there is one: a model's shape, a policy and a number of tokens -> bytes of each kind.

The bytes of a layer are those that a `LayerState` on the meta device says that it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .cache.state import LayerState
from .policies.base import Policy, Rule
from .policies.shares import total_tokens
from .support import find_decoder, layer_windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class CacheShape:
    """What the bytes of a model's cache depend on.

    Attributes:
        windows: Attention window of each layer in tokens; None: full attention.
        heads: Query heads of a layer.
        kv_heads: Key-value heads of a layer.
        width: Numbers of a key, and of a value.
        dtype: Of keys and values.
    """

    windows: tuple[int | None, ...]
    heads: int
    kv_heads: int
    width: int
    dtype: torch.dtype

    @classmethod
    def of(cls, model: PreTrainedModel, dtype: torch.dtype) -> CacheShape:
        """The shape of a model, with weights or on the meta device.

        Args:
            model: A decoder that `attach` supports.
            dtype: Of keys and values.

        Returns:
            Its shape.

        Raises:
            MemxError: As `attach`.
        """
        decoder = find_decoder(model)
        config: Any = decoder.config.get_text_config()
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(tuple(layer_windows(decoder)), heads, kv_heads, width, dtype)


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of a cache of one sequence, of all layers.

    Attributes:
        tokens: Tokens per head, a mean.
        kv_bytes: Of keys and values.
        policy_bytes: Of all else that is stored: positions, and the policy's numbers of tokens, queries and sequences.
    """

    tokens: float
    kv_bytes: int
    policy_bytes: int


def cache_bytes(policy: Policy, shape: CacheShape, tokens: int) -> CacheBytes:
    """Count the bytes of one sequence's cache when a policy has just evicted from it.

    Args:
        policy: The policy. One without a budget, which may keep all, is counted as if it does; one with the
            allocation "layer_max" as if it keeps all that this allows.
        shape: The model's.
        tokens: Number of tokens of the sequence, evicted ones included.

    Returns:
        The bytes. Where heads keep different numbers, with the places at which each head's tokens begin. A policy that
        observes queries by hops has no numbers yet of up to 15 tokens; they are counted, as an eviction makes room.
    """
    layers = [_layer(policy, shape, window, tokens) for window in shape.windows]
    pairs, per_head = _pairs(policy, shape, tokens), shape.kv_heads * len(layers)
    one = layers[0]
    size = 2 * shape.width * one.keys.itemsize
    noted = one.positions.itemsize + policy.width * one.policy_state.itemsize
    fixed = sum(layer.size().bookkeeping_bytes for layer in layers)  # without tokens
    offsets = 8 * (shape.kv_heads + 1) * len(layers) if _differ(policy.rule) else 0
    return CacheBytes(pairs / per_head, pairs * size, pairs * noted + fixed + offsets)


def _layer(policy: Policy, shape: CacheShape, window: int | None, tokens: int) -> LayerState:
    """A layer without tokens that has seen so many, and keeps of their queries what a policy looks at again."""
    layer = LayerState(0, policy, window, ())
    keys = torch.empty(1, shape.kv_heads, 0, shape.width, dtype=shape.dtype, device="meta")
    layer.start(keys, keys)
    if policy.hop or policy.context:
        seen = min(policy.context, tokens) if not policy.hop else policy.context + tokens % policy.hop
        layer.recent = torch.empty(1, shape.heads, seen, shape.width, dtype=shape.dtype, device="meta")
        known = policy.context if policy.hop else 0
        dtype = torch.promote_types(shape.dtype, torch.float32)
        layer.lse = torch.empty(1, shape.heads, known, dtype=dtype, device="meta")
        layer.start_summary(layer.recent)
    return layer


def _pairs(policy: Policy, shape: CacheShape, tokens: int) -> int:
    """Pairs of keys and values of all layers and heads that stay."""
    rule, waiting = policy.rule, tokens % policy.hop if policy.hop else 0
    least = min(waiting + 1, tokens)  # tokens that the policy has not observed stay, and one that it has
    reach = [None if window is None else max(1, window - 1) for window in shape.windows]
    heads = [shape.kv_heads] * len(reach)
    if rule.budget is not None and rule.allocation != "equal":
        return max(total_tokens(rule.budget, tokens, heads, reach), least * sum(heads))
    (room,) = rule.budget_tokens([tokens]) or [tokens]
    room = max(room, least)
    return sum(number * min(room, tokens if most is None else most) for number, most in zip(heads, reach, strict=True))


def _differ(rule: Rule) -> bool:
    """Whether heads of a layer may keep different numbers of tokens."""
    if rule.budget is None:
        return rule.grouping == "per_head"
    return rule.allocation in ("global", "table")
