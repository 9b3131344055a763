"""Eviction from all layers of a cache at once, under a rule whose heads share one budget.

What a head keeps then depends on the scores of all others, so that the choice is made when the last layer has
attended. b sequences of a group, L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MemxError
from ..policies.keep import kept_together, kept_tokens
from ..policies.shares import HeadShares, total_tokens
from .evict import candidates, compact, keep_mask
from .state import LayerState


def evict_together(layers: Sequence[LayerState], *, due: Sequence[bool], unobserved: Sequence[int]) -> None:
    """Let the policy of all layers choose what stays, and drop the rest. For the arguments see `masks_together`."""
    for layer, masks in zip(layers, masks_together(layers, due=due, unobserved=unobserved), strict=True):
        compact(layer, masks)


def masks_together(
    layers: Sequence[LayerState], *, due: Sequence[bool], unobserved: Sequence[int]
) -> list[list[Tensor]]:
    """Let the policy of all layers choose what stays.

    Args:
        layers: All layers of a cache, which have the same policy and new tokens.
        due: Of each group, whether the policy chooses now; else all stay that a query to come may see.
        unobserved: Of each group, how many of its newest queries the policy has not seen yet; their tokens stay.

    Returns:
        Of each layer and group what stays, as from `keep_mask`.

    Raises:
        MemxError: The rule's table of head shares is for another model, or the policy returns no scores.
    """
    masks: list[list[Tensor]] = [[] for _ in layers]
    for group, now, waiting in zip(layers[0].new_tokens.groups, due, unobserved, strict=True):
        chosen = _masks(layers, group, waiting) if now else [keep_mask(one, group, due=False) for one in layers]
        for of_layer, mask in zip(masks, chosen, strict=True):
            of_layer.append(mask)
    return masks


def _masks(layers: Sequence[LayerState], group: slice, unobserved: int) -> list[Tensor]:
    """What stays of a group that is due, of each layer as from `keep_mask`."""
    rule, heads = layers[0].policy.rule, [layer.all_heads for layer in layers]
    assert rule.budget is not None
    lengths = [seen + new for seen, new in layers[0].new_tokens.pairs()][group]
    reach = [None if layer.window is None else max(1, layer.window - 1) for layer in layers]
    if rule.allocation == "table":
        assert rule.shares is not None
        _check_shape(rule.shares, heads)
        # tokens that no policy has seen yet stay within the budget, not beyond it
        rooms = [rule.shares.rooms(rule.budget, length, reach, unobserved + 1) for length in lengths]  # [b][L][H]
        kept = []
        for number, layer in enumerate(layers):
            own = slice(layer.first_head, layer.first_head + layer.keys.shape[1])
            room = torch.tensor([of[number][own] for of in rooms], device=layer.device).sub(unobserved).clamp_min(1)
            found = candidates(layer, group, unobserved, room)
            conditions: dict[str, Any] = found.conditions
            kept.append(kept_tokens(found.scores, budget=room, **conditions))
    else:
        waiting = unobserved * sum(heads)
        totals = [total_tokens(rule.budget, length, heads, reach) - waiting for length in lengths]
        found = [candidates(layer, group, unobserved) for layer in layers]
        place = layers[0].device  # layers may lie on several
        conditions = {name: [_on(place, one.conditions[name]) for one in found] for name in found[0].conditions}
        scores, total = [one.scores.to(place) for one in found], torch.tensor(totals, device=place)
        shards = layers[0].shards if heads != [layer.keys.shape[1] for layer in layers] else None
        own = scores
        if shards is not None:
            scores, conditions = shards.gather(scores, conditions)
        kept = kept_together(scores, total, allocation=rule.allocation, **conditions)
        if shards is not None:
            kept = [shards.own(mask, one) for mask, one in zip(kept, own, strict=True)]
    return [F.pad(mask.to(layer.device), (0, unobserved), value=True) for layer, mask in zip(layers, kept, strict=True)]


def _on(place: torch.device, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(place)


def _check_shape(shares: HeadShares, heads: Sequence[int]) -> None:
    """Raise MemxError unless a table has a share for each of a model's heads, so many in each layer."""
    if shares.heads != list(heads):
        theirs, ours = (f"{len(of)} layers, {sum(of)} heads" for of in (shares.heads, heads))
        raise MemxError(
            f"the table of head shares is for another model: it has {theirs}, the model {ours}",
            hint="measure a table on this model, or use --allocation global",
        )
