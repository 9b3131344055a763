"""What a layer of an evicting cache does with new queries: hands them to its policy a hop at a time, keeps the rest.

A policy takes queries by hops of 16, say; a chunk of a prompt or a generated token seldom ends there. So a layer holds
the `context` queries that the policy has seen last and those that still wait, [B, Hq, context + waiting, d].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..policies.base import Block

if TYPE_CHECKING:
    from .layer import EvictingLayer


def note(layer: EvictingLayer, query: Tensor, lse: Tensor | None, groups: list[slice], scale: float) -> None:
    """Let a layer's policy see the new queries [B, Hq, Q, d] that have just attended; lse [B, Hq, Q] if known."""
    if layer.recent is None:
        _begin(layer, query)
    parts = [_advance(layer, query, lse, group, scale) for group in groups]
    if len(parts) == 1:
        layer.recent, layer.lse, layer.state = parts[0]
        return
    widest = max(recent.shape[2] for recent, _, _ in parts)
    layer.recent = torch.cat([F.pad(recent, (0, 0, widest - recent.shape[2], 0)) for recent, _, _ in parts])
    if layer.policy.hop:
        layer.lse = torch.cat([lse for _, lse, _ in parts])
        size = max(state.shape[2] for _, _, state in parts)
        layer.state = torch.cat([F.pad(state, (0, 0, 0, size - state.shape[2])) for _, _, state in parts])


def _begin(layer: EvictingLayer, query: Tensor) -> None:
    """Before a sequence come queries that attended to nothing."""
    context = layer.policy.context if layer.policy.hop else 0
    layer.recent = query.new_zeros(*query.shape[:2], context, query.shape[3])
    layer.lse = query.new_full(layer.recent.shape[:3], torch.inf, dtype=torch.promote_types(query.dtype, torch.float32))


def _advance(
    layer: EvictingLayer, query: Tensor, lse: Tensor | None, group: slice, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The recent queries, their log-sum-exp and the state of a group after its new queries."""
    policy, first = layer.policy, group.start or 0
    hop, context = policy.hop, policy.context
    seen, new = layer.arrival.seen[first], layer.arrival.new[first]
    assert layer.recent is not None and layer.lse is not None and layer.state is not None
    if not hop:
        recent = torch.cat([layer.recent[group], query[group, :, :new]], 2)[:, :, -context:]
        return recent, layer.lse[group], layer.state[group]
    waiting = seen % hop
    recent = layer.recent[group, :, layer.recent.shape[2] - context - waiting :]
    recent = torch.cat([recent, query[group, :, :new]], 2)
    ready = (waiting + new) // hop * hop
    if not ready:
        return recent, layer.lse[group], layer.state[group]
    slots = layer.slots(group)
    left = waiting + new - ready
    seen_keys = slice(slots.start, slots.stop - left)
    known = lse[group, :, :ready].contiguous() if lse is not None and not waiting else None
    met = layer.attention(group, recent[:, :, context : context + ready], known, seen_keys, scale, left=left)
    old_keys = slice(slots.start, seen_keys.stop - ready)
    before = layer.attention(group, recent[:, :, :context], layer.lse[group], old_keys, scale, left=left + ready)
    state = layer.state[group, :, old_keys] if old_keys.stop > old_keys.start else None
    observed = policy.observe(Block(met, before, state)).to(layer.state.dtype)
    observed = F.pad(observed, (0, 0, seen_keys.start, 0))
    lses = torch.cat([layer.lse[group], met.lse], 2)
    return recent[:, :, ready:].contiguous(), lses[:, :, lses.shape[2] - context :], observed
