"""Which tokens of a layer's cache stay: scores -> a mask.

B sequences, H key-value heads, T tokens, oldest first. Source: Cetin et al. 2024 (arXiv 2410.13166), section 3.3.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...errors import MemxError

Grouping = Literal["layer_max", "per_head"]


def kept_tokens(
    scores: Tensor,
    *,
    threshold: float = 0.0,
    budget: float | Tensor | None = None,
    grouping: Grouping = "layer_max",
    exists: Tensor | None = None,
    protected: Tensor | None = None,
) -> Tensor:
    """Choose the tokens that stay. Sequences never influence each other; ties go to the newer token.

    Source: Cetin et al. 2024 (arXiv 2410.13166), section 3.3.

    Args:
        scores: [B, H, T].
        threshold: A token stays if it scores at least this; -inf keeps all, inf the newest alone.
        budget: Keep the best instead: so many of each head, or for a number of at most 1 that share of the tokens
            there are; a tensor [B] of integers is so many for each sequence.
        grouping: With "layer_max" every head of a layer keeps as many as the head that keeps most, filled up by its
            next best; with "per_head" exactly its own.
        exists: [B, 1 or H, T], bool: the tokens there are; None: all.
        protected: [B, 1 or H, T], bool: those that stay whatever they score, as the newest does.

    Returns:
        [B, H, T], bool.

    Raises:
        MemxError: A budget that is not above 0, or a number above 1 that is not whole.
    """
    there = torch.ones_like(scores, dtype=torch.bool) if exists is None else exists.expand_as(scores)
    always = newest(there) if protected is None else newest(there) | (protected & there)
    if budget is None:
        wanted = ((scores >= threshold) & there) | always
        if grouping == "per_head":
            return wanted
        room = wanted.sum(-1).amax(1, keepdim=True).expand(scores.shape[:2])  # [B, H]
    elif isinstance(budget, Tensor):
        wanted, room = always, budget[:, None].expand(scores.shape[:2])
    else:
        check_budget(budget)
        wanted = always
        alive = there.sum(-1)  # [B, H]
        room = (alive * budget).long() if budget <= 1 else torch.full_like(alive, int(budget))
    room = torch.minimum(torch.maximum(room, wanted.sum(-1)), there.sum(-1))
    return _best(scores, room, first=wanted, there=there)


def check_budget(budget: float) -> None:
    """Raise MemxError for what is no budget: a share in (0, 1], or a whole number of tokens."""
    if not budget > 0 or (budget > 1 and budget != int(budget)):
        raise MemxError(
            f"budget must be in (0, 1] or a whole number of tokens, got {budget:g}", hint="use e.g. 0.5 or 512"
        )


def newest(there: Tensor) -> Tensor:
    """The last token of each head that exists."""
    later = there.flip(-1).cumsum(-1).flip(-1)  # how many exist from here on
    return there & (later == 1)


def _best(scores: Tensor, room: Tensor, *, first: Tensor, there: Tensor) -> Tensor:
    """So many tokens of each head, room [B, H]: the first ones, then the best of those there are."""
    # three sorts, each stable, the last the weightiest: newer before older, by score, then by right
    order = torch.arange(scores.shape[-1] - 1, -1, -1, device=scores.device).expand_as(scores)
    for key in (scores, first.to(torch.uint8) + there.to(torch.uint8)):
        order = order.gather(-1, key.gather(-1, order).sort(dim=-1, descending=True, stable=True).indices)
    rank = torch.arange(scores.shape[-1], device=scores.device) < room[..., None]
    return torch.zeros_like(there).scatter(-1, order, rank)
