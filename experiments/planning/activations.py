"""What a forward pass keeps for the backward pass: shapes -> bytes. No torch here.

Counted tensor by tensor as transformers' Llama under autocast keeps them; attention is taken to be a fused kernel,
which keeps no scores. Tests hold the counts against what autograd saves.
T tokens, d width, e width of keys and values, f feed-forward width, V vocabulary.
"""

from __future__ import annotations

from ...memory_layers.config import PRODUCT_KEYS, MemoryConfig, ModelConfig
from ...memory_layers.sizes import layer_cost


def saved_bytes(base: ModelConfig, memory: MemoryConfig, tokens: int, half: bool) -> int:
    """Bytes kept for so many tokens before the logits. half: bfloat16 by autocast, which keeps the residual stream,
    norms, queries of the memory and its weighted sums in float32, and casts the input of every matrix anew."""
    d, placed = base.width, len(memory.placed_layers(base.layers))
    plain = base.layers - (placed if memory.insertion == "replace" else 0)
    per_token = base.layers * _attention(base, half) + plain * _feed_forward(base, half)
    per_token += placed * _memory(base, memory, half)
    if memory.insertion == "beside" and not half:
        per_token -= placed * 4 * d  # both read the same input, where none is cast
    kept = tokens * (per_token + 2 * 4 * d + 4 + 8)  # the last norm and the token's number
    if memory.normed and memory.kind in PRODUCT_KEYS:  # half-keys, normalised and then scaled, and their norms
        half_keys = 2 * memory.query_heads * round(memory.slots**0.5)
        kept += placed * 4 * half_keys * (2 * ((memory.key_width or d // 2) // 2) + 1)
    return kept


def logits_bytes(vocabulary: int, width: int, counted: int, half: bool) -> tuple[int, int]:
    """Bytes of the loss of so many counted tokens: kept, and at the peak, with logits and gradients beside them."""
    size = 2 if half else 4
    kept = counted * (4 * vocabulary + size * width + 8)  # log-probabilities, input of the output matrix, labels
    return kept, kept + counted * vocabulary * (6 if half else 4)


def copied_weights(base: ModelConfig, memory: MemoryConfig, vocabulary: int) -> int:
    """Elements of the matrices that autocast keeps a bfloat16 copy of, from the forward to the backward pass."""
    d, e = base.width, _key_value_width(base)
    placed = len(memory.placed_layers(base.layers))
    plain = base.layers - (placed if memory.insertion == "replace" else 0)
    own = layer_cost(base, memory).weights
    if memory.kind not in ("dense", "moe"):  # half-keys and their norms are used in float32
        heads, key_width = memory.query_heads, memory.key_width or d // 2
        own -= heads * round(memory.slots**0.5) * key_width + (key_width if memory.normed else 0)
    blocks = base.layers * (2 * d * d + 2 * d * e) + plain * 3 * d * base.feed_forward_width
    return blocks + placed * own + vocabulary * d


def _key_value_width(base: ModelConfig) -> int:
    return base.width // base.heads * (base.kv_heads or base.heads)


def _attention(base: ModelConfig, half: bool) -> int:
    """Two norms (input and normalised, float32), q, k, v, output, log of the sum of exponentials; inputs of q, k, v."""
    d, size = base.width, 2 if half else 4
    norms = 2 * (2 * 4 * d + 4)
    inputs = d * size * (3 if half else 1)
    return norms + inputs + size * (2 * d + 2 * _key_value_width(base)) + 4 * base.heads


def _feed_forward(base: ModelConfig, half: bool) -> int:
    """Inputs of gate and up; gate, its silu, up and their product."""
    size = 2 if half else 4
    return size * (base.width * (2 if half else 1) + 4 * base.feed_forward_width)


def _memory(base: ModelConfig, memory: MemoryConfig, half: bool) -> int:
    """One memory layer or rival."""
    size, d = 2 if half else 4, base.width
    if memory.kind == "moe":
        each = size * (d * (3 if half else 2) + 4 * (memory.expert_width or base.feed_forward_width))
        router = 4 * memory.experts + (2 * d if half else 4 * d) + 8 * (memory.experts_per_token + 2)
        return memory.experts_per_token * each + router
    heads, kept = memory.query_heads, memory.query_heads * memory.kept
    queries = heads * (memory.key_width or d // 2) * 4 * (3 if memory.normed else 1)
    total = size * d + queries + kept * (8 + 4) + (8 * heads if memory.normed else 0)
    if memory.kind == "peer":  # the hidden state that experts read, and three numbers for each of them
        return total + (4 * d if half else 0) + 3 * 4 * kept
    value_width = memory.value_width or d
    if memory.gated:  # input of the gate, gate, its silu, weighted sums, the product
        total += (size * d if half else 0) + value_width * (3 * size + 4)
    elif memory.insertion == "beside" or value_width != d:
        total += size * value_width
    if memory.output_gate:
        total += 2 * size * d
    return total
