"""What a model costs, from its config alone: parameters (total, active), FLOPs per token, bytes. No torch here.

FLOPs count multiply-adds as two. A table's parameters are not compute: of N rows a token reads H*k. Attention over
the context is counted at `context` keys, half of them visible on average.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import MemoryConfig, ModelConfig
from .slots import half_keys


@dataclass(frozen=True)
class Sizes:
    """parameters_active: used for one token. flops: one token forward. table: parameters in value tables."""

    parameters_total: int
    parameters_active: int
    table: int
    flops: int


def model_sizes(model: ModelConfig, memory: MemoryConfig, vocabulary: int) -> Sizes:
    """Count a whole model. Attention and embeddings are the same for every kind of memory."""
    d, blocks = model.width, model.layers
    placed = memory.placed_layers(blocks)
    kv_width = d // model.heads * (model.kv_heads or model.heads)
    attention = 2 * d * d + 2 * d * kv_width
    feed_forward = 3 * d * model.feed_forward_width
    embeddings = vocabulary * d * (1 if model.tie_embeddings else 2)
    norms = (2 * blocks + 1) * d
    shared = embeddings + norms + blocks * attention + (blocks - len(placed)) * feed_forward
    memory_weights = sum(_memory_weights(model, memory) for _ in placed)
    tables = (1 if memory.shared else len(placed)) if placed else 0
    table = tables * memory.slots * d
    rows_read = len(placed) * memory.heads * memory.top_k * d
    matrices = blocks * attention + (blocks - len(placed)) * feed_forward + vocabulary * d
    context_flops = blocks * 2 * 2 * d * model.context // 2
    flops = 2 * matrices + context_flops + sum(memory_flops(model, memory) for _ in placed)
    # one row of the input embedding is read for a token; a tied matrix is read whole as the output layer
    unread_embeddings = 0 if model.tie_embeddings else (vocabulary - 1) * d
    return Sizes(
        parameters_total=shared + memory_weights + table,
        parameters_active=shared + memory_weights + rows_read - unread_embeddings,
        table=table,
        flops=flops,
    )


def memory_flops(model: ModelConfig, memory: MemoryConfig) -> int:
    """FLOPs of one memory layer for one token: query, scores of both lists, candidate sums, weighted rows."""
    d_k = memory.key_width or model.width // 2
    query = 2 * model.width * memory.heads * d_k
    scores = 2 * memory.heads * half_keys(memory.slots) * d_k
    pairs = memory.heads * sum(memory.top_k // rank for rank in range(1, memory.top_k + 1))
    rows = 2 * memory.heads * memory.top_k * model.width
    return query + scores + pairs + rows


def feed_forward_flops(model: ModelConfig) -> int:
    """FLOPs of the SwiGLU feed-forward that a memory layer replaces, for one token."""
    return 6 * model.width * model.feed_forward_width


def _memory_weights(model: ModelConfig, memory: MemoryConfig) -> int:
    d_k = memory.key_width or model.width // 2
    norms = d_k if memory.qk_norm else 0
    return memory.heads * d_k * model.width + memory.heads * half_keys(memory.slots) * d_k + norms
