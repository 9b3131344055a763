"""Eviction in one layer of a cache: which tokens stay, and how those are packed.

Sequences at one length make a group; b of them have t tokens each at most. See `state.py`. Where the heads of all
layers share one budget, the choice is made in `allocate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MemxError
from ...kernels.evict_gather import evict_gather
from ..policies.base import Policy, View
from ..policies.keep import kept_tokens
from .ragged import RaggedTokens
from .state import LayerState
from .views import attention_of

_WINDOW_STEP = 64  # tokens between looks at what has left a layer's window


def keep_mask(layer: LayerState, group: slice, *, due: bool, unobserved: int = 0) -> Tensor:
    """Which tokens of a group stay.

    Args:
        layer: What holds them.
        group: Sequences at one length.
        due: Whether the policy chooses now; else all stay that a query to come may see.
        unobserved: How many of the newest queries the policy has not seen yet; their tokens stay.

    Returns:
        [b, H, t], bool, over `layer.slots(group)`.
    """
    layer = layer.padded()
    slots = layer.slots(group)
    exists = layer.exists(group, slots)
    if not due:
        keep = torch.ones((), dtype=torch.bool, device=layer.device) if exists is None else exists
        if layer.window is not None:
            keep = keep & (layer.positions[group, :, slots] > _last_out_of_window(layer, group))
        return keep.expand(*layer.keys[group].shape[:2], slots.stop - slots.start)
    rule, found = layer.policy.rule, candidates(layer, group, unobserved)
    chosen: dict[str, Any] = dict(threshold=rule.threshold, budget=found.room, grouping=rule.grouping)
    if layer.all_heads > layer.keys.shape[1] and found.room is None and rule.grouping == "layer_max":
        assert layer.shards is not None
        scores, shared = layer.shards.gather([found.scores], {n: [one] for n, one in found.conditions.items()})
        conditions: dict[str, Any] = {name: one for name, (one,) in shared.items()}
        kept = kept_tokens(scores[0], **chosen, **conditions)
        kept = layer.shards.own(kept, found.scores)
    else:
        conditions = found.conditions
        kept = kept_tokens(found.scores, **chosen, **conditions)
    return F.pad(kept, (0, unobserved), value=True)


@dataclass(frozen=True)
class Candidates:
    """The tokens of a group that its policy chooses from, t in each head at most.

    Attributes:
        scores: [b, H, t].
        room: How many the rule lets each head keep [b]; None without a budget.
        exists, protected, preferred: As `kept_tokens` takes them.
    """

    scores: Tensor
    room: Tensor | None
    exists: Tensor | None
    protected: Tensor | None
    preferred: Tensor | None

    @property
    def conditions(self) -> dict[str, Tensor | None]:
        """Which tokens exist and which are protected, by the names that `kept_tokens` has for them."""
        return {"exists": self.exists, "protected": self.protected, "preferred": self.preferred}


def candidates(layer: LayerState, group: slice, unobserved: int = 0, rooms: Tensor | None = None) -> Candidates:
    """Let a layer's policy score the tokens of a group.

    Args:
        layer: What holds them.
        group: Sequences at one length, all due.
        unobserved: How many of the newest queries the policy has not seen yet; their tokens are left out.
        rooms: How many tokens each head may keep, where a table gives them different numbers [b, H].

    Returns:
        The tokens that it has seen, with its scores.
    """
    layer = layer.padded()
    slots = layer.slots(group)
    view = replace(_view(layer, group, slice(slots.start, slots.stop - unobserved), unobserved), rooms=rooms)
    exists = layer.exists(group, slots)
    exists = None if exists is None else exists[..., : exists.shape[2] - unobserved]
    if layer.window is not None:  # the next query sees no further back, and the newest is there whatever it is
        near = view.ages < max(1, layer.window - 1)
        exists = near if exists is None else exists & near
    protected = _protected(layer, view.recent.positions)
    return Candidates(_scores(layer.policy, view, exists), view.room, exists, protected, _preferred(layer, view))


def _scores(policy: Policy, view: View, exists: Tensor | None) -> Tensor:
    """A policy's scores [b, H, t] of a view. Raises MemxError for another shape, or a token's that is not a number."""
    try:
        scores = policy.scores(view)
    except (MemxError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the code of a user's own policy raises
        raise MemxError(
            f"policy {policy.name} fails in layer {view.layer}: {type(error).__name__}: {error}",
            hint="memx policies check tries a policy on a small model; --debug shows where it fails",
        ) from error
    if not isinstance(scores, Tensor):
        kind = type(scores).__name__
        hint = "return one score for each cached token: [B, H, T]"
        raise MemxError(f"policy {policy.name} returned {kind} as scores, not a tensor", hint=hint)
    scores = scores if scores.is_floating_point() else scores.double()
    if scores.shape != view.key.shape[:3]:
        raise MemxError(
            f"policy {policy.name} returned scores of shape {list(scores.shape)}, not {list(view.key.shape[:3])}",
            hint="return one score for each cached token: [B, H, T]",
        )
    unknown = scores.isnan() if exists is None else scores.isnan() & exists
    if unknown.any():
        raise MemxError(
            f"policy {policy.name} returned scores that are not numbers (NaN) in layer {view.layer}",
            hint="if the model computes in half precision, use float32; else check the policy's numbers",
        )
    return scores


def compact(layer: LayerState, masks: list[Tensor]) -> None:
    """Drop all tokens but the kept ones. Where all heads keep as many, those are packed in slots; else head by head.

    Args:
        layer: What holds the tokens; its memory shrinks to those that are kept.
        masks: `keep_mask` of each group of `layer.new_tokens`.
    """
    counts: list[list[int]] = [heads for mask in masks for heads in mask.sum(-1).tolist()]
    if counts == layer.counts and not layer.new_tokens.padded:
        return
    whole, groups = layer.padded(), layer.new_tokens.groups
    size = whole.keys.shape[2]
    state = F.pad(whole.policy_state, (0, 0, 0, size - whole.policy_state.shape[2]))
    by_key = [whole.keys, whole.values, whole.positions, state]
    if len({count for heads in counts for count in heads}) == 1:
        _pack(layer, [whole.slots(group).start for group in groups], masks, by_key)
    else:
        starts = [(whole.slots(group), mask) for group, mask in zip(groups, masks, strict=True)]
        kept = torch.cat([F.pad(mask, (slots.start, size - slots.stop)) for slots, mask in starts])
        layer.ragged = RaggedTokens.of(counts, kept, *by_key)
        layer.keys, layer.values, layer.positions, layer.policy_state = (x[:, :, :0].clone() for x in by_key)
    layer.counts = counts


def _pack(layer: LayerState, starts: list[int], masks: list[Tensor], by_key: list[Tensor]) -> None:
    """Store the kept tokens in slots, as many of every head.

    starts: the first slot of each group's mask; by_key: what is stored by key, in slots.
    """
    order = []
    for start, mask in zip(starts, masks, strict=True):
        # a stable sort of the mask brings the kept tokens to the end, in their order
        kept = int(mask[0, 0].sum())
        order.append(mask.to(torch.uint8).sort(dim=-1, stable=True).indices[..., mask.shape[2] - kept :] + start)
    *some, state = by_key
    # all that lies by key in one call, which is one launch on a GPU
    gathered = evict_gather([*some, *([state] if state.shape[3] else [])], torch.cat(order))
    layer.ragged = None
    layer.keys, layer.values, layer.positions = gathered[:3]
    layer.policy_state = gathered[3] if state.shape[3] else state[:, :, : layer.keys.shape[2]]


def window_moved(layer: LayerState) -> bool:
    """Whether tokens may have left a layer's window since it was last looked at."""
    return layer.window is not None and any(
        (seen + new) // _WINDOW_STEP > seen // _WINDOW_STEP and seen + new > layer.window
        for seen, new in layer.new_tokens.pairs()
    )


def _view(layer: LayerState, group: slice, slots: slice, unobserved: int) -> View:
    """What a policy sees of a group that is due; slots leave out the tokens of unobserved queries."""
    policy, context = layer.policy, layer.policy.context
    recent = layer.keys[group, :, :0] if layer.recent is None else layer.recent[group]
    stop = recent.shape[2] - unobserved
    recent = recent[:, :, stop - context : stop]
    lse = layer.lse[group] if layer.lse is not None and policy.hop else None
    lse = lse if context else recent.new_empty(recent.shape[:3])
    attention = attention_of(layer, group, recent, lse, slots, later=unobserved)
    lengths = [seen + new for seen, new in layer.new_tokens.pairs()][group]
    budgets = policy.rule.budget_tokens(lengths)
    # tokens that no policy has seen yet stay within the budget, not beyond it
    room = None if budgets is None else torch.tensor(budgets, device=layer.device).sub(unobserved).clamp_min(1)
    value, state = layer.values[group, :, slots], layer.policy_state[group, :, slots]
    summary = None if layer.summary is None else layer.summary[group]
    seen = torch.tensor(lengths, device=layer.device)
    heads: dict[str, Any] = dict(first_head=layer.first_head, total_heads=layer.all_heads)
    return View(layer.index, attention, value, state, seen, room, summary=summary, **heads)


def _last_out_of_window(layer: LayerState, group: slice) -> Tensor:
    """The last position that no query to come sees, nor one that waits to be observed: [b, 1, 1].

    It moves by steps of the sequence's length alone, and not by calls, so that a layer holds the same however its
    tokens came.
    """
    assert layer.window is not None
    back = layer.window + layer.policy.hop
    last = [(seen + new) // _WINDOW_STEP * _WINDOW_STEP - back for seen, new in layer.new_tokens.pairs()][group]
    return torch.tensor(last, device=layer.device)[:, None, None]


def _protected(layer: LayerState, positions: Tensor) -> Tensor | None:
    """The tokens that are never evicted: [b, H, t]."""
    spans = [(positions >= start) & (positions < stop) for start, stop in layer.protect]
    return torch.stack(spans).any(0) if spans else None


def _preferred(layer: LayerState, view: View) -> Tensor | None:
    """The first and newest tokens that the rule keeps in any case, as far as the budget goes: [b, H, t]."""
    rule = layer.policy.rule
    if not rule.first and not rule.newest:
        return None
    return (view.recent.positions < rule.first) | (view.ages < rule.newest)
