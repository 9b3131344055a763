"""What one GPU of a mesh holds: weights by shape, a table, a mesh -> bytes by what they are for. No torch here.

The largest share is counted: FSDP2 cuts a weight along its first dimension, and the first rank has the longest piece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, log1p, prod
from typing import NamedTuple

from ...memory_layers.config import MemoryConfig, ModelConfig
from ...memory_layers.sizes import Sizes
from .activations import copied_weights, logits_bytes, saved_bytes
from .mesh import Mesh

_GROUPED = 40  # bytes a read row takes while a step's reads are sorted by row: lists joined, sorted and reordered


class Weight(NamedTuple):
    """A weight outside tables: its shape, whether it is trained, and the block that it is gathered with ("": none)."""

    shape: tuple[int, ...]
    trained: bool
    block: str


@dataclass(frozen=True)
class Table:
    """All value tables of one memory as one: rows and columns, how it is stepped ("" if not), what a token reads of it.

    layers: uses in one forward pass; kept: rows that each of them reads for a token, which are summed into `bags` rows.
    size: bytes of an element. element_state, row_state: bytes kept beside each element, and beside each row.
    """

    rows: int
    width: int
    step: str
    layers: int
    kept: int
    size: int
    element_state: int
    row_state: int
    bags: int = 1

    @property
    def whole_state(self) -> int:
        """Bytes of the state of the whole table."""
        return self.rows * (self.width * self.element_state + self.row_state)

    def part(self, mesh: Mesh) -> tuple[int, int]:
        """Rows and columns that one rank holds."""
        if mesh.table == "rows":
            return -(-self.rows // mesh.table_ranks), self.width
        return self.rows, -(-self.width // mesh.table_ranks)

    def bytes(self, mesh: Mesh) -> tuple[int, int]:
        """Of one rank's part: values, and their state."""
        rows, columns = self.part(mesh)
        return rows * columns * self.size, rows * columns * self.element_state + rows * self.row_state

    def number_bytes(self, mesh: Mesh) -> int:
        """Bytes of a slot in lists of reads, and of its bag where a table is cut by rows."""
        slot = 8 if mesh.table_ranks == 1 or self.rows >= 1 << 31 else 4
        return slot + 8 if mesh.table == "rows" else slot

    def use_reads(self, mesh: Mesh) -> int:
        """Rows that the part is read for in one use, by a micro-batch of all ranks that share the table."""
        reads = mesh.tokens * self.kept
        return reads if mesh.table == "rows" else reads * mesh.table_ranks

    def step_reads(self, mesh: Mesh) -> int:
        """Rows that the part is read for in a step, by all tokens of all GPUs; of a cut by rows its even share."""
        reads = mesh.step_tokens * self.layers * self.kept
        return -(-reads // mesh.table_ranks) if mesh.table == "rows" else reads


@dataclass(frozen=True)
class Described:
    """A model to be planned for. half: computed in bfloat16. answers_only: the loss counts a quarter of the tokens."""

    base: ModelConfig
    memory: MemoryConfig
    vocabulary: int
    sizes: Sizes
    parameters: int
    weights: Sequence[Weight]
    tables: tuple[Table, ...]
    half: bool
    answers_only: bool

    def counted(self, tokens: int) -> int:
        """Tokens that the loss counts."""
        return tokens // 4 if self.answers_only else tokens

    def activations(self, tokens: int) -> int:
        """Bytes kept for the backward pass of so many tokens, at their peak."""
        loss = logits_bytes(self.vocabulary, self.base.width, self.counted(tokens), self.half)
        return saved_bytes(self.base, self.memory, tokens, self.half) + loss[1]


def dense_bytes(weights: Sequence[Weight], mesh: Mesh) -> dict[str, int]:
    """Weights, gradients and AdamW moments of one rank's share; blocks, and all, while they are gathered."""
    trained = sum(_share(weight.shape, mesh.shard) for weight in weights if weight.trained)
    return {
        "weights": 4 * sum(_share(weight.shape, mesh.shard) for weight in weights),
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "gathered": _gathered(weights, mesh),
        "asking": 0 if mesh.shard == 1 else 4 * sum(prod(weight.shape) for weight in weights),
    }


def table_bytes(table: Table, mesh: Mesh) -> dict[str, int]:
    """A rank's part of the table, its gradient, its state; what a step's backward passes leave, and grouping that."""
    values, state = table.bytes(mesh)
    _, columns = table.part(mesh)
    found = {"table": values, "table optimizer": state if table.step else 0}
    if table.step == "dense":
        return {**found, "table gradient": 2 * values}  # the sum, and that of one use
    if table.step == "sparse":
        sums = mesh.step_tokens * table.layers * table.bags * columns * table.size
        reads = table.step_reads(mesh) * (table.number_bytes(mesh) + table.size) + sums
        found["step's reads"] = -(-reads // mesh.copies)
        found["grouping"] = table.step_reads(mesh) * _GROUPED + sums + (reads if mesh.copies > 1 else 0)
    return found


def gpu_bytes(model: Described, mesh: Mesh) -> dict[str, int]:
    """Everything that one GPU holds, and "total", its peak: in a backward pass, in the step, or while it is asked.

    "host": what lies in host memory in its stead, and is worked on there.
    """
    tables, at_once, host = model.tables, 1, 0
    found = dense_bytes(model.weights, mesh) | dict(sum((Counter(table_bytes(one, mesh)) for one in tables), Counter()))
    if mesh.host_values and tables:
        host = sum(found.pop(name, 0) for name in ("table", "table optimizer", "step's reads", "grouping"))
        at_once = 1 + mesh.ahead
        found["fetched rows"] = at_once * sum(fetched_bytes(table, mesh) for table in tables)
    found["activations"] = at_once * model.activations(mesh.tokens)
    if model.half:
        found["copies"] = at_once * 2 * copied_weights(model.base, model.memory, model.vocabulary)
    if tables:
        found["exchange"] = max(exchange_bytes(table, mesh) for table in tables)
    passing = ("activations", "copies", "exchange", "gathered", "fetched rows")
    backward = sum(found.get(name, 0) for name in passing)
    lasting = sum(number for name, number in found.items() if name not in (*passing, "grouping", "asking"))
    found["total"] = lasting + max(backward, found.get("grouping", 0), found.get("asking", 0))
    return {name: number for name, number in found.items() if number} | {"host": host}


def fetched_bytes(table: Table, mesh: Mesh) -> int:
    """Host values: the rows of a micro-batch, which each layer fetches for itself, and the place of each read."""
    rows, columns = table.part(mesh)
    reads = table.use_reads(mesh)
    return table.layers * (round(touched_rows(rows, reads)) * columns * table.size + 8 * reads)


def touched_rows(rows: int, reads: int) -> float:
    """Different rows among so many reads, if all rows are read alike: the most that there can be on average."""
    return -rows * expm1(reads * log1p(-1 / rows)) if rows > 1 else float(min(rows, reads))


def exchange_bytes(table: Table, mesh: Mesh) -> int:
    """Buffers of one use of a shared-out table: gathered lists, and sums before and after they are swapped."""
    ranks = mesh.table_ranks
    if ranks == 1:
        return 0
    lists = ranks * mesh.tokens * table.kept * (4 + table.size)
    sums = mesh.tokens * table.bags * table.width * table.size
    return lists + (2 * sums if mesh.table == "width" else 2 * ranks * sums)


def _share(shape: tuple[int, ...], ranks: int) -> int:
    return -(-shape[0] // ranks) * prod(shape[1:]) if shape else 1


def _gathered(weights: Sequence[Weight], mesh: Mesh) -> int:
    """What is whole while it is used: weights outside blocks, two blocks, and their gradients before they are cut.

    Where a micro-batch runs ahead, all weights stay whole to the end of the step.
    """
    if mesh.shard == 1:
        return 0
    sizes = Counter[str]()
    for weight in weights:
        sizes[weight.block] += prod(weight.shape)
    blocks = sorted((size for block, size in sizes.items() if block), reverse=True)
    used = sizes[""] + sum(blocks[:2])
    return 4 * used + 4 * (sizes.total() if mesh.ahead else used)
