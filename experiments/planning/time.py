"""How long a step of a mesh takes: FLOPs, bytes moved and bytes sent, each over an assumed share of a peak -> seconds.

No torch here. Nothing in here was measured on a GPU.
"""

from __future__ import annotations

from collections import Counter
from math import prod

from ...memory_layers.config import PRODUCT_KEYS
from .gpu_memory import Described, Table, touched_rows
from .gpus import PER_MACHINE
from .mesh import Assumptions, Mesh

_LEAST_READ = 64  # bytes of a row that are read at least: two sectors of a GPU's memory
_SORTED = 200  # bytes moved for each read row while a step's reads are grouped: four passes of a sort, and copies


def step_seconds(model: Described, mesh: Mesh, assumed: Assumptions) -> dict[str, float]:
    """Seconds of one step, by part, and "step", their total.

    Gathering weights hides behind computing, as far as it takes no longer; so do host rows that are fetched ahead.
    """
    dense = sum(prod(weight.shape) for weight in model.weights)
    trained = sum(prod(weight.shape) for weight in model.weights if weight.trained)
    found = {
        "computing": mesh.parts * _compute(model, mesh, assumed),
        "sharing weights": _weights(dense, mesh, assumed),
        "adam": 28 * trained / mesh.shard / (mesh.gpu.bandwidth * assumed.bandwidth),
    }
    found |= dict(sum((Counter(_table(table, mesh, assumed)) for table in model.tables), Counter()))
    behind = {"sharing weights"} | ({"host rows"} if mesh.ahead else set())
    apart = sum(seconds for name, seconds in found.items() if name not in behind | {"computing"})
    total = apart + max(found["computing"], *(found.get(name, 0.0) for name in behind))
    return {**{name: seconds for name, seconds in found.items() if seconds}, "step": total}


def _compute(model: Described, mesh: Mesh, assumed: Assumptions) -> float:
    """Forward, and twice that backward. Half-keys are scored in float32, and only forward: backward reads the kept."""
    base, memory, scores = model.base, model.memory, 0.0
    for part in memory.parts:
        if part.kind in PRODUCT_KEYS:
            placed, key_width = len(part.placed_layers(base.layers)), part.key_width or base.width // 2
            scores += 2.0 * placed * part.query_heads * round(part.virtual_slots**0.5) * key_width
    fast = mesh.gpu.half if model.half else mesh.gpu.single
    seconds = 3 * (model.sizes.flops - scores) / fast + scores / mesh.gpu.single
    return mesh.tokens * seconds / assumed.utilization


def _weights(dense: int, mesh: Mesh, assumed: Assumptions) -> float:
    """Weights gathered forward and backward in each part, or once where a part runs ahead; gradients summed and cut in
    each, and summed over copies, if there are some."""
    shard, gpus, parts = mesh.shard, mesh.gpus, mesh.parts
    gathers = (1 if mesh.ahead else 2 * parts) + parts
    cut = gathers * 4 * dense * (shard - 1) / shard / _ring(shard, mesh, assumed)
    copies = gpus // shard
    return cut + parts * 2 * 4 * dense / shard * (copies - 1) / copies / _ring(gpus, mesh, assumed)


def _table(table: Table, mesh: Mesh, assumed: Assumptions) -> dict[str, float]:
    rows, columns = table.part(mesh)
    bandwidth = mesh.gpu.bandwidth * assumed.bandwidth
    uses = mesh.parts * table.layers
    row = max(columns * table.size, _LEAST_READ)
    found = {"reading rows": uses * 2 * table.use_reads(mesh) * row / bandwidth}  # forward, and for weights' gradients
    if mesh.table_ranks > 1:
        found["exchange"] = uses * _exchange(table, mesh, assumed)
    if table.step == "dense":
        moved = rows * columns * table.size
        found["table step"] = (4 * uses + 7) * moved / bandwidth  # each use written and summed; AdamW
    elif table.step == "sparse":
        found |= _sparse_step(table, mesh, assumed)
    if mesh.host_values:  # gathered into staging memory, and copied from there
        fetched = uses * touched_rows(rows, table.use_reads(mesh)) * columns * table.size
        host = mesh.gpu.host_bandwidth * assumed.bandwidth / 3
        found["host rows"] = fetched / min(host, mesh.gpu.pcie * assumed.links)
    return found


def _sparse_step(table: Table, mesh: Mesh, assumed: Assumptions) -> dict[str, float]:
    """Reads of a step sorted by row, summed twice (norm, step), and the touched rows stepped; on the host, if there."""
    rows, columns = table.part(mesh)
    reads = table.step_reads(mesh)
    left = reads * (table.number_bytes(mesh) + table.size) + _left_sums(table, mesh, columns)
    moved = reads * (_SORTED + 2 * max(columns * table.size, _LEAST_READ))
    moved += touched_rows(rows, reads) * max(2 * columns * (table.size + table.element_state), _LEAST_READ)
    found = {}
    if mesh.host_values:
        found["host step"] = moved / (mesh.gpu.host_bandwidth * assumed.bandwidth)
        found["host step"] += left / mesh.copies / (mesh.gpu.pcie * assumed.links)
    else:
        found["table step"] = moved / (mesh.gpu.bandwidth * assumed.bandwidth)
    if mesh.copies > 1:
        found["copies"] = left * (mesh.copies - 1) / mesh.copies / _ring(mesh.gpus, mesh, assumed)
    return found


def _left_sums(table: Table, mesh: Mesh, columns: int) -> int:
    """Bytes of the gradients of a step's sums, as its backward passes leave them."""
    return mesh.step_tokens * table.layers * table.bags * columns * table.size


def _exchange(table: Table, mesh: Mesh, assumed: Assumptions) -> float:
    gathered, swapped = exchanged_bytes(table, mesh)
    ranks = mesh.table_ranks
    return gathered / _ring(ranks, mesh, assumed) + swapped / _swap(ranks, mesh, assumed)


def exchanged_bytes(table: Table, mesh: Mesh) -> tuple[float, float]:
    """What a rank gets from the others in one use, forward and backward, of a table that ranks share out.

    Bytes gathered, and bytes by all-to-all.
    """
    others, tokens = mesh.table_ranks - 1, mesh.tokens
    slots, weights = tokens * table.kept * 4, tokens * table.kept * table.size
    sums = tokens * table.bags * table.width * table.size
    if mesh.table == "rows":  # requests of slot, bag and weight, and answers; sums of every owner; their gradients
        asked = (2 * slots + 2 * weights) * others / mesh.table_ranks
        return float(others * sums), asked + others * sums
    columns = 2 * sums * others / mesh.table_ranks  # sums, and their gradient
    return float(others * (slots + weights)), columns + others * weights


def _ring(ranks: int, mesh: Mesh, assumed: Assumptions) -> float:
    """Bytes a second of gathers and sums: rings use every network port of a machine at once."""
    rate = mesh.gpu.nvlink if ranks <= PER_MACHINE else min(mesh.gpu.nvlink, PER_MACHINE * mesh.gpu.network)
    return rate * assumed.links


def _swap(ranks: int, mesh: Mesh, assumed: Assumptions) -> float:
    """Bytes a second of an all-to-all: what leaves the machine goes through a GPU's own port."""
    if ranks <= PER_MACHINE:
        return mesh.gpu.nvlink * assumed.links
    outside = (ranks - PER_MACHINE) / (ranks - 1)
    return min(mesh.gpu.network / outside, mesh.gpu.nvlink / (1 - outside)) * assumed.links
