"""What decoders of images and video take beside tokens: positions along several axes, and rows of visual tokens alone.

B sequences, N columns of input, of which V in all are image or video tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...errors import MemxError

_MASK, _ROWS = "visual_pos_masks", "deepstack_visual_embeds"  # Qwen3-VL's names
_AXES = (3, 4)  # time, height and width; or the number of the token before them


def check_axes(positions: Tensor, there: Tensor) -> Tensor:
    """Positions [axes, B or 1, N] with the axes last: [B or 1, N, axes].

    Args:
        positions: Positions along time, height and width, as Qwen-VL has them; the number of each token may come first.
        there: Which columns are tokens [B, N].

    Raises:
        MemxError: There are other numbers of axes, or the tokens are numbered as those of several sequences in one row.
    """
    if positions.shape[0] not in _AXES or positions.shape[2] != there.shape[1]:
        raise MemxError(
            f"position_ids {tuple(positions.shape)} are not positions of text, nor of three axes of an image",
            hint="pass position_ids of shape [batch, tokens], [3, batch, tokens] or [4, batch, tokens], or none",
        )
    if len(positions) == max(_AXES):
        both = there[:, 1:] & there[:, :-1]
        if ((positions[0].diff(dim=1) != 1).expand_as(both) & both).any():
            raise MemxError(
                "position_ids are not consecutive: packed sequences are not supported", hint="unpack the sequences"
            )
    return positions.movedim(0, 2)


class VisualRows:
    """Rows that layers add to the hidden states of image and video tokens, cut as the input is.

    Args:
        mask: Which columns hold such tokens [B, N], bool, packed to the left as the input is.
        rows: The row of each of those columns among all V [B, N].
        tensors: For each of some layers its rows [V, d].
    """

    def __init__(self, mask: Tensor, rows: Tensor, tensors: list[Tensor]) -> None:
        self._mask, self._rows, self._tensors = mask, rows, tensors

    @classmethod
    def taken(cls, kwargs: dict[str, Any], pack: Callable[[Tensor], Tensor], packed: Tensor) -> VisualRows | None:
        """Take them out of a forward pass's arguments; None if there are none.

        Args:
            kwargs: The arguments, which lose them.
            pack: Moves the tokens of [B, N] to the left.
            packed: Which columns are tokens then.
        """
        mask, tensors = kwargs.pop(_MASK, None), kwargs.pop(_ROWS, None)
        if mask is None or tensors is None:
            return None
        rows = (mask.flatten().cumsum(0) - 1).view_as(mask)
        return cls(pack(mask) & packed.to(mask.device), pack(rows), list(tensors))

    def piece(self, start: int, stop: int) -> dict[str, Any]:
        """The arguments of the columns start to stop."""
        mask = self._mask[:, start:stop]
        chosen = self._rows[:, start:stop][mask]
        return {_MASK: mask, _ROWS: [tensor[chosen.to(tensor.device)] for tensor in self._tensors]}
