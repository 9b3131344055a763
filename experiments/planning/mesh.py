"""How a run lies on GPUs: a config and their number -> what each computes, what ranks share out. No torch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import MemxError
from ..config.training import TrainConfig
from .gpus import GPUS, Gpu

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Assumptions:
    """What nobody measured: the share of each peak that is reached.

    utilization: of the peak FLOPs. bandwidth: of GPU and host memory. links: of NVLink, network and PCIe.
    """

    utilization: float = 0.4
    bandwidth: float = 0.6
    links: float = 0.7


@dataclass(frozen=True)
class Plan:
    """What `memx train --dry-run` is asked to plan for. tokens: of the whole run, in place of the config's steps."""

    gpus: int = 1
    gpu: Gpu = GPUS["h100"]
    assumed: Assumptions = Assumptions()
    tokens: int | None = None


@dataclass(frozen=True)
class Mesh:
    """A run on a number of GPUs.

    shard: ranks that share out the dense weights. table: how table_ranks share out a table, "" if there is none.
    tokens: of one GPU in one of the `parts` that a step is computed in.
    """

    gpus: int
    gpu: Gpu
    shard: int
    table: str
    table_ranks: int
    host_values: bool
    prefetch: int
    parts: int
    tokens: int

    @property
    def step_tokens(self) -> int:
        """Tokens of a step on all GPUs."""
        return self.tokens * self.parts * self.gpus

    @property
    def ahead(self) -> int:
        """Host values: micro-batches whose forward pass has begun before its turn."""
        return min(self.prefetch, self.parts - 1) if self.host_values else 0

    @property
    def copies(self) -> int:
        """Copies of the value table."""
        return self.gpus // self.table_ranks


def mesh_of(config: TrainConfig, plan: Plan, value_widths: Sequence[int]) -> Mesh:
    """Lay a config out. value_widths: columns of its value tables.

    Raises MemxError for a mesh that the GPUs or the table cannot be cut into.
    """
    parallel, training = config.parallel, config.training
    shard = _divisor("parallel.shard", parallel.shard, plan.gpus)
    ranks = _divisor("parallel.table_ranks", parallel.table_ranks, plan.gpus)
    if not value_widths or parallel.table == "replicated" or any(part.whole_tables for part in config.memory.parts):
        ranks = 1  # tables of PEER and of units are not shared out
    uneven = [width for width in value_widths if width % ranks] if parallel.table == "width" else []
    if uneven:
        raise MemxError(
            f"a value table of width {uneven[0]} cannot be split evenly over parallel.table_ranks {ranks}",
            hint="set parallel.table_ranks to a divisor of the width, or parallel.table=rows",
        )
    parts = training.accumulate
    if config.corpus.sources:  # a rank splits rows of its own; facts are split first, and then shared out and padded
        parts = min(parts, -(-training.batch // plan.gpus))
    rows = -(-training.batch // (plan.gpus * parts))
    return Mesh(
        gpus=plan.gpus,
        gpu=plan.gpu,
        shard=shard,
        table="" if not value_widths else parallel.table if ranks > 1 else "replicated",
        table_ranks=ranks,
        host_values=parallel.host_values and bool(value_widths),
        prefetch=parallel.prefetch,
        parts=parts,
        tokens=rows * row_tokens(config),
    )


def row_tokens(config: TrainConfig) -> int:
    """Tokens of one of the `training.batch` a step: a row of a corpus, a prompt, or a usual document, a quarter row."""
    if config.eviction.active:
        return config.eviction.length
    return config.data.sequence if config.corpus.sources else max(8, config.data.sequence // 4)


def parse_count(text: str) -> int:
    """Read 1T, 100B, 1.5e9 or 2_000_000 as a count. Raises MemxError for what is none."""
    match = re.fullmatch(r"([0-9][0-9_.]*(?:[eE]\+?[0-9]+)?)\s*([kKmMbBtT]?)", text.strip())
    try:
        count = round(float(match[1].replace("_", "")) * _UNITS[match[2].lower()]) if match else 0
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise MemxError(f"--tokens {text!r} is not a number of tokens", hint="use for example 1T, 100B or 2e9")
    return count


def _divisor(key: str, asked: int | None, gpus: int) -> int:
    ranks = asked or gpus
    if gpus % ranks:
        raise MemxError(f"{key} {ranks} is not a divisor of {gpus} GPUs", hint=f"set {key} to a divisor of {gpus}")
    return ranks
