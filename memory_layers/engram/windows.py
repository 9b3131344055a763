"""The last n tokens before each position, whatever stands between them: padding, borders of documents, a cache.

B sequences, Q columns of input after P columns that a cache holds, n the length of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def valid_columns(mask: Tensor | None, shape: torch.Size, past: int, device: torch.device) -> Tensor | None:
    """Which columns of the input are tokens, not padding.

    Args:
        mask: What the model was given: [B, P + Q], [B, Q], or [B or 1, 1 or heads, Q, keys], whose own column shows
            whether a token is there; bool, or numbers that are added to scores. None: all are tokens.
        shape: (B, Q).
        past: P.
        device: Where the answer is wanted.

    Returns:
        [B, Q], bool; None for all.
    """
    if mask is None:
        return None
    columns = shape[1]
    if mask.dim() == 2:
        return mask[:, mask.shape[1] - columns :].to(device, torch.bool)
    own = mask[:, 0].diagonal(offset=past, dim1=-2, dim2=-1).to(device)  # [B, Q], each column seen from itself
    valid = own if own.dtype == torch.bool else own > torch.finfo(own.dtype).min / 2
    return valid.expand(shape[0], columns)


def last_tokens(classes: Tensor, positions: Tensor, size: int, pad: int) -> Tensor:
    """The window of each of the last Q columns.

    Args:
        classes: Token classes of all columns so far [B, P + Q], int64, -1 for padding.
        positions: Positions of the last Q tokens [B or 1, Q]; a window does not reach before position 0, where a
            document of a packed row starts.
        size: Length n of a window.
        pad: The class that stands for what is before the start.

    Returns:
        Windows [B, Q, n]: entry k is the class of the token k places before. Windows of padding are of no meaning.
    """
    columns = positions.shape[1]
    if columns == 0:
        return classes.new_empty(len(classes), 0, size)
    if bool((classes < 0).any()):
        compact, rank = _compact(classes, pad)
    else:
        compact, rank = classes, torch.arange(classes.shape[1], device=classes.device).expand_as(classes)
    compact = F.pad(compact, (size - 1, 0), value=pad)
    back = torch.arange(size, device=classes.device)
    places = rank[:, -columns:, None] + (size - 1) - back  # [B, Q, n]
    windows = compact.gather(1, places.flatten(1)).view(places.shape)
    return windows.masked_fill(positions.to(classes.device)[..., None] < back, pad)


def _compact(classes: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Each row's tokens moved to its left [B, N], pad behind them, and the place of each column's token [B, N]."""
    valid = classes >= 0
    rank = (valid.cumsum(1) - 1).clamp_min(0)
    # padding goes to a column of its own behind all others
    places = torch.where(valid, rank, classes.shape[1])
    compact = classes.new_full((len(classes), classes.shape[1] + 1), pad).scatter(1, places, classes)
    return compact[:, :-1], rank
