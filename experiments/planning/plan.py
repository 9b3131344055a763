"""What a run costs on a mesh: described model, config and plan -> bytes of a GPU, seconds, hours. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ..config.training import TrainConfig
from ..distributed.refusals import refusals
from .advice import Taken, problem_of
from .cost import PlanCost
from .gpu_memory import Described, gpu_bytes
from .mesh import Mesh, Plan, mesh_of, row_tokens
from .time import step_seconds


def planned(
    model: Described, config: TrainConfig, plan: Plan, described: Callable[[TrainConfig], Described]
) -> PlanCost:
    """What a run takes on the GPUs of a plan.

    Args:
        model: as it would be built.
        config: of the run.
        plan: GPUs, tokens, and what is assumed of them.
        described: the model with other settings of training, to find those that would make it fit.

    Raises:
        MemxError: the GPUs or the table cannot be cut as the config asks.
    """
    mesh = mesh_of(config, plan, [table.width for table in model.tables])
    held = gpu_bytes(model, mesh)
    seconds = step_seconds(model, mesh, plan.assumed)
    step_tokens = config.training.batch * row_tokens(config)
    steps = -(-plan.tokens // step_tokens) if plan.tokens else config.training.steps
    too_large = problem_of(config, lambda changed: _taken(described(changed), changed, plan))
    problems = _refused(config, mesh) + ([too_large] if too_large else [])
    hours = None if problems else steps * seconds["step"] / 3600
    return PlanCost(
        gpus=mesh.gpus,
        gpu=mesh.gpu.title,
        shard=mesh.shard,
        table=mesh.table,
        table_ranks=mesh.table_ranks,
        host_values=mesh.host_values,
        parts=mesh.parts,
        tokens_per_part=mesh.tokens,
        steps=steps,
        tokens=steps * step_tokens,
        bytes=held,
        saved=_saved(model),
        memory=mesh.gpu.memory,
        seconds=seconds,
        tokens_per_second=None if problems else step_tokens / seconds["step"],
        hours=hours,
        gpu_hours=hours and hours * mesh.gpus,
        assumed=_assumed(model, mesh, plan),
        problems=problems,
        notes=_notes(config, mesh),
    )


def _taken(model: Described, config: TrainConfig, plan: Plan) -> Taken:
    mesh = mesh_of(config, plan, [table.width for table in model.tables])
    return Taken(gpu_bytes(model, mesh), mesh, len(_refused(config, mesh)))


def _saved(model: Described) -> int:
    """Bytes of a state that a run can go on from: weights and optimiser, of all ranks together."""
    found = sum((4 + 8 * weight.trained) * prod(weight.shape) for weight in model.weights)
    return found + sum(table.rows * table.width * table.size + table.whole_state for table in model.tables)


def _refused(config: TrainConfig, mesh: Mesh) -> list[str]:
    """What so many processes do not train, or not so."""
    found = []
    whole = {part.kind for part in config.memory.parts if part.whole_tables}
    if mesh.host_values and whole:
        what = "PEER tables" if "peer" in whole else "tables of units"
        found.append(f"{what} cannot be offloaded to CPU memory; set parallel.host_values=false")
    if mesh.gpus == 1:
        return found
    if mesh.ahead > 1 and mesh.shard > 1:
        found.append(f"parallel.prefetch {mesh.prefetch} is above 1, the limit with sharded weights; set it to 1")
    if config.corpus.sources:
        for key, shared in (("training.batch", config.training.batch), ("corpus.lanes", config.corpus.lanes)):
            if shared % mesh.gpus:
                more = -(-shared // mesh.gpus) * mesh.gpus
                found.append(f"{key} {shared} is not a multiple of the {mesh.gpus} processes; set it to {more}")
    found += [f"{refusal.reason}; {refusal.planned or refusal.hint}" for refusal in refusals(config)]
    return found


def _notes(config: TrainConfig, mesh: Mesh) -> list[str]:
    rows, cut = config.training.batch, mesh.gpus * mesh.parts
    if rows % cut == 0 or config.corpus.sources:
        return []
    idle = 1 - rows / (-(-rows // cut) * cut)
    batch = f"training.batch {rows} in {mesh.parts} micro-batches on {mesh.gpus} GPUs"
    return [f"{batch} wastes {idle:.0%} on padding; use a multiple of {cut}"]


def _assumed(model: Described, mesh: Mesh, plan: Plan) -> list[str]:
    """Every assumption behind the hours, in words."""
    gpu, assumed = mesh.gpu, plan.assumed
    peak = gpu.half if model.half else gpu.single
    found = [f"{assumed.utilization:.0%} of the peak {peak / 1e12:,.0f} TFLOP/s"]
    if model.tables:
        found[0] += f" (half-keys scored in float32: of {gpu.single / 1e12:.0f})"
        found.append(
            f"{assumed.bandwidth:.0%} of {gpu.bandwidth / 1e12:.2f} TB/s memory bandwidth for table rows and optimizers"
        )
        found.append("all slots are read equally often, so a step touches as many rows as possible")
    if mesh.gpus > 1:
        links = f"NVLink {gpu.nvlink / 1e9:.0f} GB/s and network {gpu.network / 1e9:.0f} GB/s per GPU"
        found.append(f"{assumed.links:.0%} of {links}, 8 GPUs per machine; gathering weights overlaps with computing")
    if mesh.host_values:
        host = f"{assumed.bandwidth:.0%} of {gpu.host_bandwidth / 1e9:.0f} GB/s CPU memory"
        found.append(f"{assumed.links:.0%} of PCIe {gpu.pcie / 1e9:.0f} GB/s and {host} per GPU")
        if mesh.ahead:
            found.append("fetching offloaded rows ahead overlaps with computing")
    return [*found, "fused attention, no recomputation; excludes reading data, evaluation, checkpoints and failures"]
