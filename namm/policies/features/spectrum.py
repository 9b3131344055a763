"""What a NAMM reads of each cached token: attention over time -> 25 numbers a token.

B sequences, H key-value heads, Q new queries, T keys (the Q new ones last, T_old = T - Q before them), F = Q/16 frames.
Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 3, and the constants of
its released configuration. Attention comes averaged over the query heads of a group; `kernels.attention_spectrogram`
computes the same from queries and keys, without writing the attention.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from ....errors import MemxError

N_FFT = 32  # queries that a frame sees
HOP = 16  # queries between frames, and rows of attention that the next chunk needs as left context
BINS = N_FFT // 2 + 1
DECAY = 0.99  # of the moving average, per query
AGES = 8  # numbers that stand for a token's age
FEATURES = AGES + BINS
SMALLEST_DEVIATION = 1e-7  # that a bin is divided by
OLD_EPS = 1e-5  # that memx once added to each variance; NAMMs made so keep it


def spectrogram(attention: Tensor, carry: Tensor | None = None) -> Tensor:
    """The short-time Fourier transform of each key's attention along the queries: magnitudes [B, H, F, T, 17].

    attention [B, H, Q, T], Q a multiple of 16; carry [B, H, 16, T_old]: the last 16 rows of the chunk before, zeros for
    a new sequence. Windows of 32 queries (periodic Hann), hop 16, not centred, one-sided, not normalised.
    Raises MemxError for another Q.
    """
    new, keys = attention.shape[2:]
    if new == 0 or new % HOP:
        raise MemxError(
            f"the number of new queries must be a multiple of {HOP} (the spectrogram hop), got {new}",
            hint=f"use chunks of a multiple of {HOP} tokens",
        )
    context = attention.new_zeros(*attention.shape[:2], HOP, keys)
    if carry is not None:
        assert carry.shape == (*attention.shape[:2], HOP, keys - new), (carry.shape, attention.shape)
        context[..., : keys - new] = carry
    rows = torch.cat([context, attention], 2).unfold(2, N_FFT, HOP)  # [B, H, F, T, 32]
    window = torch.hann_window(N_FFT, periodic=True, dtype=attention.dtype, device=attention.device)
    return torch.fft.rfft(rows * window).abs()


def ema(frames: Tensor, previous: Tensor | None = None, decay: float = DECAY) -> Tensor:
    """The moving average of frames [B, H, F, T, 17] up to now: [B, H, T, 17], not bias-corrected.

    previous [B, H, T_old, 17]: that of the chunks before, which decays by decay^(16 F). A new key has no frame before
    the block of 16 queries that its own is in.
    """
    count, keys = frames.shape[2:4]
    ages = torch.arange(count - 1, -1, -1, dtype=frames.dtype, device=frames.device)
    weights = (1 - decay**HOP) * decay ** (HOP * ages)  # [F]
    # new key i lies in block i // 16, and has frames from that on
    own = torch.arange(keys, device=frames.device) - (keys - count * HOP)
    there = torch.arange(count, device=frames.device)[:, None] >= own.div(HOP, rounding_mode="floor")  # [F, T]
    average = torch.einsum("ft,bhftk->bhtk", weights[:, None] * there, frames)
    if previous is not None:
        old = previous.shape[2]
        average = torch.cat([average[:, :, :old] + decay ** (HOP * count) * previous, average[:, :, old:]], 2)
    return average


def age_features(ages: Tensor) -> Tensor:
    """Four sines and four cosines of ages [...] (how many positions ago a token stood): [..., 8], float32."""
    frequencies = 50_000.0 ** -(torch.arange(AGES // 2, dtype=torch.float64, device=ages.device) / (AGES // 2))
    # in float64 and within one turn, so that a token of any age has exact ones
    angles = (ages[..., None].double() * frequencies) % (2 * pi)
    return torch.cat([angles.sin(), angles.cos()], -1).float()
