"""What queries of a layer see: which slots, and the attention that a policy observes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..policies.base import Attention
from .masks import bottom_right_causal
from .state import LayerState


def visible(layer: LayerState) -> Tensor | None:
    """Which slots the newest columns see: [B or 1, H or 1, Q, T], bool; None: all of them, up to their own.

    Ragged tokens are no slots: all of those are seen that are in the window.
    """
    columns, slots = layer.new_tokens.columns, layer.keys.shape[2]
    width = slots - columns  # the slots before them
    old = [[count - new for count in heads] for heads, new in zip(layer.counts, layer.new_tokens.new, strict=True)]
    ragged = layer.ragged is None and any(count != width for heads in old for count in heads)
    window = layer.window_in_use()
    if not ragged and window is None:
        return None
    seen = bottom_right_causal(columns, slots, layer.device)[None, None]  # [1, 1, Q, T]
    if ragged:
        first = width - torch.tensor(old, device=layer.device)[..., None, None]  # [B, H, 1, 1]
        seen = seen & (torch.arange(slots, device=layer.device) >= first)
    if window is not None:
        # by position, not by slot: between two tokens that are still held others may be gone
        back = layer.positions[:, :, width:, None] - layer.positions[:, :, None, :]
        seen = seen & (back < window)
    return seen


def attention_of(
    layer: LayerState, group: slice, query: Tensor, lse: Tensor | None, keys: slice, *, later: int = 0
) -> Attention:
    """Queries of a group with the keys in some slots.

    Args:
        layer: The layer.
        group: Sequences at one length.
        query: [b, Hq, Q, d], the last of the sequence but for `later`.
        lse: Their log-sum-exp [b, Hq, Q]; None: computed here, and the last keys are then the queries' own.
        keys: The slots.
        later: How many of the group's tokens came after the last query.
    """
    lengths = [seen + new - later for seen, new in list(layer.new_tokens.pairs())[group]]
    ends = torch.tensor(lengths, device=layer.device)[:, None, None]
    own = ends + torch.arange(-query.shape[2], 0, device=layer.device)
    exists = layer.exists(group, layer.slots(group))
    found = Attention(
        query,
        layer.keys[group, :, keys],
        query.new_empty(0) if lse is None else lse,
        own,
        layer.positions[group, :, keys],
        None if exists is None else exists[..., : keys.stop - keys.start],
        layer.scale,
        layer.window_in_use(),
        layer.rotary,
    )
    return found if lse is not None else replace(found, lse=found.log_sum_exp())
