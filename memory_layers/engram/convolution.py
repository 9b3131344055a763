"""A causal depthwise convolution over tokens, across forward passes: [B, Q, d] -> [B, Q, d]. Zero at first.

Source: Engram (arXiv 2601.07372), section 2.3: 4 taps, 3 tokens apart, after an RMSNorm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .tokens import NgramTokens

_TAPS, _DILATION = 4, 3
_REACH = (_TAPS - 1) * _DILATION  # tokens back


class CausalConvolution(nn.Module):
    """RMSNorm, then for each channel a sum over the tokens 0, 3, 6 and 9 places before, none before position 0.

    Args:
        width: Width d of the hidden states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.taps = nn.Parameter(torch.empty(_TAPS, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the taps to zero and the norm to one."""
        nn.init.zeros_(self.taps)
        nn.init.ones_(self.norm.weight)

    def forward(self, x: Tensor, tokens: NgramTokens, name: str) -> Tensor:
        """Convolve, going on where the last forward pass of a cache ended.

        Args:
            x: Input [B, Q, d].
            tokens: The tokens at the same columns; inputs of the newest ones are left in their `carried`.
            name: Under which they are.

        Returns:
            The output [B, Q, d]. That of padding is of no meaning.
        """
        x = self.norm(x)
        carried = tokens.carried
        before = x.new_zeros(len(x), _REACH, x.shape[2]) if carried is None or name not in carried else carried[name]
        line, rank, count = _packed(torch.cat([before.to(x), x], 1), tokens.valid)
        if carried is not None:
            newest = count[:, None] + torch.arange(_REACH, device=x.device)  # [B, 9]
            carried[name] = line.gather(1, newest[..., None].expand(-1, -1, x.shape[2])).detach()
        positions = tokens.positions.to(x.device)
        out = torch.zeros_like(x)
        for tap, weight in enumerate(self.taps):
            back = tap * _DILATION
            places = (rank + _REACH - back)[..., None].expand_as(x)
            out = out + weight * line.gather(1, places) * (positions >= back)[..., None]
        return out


def _packed(line: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens moved to the left after the first 9 columns; the number of each column's token [B, Q]; how many [B]."""
    batch, columns = len(line), line.shape[1] - _REACH
    every = torch.arange(columns, device=line.device).expand(batch, columns)
    if valid is None:
        return line, every, torch.full((batch,), columns, device=line.device)
    valid = valid.to(line.device)
    order = (~valid).to(torch.uint8).sort(dim=1, stable=True).indices
    moved = line[:, _REACH:].gather(1, order[..., None].expand(-1, -1, line.shape[2]))
    rank = (valid.cumsum(1) - 1).clamp_min(0)
    return torch.cat([line[:, :_REACH], moved], 1), rank, valid.sum(1)
