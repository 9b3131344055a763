"""What would make a run fit: its config, and what a config takes -> settings to change, each tried before it is named.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from ...errors import MemxError
from ..config.training import TrainConfig
from .cost import PART_NAMES
from .mesh import Mesh

Changes = dict[str, Any]

_COMPUTING, _WEIGHTS = ("training.accumulate", "parallel.prefetch"), ("parallel.shard", "parallel.prefetch")
_TABLE = (
    "parallel.table_ranks",
    "parallel.host_values",  # up to here, what is learned stays the same
    "training.value_second_moment",
    "training.value_moments",
    "training.value_dtype",
)
_KEYS = {  # what makes a part smaller, the best first
    **dict.fromkeys(("activations", "exchange", "fetched rows"), _COMPUTING),
    **dict.fromkeys(("weights", "gradients", "optimizer", "gathered", "copies"), _WEIGHTS),
    **dict.fromkeys(("table", "table optimizer", "table gradient", "host"), _TABLE),
    **dict.fromkeys(("step's reads", "grouping"), ("parallel.host_values",)),
}
_VALUES = {
    "parallel.shard": None,
    "parallel.prefetch": 0,
    "parallel.table_ranks": None,
    "parallel.host_values": True,
    "training.value_second_moment": "row",
    "training.value_moments": "bfloat16",
    "training.value_dtype": "bfloat16",
}
_BESIDES = {  # what else helps, but changes the run itself
    "activations": "lower data.sequence",
    "step's reads": "lower training.batch, memory.top_k or memory.heads",
    "grouping": "lower training.batch, memory.top_k or memory.heads",
}


class Taken(NamedTuple):
    """What a config takes: bytes of one GPU by part, its mesh, and how many reasons there are not to train it."""

    held: Mapping[str, int]
    mesh: Mesh
    refused: int

    @property
    def excess(self) -> float:
        """Bytes beyond the memory of the GPU and beyond its share of the CPU memory."""
        gpu = self.mesh.gpu
        return max(0, self.held["total"] - gpu.memory) + max(0, self.held["host"] - gpu.host_memory)

    @property
    def parts(self) -> list[str]:
        """The parts that can be made smaller, the largest first."""
        full = self.held["host"] > self.mesh.gpu.host_memory
        found = [name for name in self.held if name not in ("total", "host", "asking")] + ["host"] * full
        return sorted(found, key=lambda name: -self.held[name])

    @property
    def need(self) -> str:
        """Gigabytes of the memories that are too small, or of the GPU if none is."""
        gpu, found = self.mesh.gpu, []
        if self.held["total"] > gpu.memory or not self.excess:
            found.append(f"{self.held['total'] / 1e9:,.0f} GB of {gpu.memory / 1e9:.0f} GB")
        if self.held["host"] > gpu.host_memory:
            found.append(f"{self.held['host'] / 1e9:,.0f} GB of {gpu.host_memory / 1e9:.0f} GB of CPU memory per GPU")
        return " and ".join(found)


def problem_of(config: TrainConfig, take: Callable[[TrainConfig], Taken]) -> str | None:
    """Why a config does not fit and what to set, in one line; None if it fits.

    Args:
        config: The run's.
        take: What a config takes on the planned GPUs. Raises MemxError for one that cannot be planned.
    """
    now = take(config)
    if not now.excess:
        return None
    changes, then = changes_of(config, take)
    largest = now.parts[0]
    size = f"{PART_NAMES.get(largest, largest)}, {now.held[largest] / 1e9:,.0f} GB"
    told = f"does not fit: {now.need}; largest part: {size}"
    sets = ("all of " if len(changes) > 1 else "") + " ".join(f"--set {key}={_yaml(to)}" for key, to in changes.items())
    if not then.excess:
        return f"{told}; use {sets} (then {then.need})"
    besides = _BESIDES.get(then.parts[0])
    more = "plan more GPUs" + (f", or {besides}" if besides else "")
    return f"{told}; {more}" + (f"; {sets} would still take {then.need}" if changes else "")


def changes_of(config: TrainConfig, take: Callable[[TrainConfig], Taken]) -> tuple[Changes, Taken]:
    """Settings that together make a config fit, or as small as they can, and what it takes with them.

    The largest part that can be made smaller comes first. No setting is named that is not needed.
    """
    changes: Changes = {}
    first = then = take(config)
    while then.excess and (step := _step(config, changes, then, take)):
        changes, then = step
    if then.excess:
        return changes, then
    for key in reversed(list(changes)):
        for fewer in _weaker(changes, key, config):
            tried = _try(config, fewer, take)
            as_good = tried and not tried.excess and tried.held["total"] <= first.held["total"]
            if tried and as_good and tried.refused <= first.refused:
                changes, then = fewer, tried
                break
    return changes, then


def _step(
    config: TrainConfig, changes: Changes, now: Taken, take: Callable[[TrainConfig], Taken]
) -> tuple[Changes, Taken] | None:
    """One more change that makes a config take less, for the largest part that there is one for."""
    for part in now.parts:
        for key in _KEYS.get(part, ()):
            more = {**changes, key: _most(config, now.mesh) if key == "training.accumulate" else _VALUES[key]}
            tried = _try(config, more, take) if more != changes else None
            smaller = tried and tried.excess < now.excess and tried.held["total"] <= now.held["total"]
            if tried and smaller and tried.refused <= now.refused:
                return more, tried
    return None


def _weaker(changes: Changes, key: str, config: TrainConfig) -> Iterator[Changes]:
    """The changes without one of them; of more micro-batches, then with fewer, from few to many."""
    yield {name: to for name, to in changes.items() if name != key}
    if key == "training.accumulate":
        parts = 2 * config.training.accumulate
        while parts < changes[key]:
            yield {**changes, key: parts}
            parts *= 2


def _most(config: TrainConfig, mesh: Mesh) -> int:
    """Micro-batches of one row on each GPU."""
    return max(config.training.accumulate, -(-config.training.batch // mesh.gpus))


def _try(config: TrainConfig, changes: Changes, take: Callable[[TrainConfig], Taken]) -> Taken | None:
    """What a changed config takes; None if it is not allowed."""
    fields = config.model_dump()
    for key, to in changes.items():
        group, _, name = key.partition(".")
        fields[group][name] = to
    try:
        return take(TrainConfig.model_validate(fields))
    except (MemxError, ValidationError):
        return None


def _yaml(value: Any) -> str:
    return "null" if value is None else "true" if value is True else str(value)
