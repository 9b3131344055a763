"""Eviction in one layer of a cache: which tokens stay, and how what stays is packed.

Sequences that go in step make a group; b of them have t tokens each at most. See `layer.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.evict_gather import evict_gather
from ..policies.base import View
from ..policies.keep import kept_tokens

if TYPE_CHECKING:
    from .layer import EvictingLayer

_STEP = 64  # tokens between looks at what has left a layer's window


def stays(layer: EvictingLayer, group: slice, scale: float, *, due: bool, waiting: int = 0) -> Tensor:
    """Which tokens of a group stay: [b, H, t], over `layer.slots(group)`; all that exist unless it is due.

    waiting: so many of the newest queries have not been observed yet; their tokens stay.
    """
    slots = layer.slots(group)
    exists = layer.exists(group, slots)
    if not due:
        there = torch.ones((), dtype=torch.bool, device=layer.device) if exists is None else exists
        if layer.window is not None:
            there = there & (layer.positions[group, :, slots] > _out_of_sight(layer, group))
        return there.expand(*layer.keys[group].shape[:2], slots.stop - slots.start)
    policy = layer.policy
    view = _view(layer, group, slice(slots.start, slots.stop - waiting), scale, waiting)
    exists = None if exists is None else exists[..., : exists.shape[2] - waiting]
    if layer.window is not None:  # the next query sees no further back, and the newest is there whatever it is
        near = view.ages < max(1, layer.window - 1)
        exists = near if exists is None else exists & near
    kept = kept_tokens(
        policy.scores(view),
        threshold=policy.rule.threshold,
        budget=view.room,
        grouping=policy.rule.grouping,
        exists=exists,
        protected=_protected(layer, view.recent.positions),
    )
    return F.pad(kept, (0, waiting), value=True)


def hold(layer: EvictingLayer, kept: list[Tensor], groups: list[slice]) -> None:
    """Hold the kept tokens of all groups alone, packed to the right."""
    counts: list[list[int]] = [held for stay in kept for held in stay.sum(-1).tolist()]
    most, size = max(c for held in counts for c in held), layer.keys.shape[2]
    if all(c == size for held in counts for c in held):
        return
    order = []
    for group, stay in zip(groups, kept, strict=True):
        # a stable sort brings the kept ones to the end in their order
        last = stay.to(torch.uint8).sort(dim=-1, stable=True).indices[..., -most:] + layer.slots(group).start
        order.append(F.pad(last, (most - last.shape[2], 0)))
    state = F.pad(layer.state, (0, 0, 0, size - layer.state.shape[2]))
    by_key = [layer.keys, layer.values, layer.positions, *([state] if state.shape[3] else [])]
    layer.keys, layer.values, layer.positions, *beside = evict_gather(by_key, torch.cat(order))
    layer.state = beside[0] if beside else state[:, :, :most]
    layer.counts = counts


def _view(layer: EvictingLayer, group: slice, slots: slice, scale: float, waiting: int) -> View:
    """What a policy sees of a group that is due; slots leave out the tokens of waiting queries."""
    policy, context = layer.policy, layer.policy.context
    recent = layer.keys[group, :, :0] if layer.recent is None else layer.recent[group]
    stop = recent.shape[2] - waiting
    recent = recent[:, :, stop - context : stop]
    lse = layer.lse[group] if layer.lse is not None and policy.hop else None
    lse = lse if context else recent.new_empty(recent.shape[:3])
    met = layer.attention(group, recent, lse, slots, scale, left=waiting)
    lengths = [s + n for s, n in layer.arrival.pairs()][group]
    seen, rooms = torch.tensor(lengths, device=layer.device), policy.rule.room(lengths)
    room = None if rooms is None else torch.tensor(rooms, device=layer.device).sub(waiting).clamp_min(1)
    return View(layer.index, met, layer.values[group, :, slots], layer.state[group, :, slots], seen, room)


def passes(layer: EvictingLayer) -> bool:
    """Whether tokens may have left a layer's window since it was last looked at."""
    return layer.window is not None and any(
        (before + now) // _STEP > before // _STEP and before + now > layer.window
        for before, now in layer.arrival.pairs()
    )


def _out_of_sight(layer: EvictingLayer, group: slice) -> Tensor:
    """The last position that no query to come sees, nor one that waits to be observed: [b, 1, 1].

    It moves by steps of the length alone, so that a layer holds the same however its tokens came.
    """
    assert layer.window is not None
    back = layer.window + layer.policy.hop
    last = [(s + n) // _STEP * _STEP - back for s, n in layer.arrival.pairs()][group]
    return torch.tensor(last, device=layer.device)[:, None, None]


def _protected(layer: EvictingLayer, positions: Tensor) -> Tensor | None:
    """The tokens that are never evicted: [b, H, t]."""
    spans = [(positions >= start) & (positions < stop) for start, stop in layer.protect]
    return torch.stack(spans).any(0) if spans else None
