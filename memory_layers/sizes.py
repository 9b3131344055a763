"""What a model costs, from its config alone: parameters (total, active), FLOPs per token, bytes. No torch here.

FLOPs count multiply-adds as two. A table's parameters are not compute: of N rows a token reads H*k. Attention over
the context is counted at `context` keys, half of them visible on average.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import MemoryConfig, ModelConfig, OneMemory
from .engram.primes import table_rows
from .slots import half_keys


@dataclass(frozen=True)
class Sizes:
    """Size and cost of a whole model.

    Attributes:
        parameters_total: All parameters.
        parameters_active: Parameters that one token uses.
        table: Parameters in value tables.
        flops: FLOPs of one token in the forward pass; a multiply-add counts as two.
        slots_read: Table rows that one token reads, over all layers and tables.
    """

    parameters_total: int
    parameters_active: int
    table: int
    flops: int
    slots_read: int

    def weight_bytes(self, size: int = 4, table_size: int = 4) -> int:
        """Bytes of the weights, for elements of `size` bytes, in the tables of `table_size`."""
        return (self.parameters_total - self.table) * size + self.table * table_size


@dataclass(frozen=True)
class LayerCost:
    """Size and cost of one memory layer, or of a PEER or MoE layer.

    Attributes:
        weights: Parameters outside tables.
        active: Parameters outside tables that one token uses.
        tables: Number of tables.
        table: Parameters of one table.
        flops: FLOPs of one token in the forward pass; a multiply-add counts as two.
        rows: Table rows that one token reads.
        row_width: Width of a row; of units the mean of their two.
        row_parameters: Parameters in those rows; None: rows * row_width.
    """

    weights: int
    active: int
    tables: int
    table: int
    flops: int
    rows: int
    row_width: int
    row_parameters: int | None = None

    @property
    def read(self) -> int:
        """Parameters in the rows that one token reads."""
        return self.rows * self.row_width if self.row_parameters is None else self.row_parameters


def model_sizes(model: ModelConfig, memory: MemoryConfig, vocabulary: int) -> Sizes:
    """Count the size and cost of a whole model.

    Args:
        model: Shape of the base model.
        memory: Kind, size and place of the memory layers.
        vocabulary: Number of tokens in the vocabulary.

    Returns:
        Parameters, FLOPs per token and rows read per token.
    """
    d, blocks = model.width, model.layers
    kv_width = d // model.heads * (model.kv_heads or model.heads)
    attention = 2 * d * d + 2 * d * kv_width
    parts = [part_sizes(model, part) for part in memory.parts]
    feed_forwards = blocks - sum(part.replaced for part in parts)
    embeddings = vocabulary * d * (1 if model.tie_embeddings else 2)
    norms = (2 * blocks + 1) * d
    shared = embeddings + norms + blocks * attention + feed_forwards * 3 * d * model.feed_forward_width
    matrices = blocks * attention + vocabulary * d
    context_flops = blocks * 2 * 2 * d * model.context // 2
    # one row of the input embedding is read for a token; a tied matrix is read whole as the output layer
    unread_embeddings = 0 if model.tie_embeddings else (vocabulary - 1) * d
    table = sum(part.table for part in parts)
    return Sizes(
        parameters_total=shared + sum(part.weights for part in parts) + table,
        parameters_active=shared + sum(part.active for part in parts) - unread_embeddings,
        table=table,
        flops=2 * matrices
        + context_flops
        + feed_forwards * feed_forward_flops(model)
        + sum(part.flops for part in parts),
        slots_read=sum(part.rows for part in parts),
    )


@dataclass(frozen=True)
class PartSizes:
    """What one memory of a model adds over all its layers, as in `LayerCost`.

    Attributes:
        replaced: Feed-forwards that it takes the place of.
        weights: Parameters outside tables.
        active: Parameters that one token uses, rows of tables included.
        table: Parameters of all its tables.
        flops: FLOPs of one token in the forward pass.
        rows: Table rows that one token reads.
    """

    replaced: int
    weights: int
    active: int
    table: int
    flops: int
    rows: int


def part_sizes(model: ModelConfig, memory: OneMemory) -> PartSizes:
    """Count what one memory adds to a model.

    Args:
        model: Shape of the base model.
        memory: The memory.

    Returns:
        Its size and cost over all its layers.
    """
    layer, count = layer_cost(model, memory), len(memory.placed_layers(model.layers))
    owners = 1 if memory.one_table else count
    table = owners * layer.tables * layer.table if count else 0
    if memory.kind == "engram":  # the primes of its layers differ
        table = table_rows(memory.slots, memory.query_heads, len(memory.ngrams), count) * layer.row_width
    return PartSizes(
        replaced=count if memory.insertion == "replace" else 0,
        weights=count * layer.weights,
        active=count * (layer.active + layer.read),
        table=table,
        flops=count * layer.flops,
        rows=count * layer.rows,
    )


def feed_forward_flops(model: ModelConfig) -> int:
    """FLOPs of one token in the SwiGLU feed-forward layer that a memory layer replaces."""
    return 6 * model.width * model.feed_forward_width


def layer_cost(model: ModelConfig, memory: OneMemory) -> LayerCost:
    """Count the size and cost of one layer.

    Args:
        model: Shape of the base model; `width` and, for experts, `feed_forward` are used.
        memory: Kind and size of the layer.

    Returns:
        The cost; all zero for a dense model.
    """
    if memory.kind == "dense":
        return LayerCost(0, 0, 0, 0, 0, 0, 0)
    costs = {"moe": _moe_cost, "engram": _engram_cost, "ultramem": _ultramem_cost}
    return costs.get(memory.kind, _lookup_cost)(model, memory)


def _moe_cost(model: ModelConfig, memory: OneMemory) -> LayerCost:
    d = model.width
    expert, router = 3 * d * (memory.expert_width or model.feed_forward_width), d * memory.experts
    return LayerCost(
        weights=memory.experts * expert + router,
        active=memory.experts_per_token * expert + router,
        tables=0,
        table=0,
        flops=2 * (memory.experts_per_token * expert + router),
        rows=0,
        row_width=0,
    )


def _engram_cost(model: ModelConfig, memory: OneMemory) -> LayerCost:
    """W_K and W_V over the rows of a token, two norms and the gate's dot product; then the taps of a convolution."""
    d, rows = model.width, memory.lookups
    row_width = memory.value_width or max(1, d // rows)
    matrices, taps = 2 * d * rows * row_width, 4 * d if memory.convolution else 0
    weights = matrices + 2 * d + taps + (d if memory.convolution else 0)
    return LayerCost(
        weights=weights,
        active=weights,
        tables=1,
        table=table_rows(memory.slots, memory.query_heads, len(memory.ngrams), 1) * row_width,
        flops=2 * (matrices + d + taps),
        rows=rows,
        row_width=row_width,
    )


def _lookup_cost(model: ModelConfig, memory: OneMemory) -> LayerCost:
    """Query, scores of both lists, candidate sums, weighted rows; then what makes an output of them."""
    d, heads, k, n = model.width, memory.query_heads, memory.kept, half_keys(memory.slots)
    d_k, d_v = memory.key_width or d // 2, memory.value_width or d
    lookup = heads * d_k * d + heads * n * d_k  # weights of queries and keys, each one multiply-add
    pairs = heads * sum(k // rank for rank in range(1, k + 1))
    norms = d_k if memory.normed else 0
    if memory.kind == "peer":
        rows = 2 * heads * k  # one of each table
        return LayerCost(
            weights=lookup + norms,
            active=lookup + norms,
            tables=2,
            table=memory.slots * d,
            flops=2 * lookup + pairs + 2 * rows * d,
            rows=rows,
            row_width=d,
        )
    projected = memory.gated or (memory.insertion == "beside" and not memory.matched) or d_v != d
    after = (d * d_v if memory.gated else 0) + (d * d_v if projected else 0) + (d if memory.output_gate else 0)
    return LayerCost(
        weights=lookup + norms + after,
        active=lookup + norms + after,
        tables=1,
        table=memory.slots * d_v,
        flops=2 * (lookup + after) + pairs + 2 * heads * k * d_v,
        rows=heads * k,
        row_width=d_v,
    )


def _ultramem_cost(model: ModelConfig, memory: OneMemory) -> LayerCost:
    """Query, scores of both lists and of all pairs of candidates, weighted rows, and the projections of their sums."""
    d, heads, k, n = model.width, memory.query_heads, memory.kept, half_keys(memory.virtual_slots)
    d_k, d_v, r = memory.key_width or d // 2, memory.value_width or max(1, d // 2), memory.rank
    lookup = heads * d_k * d + heads * n * d_k
    pairs = heads * sum(k // rank for rank in range(1, k + 1))
    if r > 1:  # the parts of 2k half-keys are scored one by one, then all k*k pairs of them through the core
        pairs = 2 * heads * (k * d_k + k * r * r + k * k * r)
    after = memory.virtual_tables * d_v * d + (d if memory.output_gate else 0)
    weights = lookup + after + (d_k // r if memory.normed else 0) + (r * r if r > 1 else 0)
    widths = d_v + (d if memory.units else 0)  # of the rows of a slot
    return LayerCost(
        weights=weights,
        active=weights,
        tables=1,
        table=memory.slots * widths,
        flops=2 * (lookup + after) + pairs + 2 * heads * k * widths,
        rows=heads * k * (2 if memory.units else 1),
        row_width=widths // 2 if memory.units else d_v,
        row_parameters=heads * k * widths,
    )
