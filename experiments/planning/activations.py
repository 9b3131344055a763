"""What a forward pass keeps for the backward pass: shapes -> bytes. No torch here.

Counted tensor by tensor as transformers' Llama under autocast keeps them; attention is taken to be a fused kernel,
which keeps no scores. Tests hold the counts against what autograd saves.
T tokens, d width, e width of keys and values, f feed-forward width, V vocabulary.
"""

from __future__ import annotations

from ...memory_layers.config import PRODUCT_KEYS, MemoryConfig, ModelConfig, OneMemory
from ...memory_layers.sizes import layer_cost


def saved_bytes(base: ModelConfig, memory: MemoryConfig, tokens: int, half: bool) -> int:
    """Bytes kept for so many tokens before the logits. half: bfloat16 by autocast, which keeps the residual stream,
    norms, queries of the memory and its weighted sums in float32, and casts the input of every matrix anew."""
    d, plain = base.width, _feed_forwards(base, memory)
    per_token = base.layers * _attention(base, half) + plain * _feed_forward(base, half)
    kept = 0
    for part in memory.parts:
        placed = len(part.placed_layers(base.layers))
        per_token += placed * _memory(base, part, half)
        if part.insertion == "beside" and part.kind != "engram" and not half:
            per_token -= placed * 4 * d  # both read the same input, where none is cast
        if part.normed and part.kind in PRODUCT_KEYS:  # half-keys, normalised and then scaled, and their norms
            half_keys = 2 * part.query_heads * round(part.virtual_slots**0.5)
            kept += placed * 4 * half_keys * (2 * ((part.key_width or d // 2) // 2) + _key_parts(part))
    return kept + tokens * (per_token + 2 * 4 * d + 4 + 8)  # the last norm and the token's number


def logits_bytes(vocabulary: int, width: int, counted: int, half: bool) -> tuple[int, int]:
    """Bytes of the loss of so many counted tokens: kept, and at the peak, with logits and gradients beside them."""
    size = 2 if half else 4
    kept = counted * (4 * vocabulary + size * width + 8)  # log-probabilities, input of the output matrix, labels
    return kept, kept + counted * vocabulary * (6 if half else 4)


def copied_weights(base: ModelConfig, memory: MemoryConfig, vocabulary: int) -> int:
    """Elements of the matrices that autocast keeps a bfloat16 copy of, from the forward to the backward pass."""
    d, e = base.width, _key_value_width(base)
    found = base.layers * (2 * d * d + 2 * d * e) + _feed_forwards(base, memory) * 3 * d * base.feed_forward_width
    for part in memory.parts:
        own = layer_cost(base, part).weights
        if part.kind in PRODUCT_KEYS:  # half-keys and their norms are used in float32
            heads, key_width = part.query_heads, part.key_width or d // 2
            own -= heads * round(part.virtual_slots**0.5) * key_width
            own -= key_width // _key_parts(part) if part.normed else 0
        if part.kind == "ultramem" and part.rank > 1:
            own -= part.rank**2
        if part.kind == "engram":  # and so are its norms and the taps of a convolution
            own -= 2 * d + (5 * d if part.convolution else 0)
        found += len(part.placed_layers(base.layers)) * own
    return found + vocabulary * d


def _feed_forwards(base: ModelConfig, memory: MemoryConfig) -> int:
    """Feed-forwards that no memory replaces."""
    return base.layers - sum(
        len(part.placed_layers(base.layers)) for part in memory.parts if part.insertion == "replace"
    )


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


def _memory(base: ModelConfig, memory: OneMemory, half: bool) -> int:
    """One memory layer or rival."""
    size, d = 2 if half else 4, base.width
    if memory.kind == "engram":
        return _engram(base, memory, half)
    if memory.kind == "ultramem":
        return _ultramem(base, memory, half)
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


def _key_parts(memory: OneMemory) -> int:
    """Parts of a half-key that are normalised and scored by themselves."""
    return memory.rank if memory.kind == "ultramem" else 1


def _ultramem(base: ModelConfig, memory: OneMemory, half: bool) -> int:
    """Queries, numbers and scores of the parts of half-keys, bags of each virtual table, inputs of the projections."""
    size, d, r, tables = 2 if half else 4, base.width, memory.rank, memory.virtual_tables
    heads, kept = memory.query_heads, memory.query_heads * memory.kept
    total = size * d + heads * (memory.key_width or d // 2) * 4 * (3 if memory.normed else 1)
    total += 8 * heads * r if memory.normed else 0
    # numbers and scores of the parts of both lists' half-keys; the rows' once more, and through the core
    total += kept * (32 * r if r > 1 else 8)
    total += kept * (8 + 4) * tables + (kept * tables if tables > 1 else 0)
    if memory.scores == "softmax":
        total += 4 * kept
    if memory.units:
        total += 8 * kept + (8 * kept if tables > 1 else 0) + (4 * d if half else 0)
    if memory.output_gate:
        total += 2 * size * d
    return total + size * tables * (memory.value_width or max(1, d // 2))


def _engram(base: ModelConfig, memory: OneMemory, half: bool) -> int:
    """One n-gram memory: slots and weights of its rows, the rows, what norms, gate and product keep in float32.

    A convolution keeps its norm's input and output, and each tap's product and the tokens that it comes from.
    """
    d, rows = base.width, memory.lookups
    read = rows * (memory.value_width or max(1, d // rows))
    kept = 12 * rows + 4 * read + (26 if half else 28) * d + 48
    return kept + (32 * d + 36 if memory.convolution else 0)
