"""Points of a sweep -> the same points, resized to cost the same, so that a comparison is fair. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from math import lcm
from typing import Any

from ...errors import MemxError
from ...memory_layers.config import PRODUCT_KEYS, MemoryConfig
from ...memory_layers.sizes import Sizes, model_sizes
from .shares import apply_shares
from .training import TrainConfig

_LARGEST = 2**24  # feed-forward widths, half-keys and experts are searched up to here
_CLOSE = 0.02  # share of the target that a match may be off


def match_points(points: Sequence[TrainConfig]) -> list[TrainConfig]:
    """Resize the points whose `match.by` asks for it; the others come back as they are.

    flops: the target is the dense model of the same base. The feed-forwards that are left, or the experts of a MoE,
    get the width that meets it; with `match.resize` width the whole model first comes near it. parameters: the target
    is the first point of the same base, as it is after its own match; dense models get wider feed-forwards, tables
    other slots, MoEs other experts; of several memories the first. `memory.sparse` is split at every size tried.
    Raises MemxError if nothing is there to resize, or nothing comes close.
    """
    matched = [point if point.match.by == "none" else _matched(point, points) for point in points]
    return [point.model_copy(update={"memory": apply_shares(point.memory, point.model)}) for point in matched]


def sizes_of(config: TrainConfig) -> Sizes:
    """Sizes with the vocabulary that the config asks for."""
    return model_sizes(config.model, apply_shares(config.memory, config.model, close=False), config.data.vocabulary)


def _matched(point: TrainConfig, points: Sequence[TrainConfig]) -> TrainConfig:
    by = point.match.by
    if by == "flops":
        dense = point.model_copy(update={"memory": MemoryConfig(kind="dense")})
        target = point.match.times * sizes_of(dense).flops
        if point.match.resize == "width":
            point = _widened(point, target)
        resized = _smallest(point, _wider, lambda sizes: sizes.flops, target)
    else:
        first = next(other for other in points if other.model == point.model)
        if point.memory.sparse is not None:
            raise MemxError(
                "match.by parameters and memory.sparse both set the size of the memory",
                hint="leave one of them out, or set match.by to flops",
            )
        if len(points) == 1:
            raise MemxError(
                "match.by parameters needs a second run to compare with",
                hint="add a sweep or variants, or set match.by to none",
            )
        if point is first and point.match.times == 1.0:
            return point.model_copy(update={"match": point.match.model_copy(update={"by": "none"})})
        if first.match.by == "flops":
            first = _matched(first, points)
        target = point.match.times * sizes_of(first).parameters_total
        resized = _smallest(point, _larger, lambda sizes: sizes.parameters_total, target)
    return resized.model_copy(update={"match": point.match.model_copy(update={"by": "none"})})


def _smallest(
    point: TrainConfig, resize: Callable[[TrainConfig, int], TrainConfig], cost: Callable[[Sizes], int], target: float
) -> TrainConfig:
    """The size whose cost is nearest to the target, by bisection: costs rise with sizes."""
    smallest = _smallest_size(point.memory) if resize is _larger else 1
    low, high = smallest, _LARGEST
    while low < high:
        middle = (low + high) // 2
        if cost(sizes_of(resize(point, middle))) < target:
            low = middle + 1
        else:
            high = middle
    nearest = min(
        (resize(point, size) for size in {max(smallest, low - 1), low}),
        key=lambda config: abs(cost(sizes_of(config)) - target),
    )
    reached = cost(sizes_of(nearest))
    if abs(reached - target) > _CLOSE * target and not (resize is _larger and point.memory.kind == "moe"):
        what = f"match.by {point.match.by}: {point.variant or point.memory.kind} cannot be resized to {target:,.0f}"
        raise MemxError(
            f"{what}; the nearest is {reached:,}", hint="lower memory.heads or memory.top_k, or change match.times"
        )
    return nearest


def _smallest_size(memory: MemoryConfig) -> int:
    if memory.kind in PRODUCT_KEYS:
        return memory.kept  # half-keys
    return memory.experts_per_token if memory.kind == "moe" else 1


def _wider(point: TrainConfig, width: int) -> TrainConfig:
    if len(point.memory.parts) == 1 and point.memory.kind == "moe" and point.memory.expert_width is not None:
        return point.model_copy(update={"memory": _with(point.memory, expert_width=width)})
    return point.model_copy(update={"model": point.model.model_copy(update={"feed_forward": width})})


def _widened(point: TrainConfig, target: float) -> TrainConfig:
    """The base at the width, feed-forwards in proportion, whose FLOPs are nearest to the target; it keeps its name."""
    model = point.model
    step = lcm(4, 2 * model.heads)  # of widths with even heads and key halves
    proportion = model.feed_forward_width / model.width

    def at(steps: int) -> TrainConfig:
        width = steps * step
        shape = {"name": model.title, "width": width, "feed_forward": max(1, round(proportion * width))}
        return point.model_copy(update={"model": model.model_copy(update=shape)})

    low = next(i for i in count(1) if sizes_of(at(i)).flops >= target)
    return min((at(i) for i in {max(1, low - 1), low}), key=lambda config: abs(sizes_of(config).flops - target))


def _larger(point: TrainConfig, size: int) -> TrainConfig:
    if point.memory.kind in (*PRODUCT_KEYS, "engram"):
        return point.model_copy(update={"memory": _with(point.memory, slots=size * size)})
    if point.memory.kind == "moe":
        return point.model_copy(update={"memory": _with(point.memory, experts=size)})
    return _wider(point, size)


def _with(memory: MemoryConfig, **changes: Any) -> MemoryConfig:
    return memory.model_copy(update=changes)
