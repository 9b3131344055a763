"""Observation: the new queries of a layer go to its policy, a hop at a time; the rest waits.

A policy takes queries by hops of 16, say; a chunk of a prompt or a generated token seldom ends there. So a layer keeps
in `recent` the `context` queries that the policy saw last and those that still wait:

    before    | context: seen, looked at again | unobserved |
    + new     | context                        | unobserved | new queries                |
    after     . . . . . . . . . . . . | context                       | unobserved       |
                                        the last that were observed     less than a hop

The policy then sees the same hops, however a caller cuts the prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..policies.base import Block, summarise
from .state import LayerState
from .views import attention_of


def observe(layer: LayerState, query: Tensor, lse: Tensor | None) -> None:
    """Let a layer's policy see the new queries, which have just attended.

    Args:
        layer: Gets `recent`, `lse`, `policy_state` and `summary` of all sequences.
        query: [B, Hq, Q, d].
        lse: The log-sum-exp of their scores [B, Hq, Q], if it is known.
    """
    if layer.recent is None:
        _start(layer, query)
    parts = [_observe_group(layer, query, lse, group) for group in layer.new_tokens.groups]
    if len(parts) == 1:
        layer.recent, layer.lse, layer.policy_state, layer.summary = parts[0]
        return
    # groups may wait with different numbers of queries: the newest are the last, so that pads go before them
    widest = max(recent.shape[2] for recent, *_ in parts)
    layer.recent = torch.cat([F.pad(recent, (0, 0, widest - recent.shape[2], 0)) for recent, *_ in parts])
    if layer.policy.hop:
        layer.lse = torch.cat([lse for _, lse, *_ in parts])
        size = max(state.shape[2] for _, _, state, _ in parts)
        layer.policy_state = torch.cat([F.pad(state, (0, 0, 0, size - state.shape[2])) for _, _, state, _ in parts])
        layer.summary = torch.cat([summary for *_, summary in parts])


def _start(layer: LayerState, query: Tensor) -> None:
    """Before a sequence come queries that attended to nothing: an infinite lse makes their attention zero."""
    context = layer.policy.context if layer.policy.hop else 0
    layer.start_summary(query)
    layer.recent = query.new_zeros(*query.shape[:2], context, query.shape[3])
    layer.lse = query.new_full(layer.recent.shape[:3], torch.inf, dtype=torch.promote_types(query.dtype, torch.float32))


def _observe_group(
    layer: LayerState, query: Tensor, lse: Tensor | None, group: slice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The recent queries, their log-sum-exp, the policy's state and summary of a group after its new queries."""
    policy, first = layer.policy, group.start or 0
    hop, context = policy.hop, policy.context
    seen, new = layer.new_tokens.seen[first], layer.new_tokens.new[first]
    assert layer.recent is not None and layer.lse is not None and layer.summary is not None
    summary = layer.summary[group]
    if not hop:
        older = layer.recent.shape[2] - max(context - new, 0)  # a part of all queries would keep the memory of all
        recent = torch.cat([layer.recent[group, :, max(older, 0) :], query[group, :, max(new - context, 0) : new]], 2)
        return recent, layer.lse[group], layer.policy_state[group], summary
    unobserved = seen % hop
    recent = layer.recent[group, :, layer.recent.shape[2] - context - unobserved :]
    recent = torch.cat([recent, query[group, :, :new]], 2)
    ready = (unobserved + new) // hop * hop
    if not ready:
        return recent, layer.lse[group], layer.policy_state[group], summary
    slots, later = layer.slots(group), unobserved + new - ready
    keys = slice(slots.start, slots.stop - later)
    # the host's own lse is that of all new queries; queries that waited attended in an earlier pass
    known = lse[group, :, :ready].contiguous() if lse is not None and not unobserved else None
    attention = attention_of(layer, group, recent[:, :, context : context + ready], known, keys, later=later)
    old_keys = slice(slots.start, keys.stop - ready)
    # The context's queries attended in an earlier pass. Their attention to the keys that are left is computed anew,
    # with the lse of that time, which counts keys that may be gone by now.
    before = attention_of(layer, group, recent[:, :, :context], layer.lse[group], old_keys, later=later + ready)
    state = layer.policy_state[group, :, old_keys] if old_keys.stop > old_keys.start else None
    block = Block(attention, before, state, layer.index)
    observed, summary = policy.observe(block).to(layer.policy_state.dtype), summarise(policy, block, summary)
    observed = F.pad(observed, (0, 0, keys.start, 0))
    lses = torch.cat([layer.lse[group], attention.lse], 2)
    return recent[:, :, ready:].clone(), lses[:, :, lses.shape[2] - context :].clone(), observed, summary
