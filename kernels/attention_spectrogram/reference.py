"""Attention spectrogram: the last queries and all cached keys -> the spectrum over time of each key's attention.

B sequences, Hq query heads that share H key-value heads in groups of G = Hq/H, Q new queries, T keys (the Q new ones
last, T_old = T - Q before them), d numbers a head. F = Q/16 frames of 17 bins.
Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 3.
"""

from __future__ import annotations

from functools import lru_cache
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor

WINDOW = 32  # queries that a frame sees
HOP = 16  # queries between frames
BINS = WINDOW // 2 + 1
CARRY = WINDOW - HOP  # rows of attention that the next run needs as left context


class Spectrogram(NamedTuple):
    """spectrum: [B, H, F, T, 17], or its moving average [B, H, T, 17]; carry: [B, H, 16, T], for the next run."""

    spectrum: Tensor
    carry: Tensor


def attention_spectrogram_reference(
    query: Tensor,
    key: Tensor,
    lse: Tensor | None = None,
    carry: Tensor | None = None,
    previous: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    decay: float | None = None,
) -> Spectrogram:
    """What `attention_spectrogram` returns, with every row and frame written out: the definition only."""
    rows = averaged_rows(query, key, lse, mask, scale)  # [B, H, Q, T]
    new = query.shape[2]
    context = rows.new_zeros(*rows.shape[:2], CARRY, rows.shape[3])
    if carry is not None:
        context[..., : carry.shape[3]] = carry
    rows = torch.cat([context, rows], 2)  # [B, H, 16 + Q, T]
    window = torch.hann_window(WINDOW, periodic=True, dtype=rows.dtype, device=rows.device)
    frames = rows.unfold(2, WINDOW, HOP)  # [B, H, F, T, 32]
    spectrum = torch.fft.rfft(frames * window).abs()  # [B, H, F, T, 17]
    if decay is not None:
        last = spectrum.shape[2] - 1
        ages = torch.arange(last, -1, -1, dtype=rows.dtype, device=rows.device)
        weights = (1 - decay**HOP) * decay ** (HOP * ages)  # [F]
        spectrum = torch.einsum("f,bhftk->bhtk", weights, spectrum)
        if previous is not None:
            spectrum[:, :, : previous.shape[2]] += decay**new * previous
    return Spectrogram(spectrum, rows[:, :, -CARRY:])


def averaged_rows(query: Tensor, key: Tensor, lse: Tensor | None, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention after softmax, averaged over the query heads of each group: [B, H, Q, T], zero where unseen."""
    scores = _scores(query, key, scale)  # [B, H, G, Q, T]
    if lse is None:
        lse = attention_lse_reference(query, key, mask, scale)
    visible = visible_keys(query.shape[2], key.shape[2], mask, key.device)
    weights = (scores - lse.unflatten(1, scores.shape[1:3])[..., None]).exp()
    return torch.where(visible[:, :, None], weights, 0).mean(2)


def attention_lse_reference(
    query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """The natural logarithm of each query's softmax denominator: [B, Hq, Q]; -inf where no key is seen."""
    visible = visible_keys(query.shape[2], key.shape[2], mask, key.device)
    scores = _scores(query, key, scale).masked_fill(~visible[:, :, None], -torch.inf)
    return scores.logsumexp(-1).flatten(1, 2)


def visible_keys(queries: int, keys: int, mask: Tensor | None, device: torch.device) -> Tensor:
    """Which key each of the last queries sees, itself and older ones that exist: [1 or B, 1 or H, Q, T], bool."""
    own = torch.arange(keys - queries, keys, device=device)  # the index of each query's own key
    causal = torch.arange(keys, device=device) <= own[:, None]
    return causal[None, None] if mask is None else causal & mask[:, :, None]


def sum_dtype(query: Tensor) -> torch.dtype:
    """What attention is computed in: float32, or float64 for float64 inputs."""
    return torch.promote_types(query.dtype, torch.float32)


def _scores(query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """Scaled products of all queries and keys: [B, H, G, Q, T]."""
    dtype, heads = sum_dtype(query), key.shape[1]
    factor = query.shape[3] ** -0.5 if scale is None else scale
    grouped = query.to(dtype).unflatten(1, (heads, -1))
    return torch.einsum("bhgqd,bhtd->bhgqt", grouped, key.to(dtype)) * factor


@lru_cache(maxsize=16)
def windowed_dft(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The window times the real Fourier transform of 32 rows, packed into as many columns: [32, 32].

    Columns 0..15 are the cosines of bins 0..15, column 16 that of bin 16, columns 17..31 the sines of bins 1..15; the
    sines of bins 0 and 16 are zero. Cached by device; on CUDA, run once before capturing a graph.
    """
    n = torch.arange(WINDOW, dtype=torch.float64)[:, None]
    angles = 2 * pi / WINDOW * ((n * torch.arange(HOP, dtype=torch.float64)) % WINDOW)  # [32, 16]
    sines = angles.sin()
    sines[:, :1] = torch.where(n % 2 == 0, 1.0, -1.0)
    window = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
    return (torch.cat([angles.cos(), sines], 1) * window[:, None]).to(device, dtype)
