"""Features of the spectrum of each key's attention along the queries: the published ones, and its logarithm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels.attention_spectrogram import attention_spectrogram
from ..base import Block, View
from .feature import BlockObserver, Feature
from .spectrum import AGES, BINS, DECAY, HOP, age_features, ema, spectrogram

SMALL = 1e-6  # added before a logarithm
_ROWS = 128  # rows of attention written out at a time, where the fused op does not apply


def moving_spectrum(block: Block) -> Tensor:
    """The moving average of the spectrum of each key's attention after new queries: [B, H, T, 17], float32."""
    new = block.attention
    carry = block.context.last(HOP).rows()  # [B, H, 16, T_old]
    state = None if block.state is None else block.state.float()
    if new.window is None:
        return attention_spectrogram(new.query, new.key, new.lse, carry, state, new.exists, new.scale, DECAY).spectrum
    # The fused op knows no window: attention is written out, some rows at a time. `carry` is the last 16 rows before a
    # part, the left half of its first frame of 32; keys that came after those rows had none of their attention: zeros.
    for part in new.parts(_ROWS):
        rows = part.rows()
        carry = F.pad(carry, (0, rows.shape[3] - rows.shape[2] - carry.shape[3]))
        state = ema(spectrogram(rows, carry), state)
        carry = rows[:, :, -HOP:]
    assert state is not None
    return state


def published(view: View, state: Tensor) -> Tensor:
    """Eight sinusoids of the age, then the moving average of 17 spectral bins: [B, H, T, 25]."""
    return torch.cat([age_features(view.ages).expand(*state.shape[:3], AGES), state.float()], -1)


def log_spectrum(view: View, state: Tensor) -> Tensor:
    """log(1e-6 + moving average) of the 17 spectral bins: [B, H, T, 17]."""
    return (SMALL + state.float()).log()


SPECTRUM = BlockObserver(moving_spectrum, BINS, HOP)
FEATURES = (
    Feature(
        "published",
        AGES + BINS,
        published,
        "the age's 8 sinusoids and the moving average of the spectrum's 17 bins",
        plain=AGES,
        observer=SPECTRUM,
    ),
    Feature("log_spectrum", BINS, log_spectrum, "log(1e-6 + the moving average of the spectrum)", observer=SPECTRUM),
)
