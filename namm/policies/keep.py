"""Which tokens of a cache stay: scores -> a mask, of each layer by itself or of all layers together.

B sequences, L layers, H key-value heads, T tokens, oldest first. Source: Cetin et al. 2024 (arXiv 2410.13166), section
3.3; one threshold over all heads: Feng et al. 2024, "Ada-KV" (arXiv 2407.11550), of a layer, and Kim et al. 2025,
"KVzip" (arXiv 2505.23416), of all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MemxError

Grouping = Literal["layer_max", "per_head"]
Allocation = Literal["equal", "global", "table", "layer_max"]
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)


def kept_tokens(
    scores: Tensor,
    *,
    threshold: float = 0.0,
    budget: float | Tensor | None = None,
    grouping: Grouping = "layer_max",
    exists: Tensor | None = None,
    protected: Tensor | None = None,
    preferred: Tensor | None = None,
) -> Tensor:
    """Choose the tokens of a layer that stay. Sequences never influence each other; ties go to the newer token.

    Source: Cetin et al. 2024 (arXiv 2410.13166), section 3.3.

    Args:
        scores: [B, H, T].
        threshold: A token stays if it scores at least this; -inf keeps all, inf the newest alone.
        budget: Keep the best instead: so many of each head, or for a number of at most 1 that share of the tokens
            there are; a tensor of integers is so many for each sequence [B], or for each head [B, H].
        grouping: With a threshold and "layer_max" every head of a layer keeps as many as the head that keeps most,
            filled up by its next best; with "per_head" exactly its own.
        exists: [B, 1 or H, T], bool: the tokens there are; None: all.
        protected: [B, 1 or H, T], bool: those that stay whatever they score, as the newest does, budget or not.
        preferred: [B, 1 or H, T], bool: those that stay whatever they score, as far as a budget has room for them.

    Returns:
        [B, H, T], bool.

    Raises:
        MemxError: A budget that is not above 0, or a number above 1 that is not whole.
    """
    there, always, level = _levels(scores, exists, protected, preferred)
    if budget is None:
        wanted = ((scores >= threshold) & there) | (level > 1)
        if grouping == "per_head":
            return wanted
        level = torch.where(wanted, 3, level)
        always, room = wanted, wanted.sum(-1).amax(1, keepdim=True).expand(scores.shape[:2])  # [B, H]
    elif isinstance(budget, Tensor):
        room = (budget[:, None] if budget.dim() == 1 else budget).expand(scores.shape[:2])
    else:
        check_budget(budget)
        alive = there.sum(-1)  # [B, H]
        room = (alive * budget).long() if budget <= 1 else torch.full_like(alive, int(budget))
    room = torch.minimum(torch.maximum(room, always.sum(-1)), there.sum(-1))
    return _best(scores, room, level)


def kept_together(
    scores: Sequence[Tensor],
    total: Tensor,
    *,
    allocation: Allocation = "global",
    exists: Sequence[Tensor | None] | None = None,
    protected: Sequence[Tensor | None] | None = None,
    preferred: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Choose the tokens of all layers that stay, by one threshold. Sequences never influence each other.

    Ties go to the token that fewer tokens of its head come after, then to the earlier layer and head.

    Args:
        scores: Of each layer [B, H, T]; H and T may differ between layers.
        total: Pairs of keys and values that each sequence may keep, in all heads together [B], integers.
        allocation: With "global" the best stay, exactly so many. With "layer_max" the best stay and every head of a
            layer is filled up by its next best to as many as its fullest head has; so many pairs then are the most.
        exists, protected, preferred: Of each layer as in `kept_tokens`. None: for no layer.

    Returns:
        Of each layer [B, H, T], bool. More than `total` only where the newest and protected tokens are more.
    """
    none = [None] * len(scores)
    layers = list(zip(scores, exists or none, protected or none, preferred or none, strict=True))
    parts = [_levels(*layer) for layer in layers]
    if allocation == "layer_max":
        rooms = _fullest(_ranks(scores, [level for _, _, level in parts]), total)
        kept = []
        for one, room, (there, always, level) in zip(scores, rooms, parts, strict=True):
            room = torch.maximum(room, always.sum(-1).amax(1))[:, None]
            kept.append(_best(one, torch.minimum(room, there.sum(-1)), level))
        return kept
    assert allocation == "global", allocation
    return _best_of_all(scores, [level for _, _, level in parts], total.to(scores[0].device))


def check_budget(budget: float) -> None:
    """Raise MemxError for what is no budget: a share in (0, 1], or a whole number of tokens."""
    if not 0 < budget < inf or (budget > 1 and budget != int(budget)):
        raise MemxError(
            f"budget must be in (0, 1] or a whole number of tokens, got {budget:g}", hint="use e.g. 0.5 or 512"
        )


def newest(there: Tensor) -> Tensor:
    """The last token of each head that exists."""
    later = there.flip(-1).cumsum(-1).flip(-1)  # how many exist from here on
    return there & (later == 1)


def _levels(
    scores: Tensor, exists: Tensor | None, protected: Tensor | None, preferred: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens there are, which stay in any case, and each token's level: 0 none, 1 one, 2 preferred, 3 stays."""
    # for all heads at once where they have the same tokens
    there = scores.new_ones(1, 1, scores.shape[-1], dtype=torch.bool) if exists is None else exists
    always = newest(there) if protected is None else newest(there) | (protected & there)
    level = there.to(torch.uint8) + always + always
    if preferred is not None:
        level = level.where(~(preferred & there) | always, 2)
    return there.expand_as(scores), always.expand_as(scores), level.expand_as(scores)


def _best(scores: Tensor, room: Tensor, level: Tensor) -> Tensor:
    """So many tokens of each head, room [B, H], by level, then by score, then the newer ones; none of level 0."""
    # three sorts, each stable, the last the weightiest
    order = torch.arange(scores.shape[-1] - 1, -1, -1, device=scores.device).expand_as(scores)
    for key in (scores, level):
        order = order.gather(-1, key.gather(-1, order).sort(dim=-1, descending=True, stable=True).indices)
    rank = torch.arange(scores.shape[-1], device=scores.device) < room[..., None]
    return torch.zeros_like(level, dtype=torch.bool).scatter(-1, order, rank)


def _best_of_all(scores: Sequence[Tensor], levels: Sequence[Tensor], room: Tensor) -> list[Tensor]:
    """So many tokens of each sequence, room [B], in the order of `_ranks`; none of level 0: of each layer [B, H, T].

    Level 3 stays, and whole levels while there is room. Of the first that does not fit, its best stay: those above
    the score that the last of them has, and of those with this score the first. So nothing is sorted.
    """
    score, level = _together(scores), _together(levels)
    kept, contested = level == 3, torch.zeros_like(level, dtype=torch.bool)
    room, fits = (room - kept.sum((1, 2))).clamp_min(0), torch.ones_like(room, dtype=torch.bool)
    for value in (2, 1):
        mask, before = level == value, fits
        count = mask.sum((1, 2))
        fits = before & (count <= room)
        kept |= mask & fits[:, None, None]
        contested |= mask & (before & ~fits)[:, None, None]
        room = torch.where(fits, room - count, room)
    score = score.masked_fill(~contested, -torch.inf)
    places = (score[0].numel() + 1 - room.clamp(1, score[0].numel())).tolist()  # counted from the smallest
    last = torch.stack([one.flatten().kthvalue(place).values for one, place in zip(score, places, strict=True)])
    above, tied = ~(score <= last[:, None, None]), (score == last[:, None, None]) & contested
    room = room - above.sum((1, 2))
    if (tied.sum((1, 2)) > room).any():
        first = _newest_first(tied).cumsum(-1) <= room[:, None]
        tied &= first.unflatten(1, (score.shape[2], -1)).transpose(1, 2).flip(-1)
    return _apart(kept | above | tied, scores)


def _ranks(scores: Sequence[Tensor], levels: Sequence[Tensor]) -> list[Tensor]:
    """The rank of each token among those of all layers and heads, 0 the best: of each layer [B, H, T].

    By level, then by score, then the one that fewer tokens of its head come after, then the earlier layer and head.
    """
    score, level = _newest_first(_together(scores)), _newest_first(_together(levels))
    order = score.sort(dim=-1, descending=True, stable=True).indices
    level = level.gather(-1, order)
    place, before = torch.zeros_like(order), torch.zeros_like(order[:, :1])
    for value in (3, 2, 1, 0):  # by level first: each level's tokens come after all those of higher ones
        mask = level == value
        place = torch.where(mask, before + mask.cumsum(-1) - 1, place)
        before = before + mask.sum(-1, keepdim=True)
    ranks = torch.empty_like(order).scatter_(-1, order, place)
    return _apart(ranks.unflatten(1, (max(one.shape[-1] for one in scores), -1)).transpose(1, 2).flip(-1), scores)


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """Of each layer [B, H, T] -> [B, all heads, widest T], with zeros before the tokens of narrower ones."""
    widest = max(one.shape[-1] for one in tensors)
    return torch.cat([F.pad(one, (widest - one.shape[-1], 0)) for one in tensors], 1)


def _newest_first(tensor: Tensor) -> Tensor:
    """[B, all heads, T] -> [B, T * all heads]: the newest slot of all heads first."""
    return tensor.flip(-1).transpose(1, 2).flatten(1)


def _apart(tensor: Tensor, layers: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `_together`, for tensors with as many heads and tokens as each of the layers has."""
    parts = tensor.split([one.shape[1] for one in layers], 1)
    return [part[..., tensor.shape[-1] - one.shape[-1] :] for part, one in zip(parts, layers, strict=True)]


def _fullest(ranks: Sequence[Tensor], total: Tensor) -> list[Tensor]:
    """How many tokens the fullest head of each layer may hold, [B] each, if so many in all are the most.

    The m-th slot of a layer is opened by the first of its heads whose m-th best token has its turn, and costs as many
    pairs as the layer has heads. Slots are opened in that order while they fit.
    """
    turns = [rank.sort(dim=-1).values.amin(1) for rank in ranks]  # [B, T] each, ascending
    turn = torch.cat(turns, 1)
    cost = torch.cat([torch.full_like(one, rank.shape[1]) for one, rank in zip(turns, ranks, strict=True)], 1)
    order = turn.argsort(dim=-1)
    fits = cost.gather(-1, order).cumsum(-1) <= total.to(turn.device)[:, None]
    opened = torch.zeros_like(fits).scatter(-1, order, fits)
    return [part.sum(-1) for part in opened.split([one.shape[1] for one in turns], 1)]
