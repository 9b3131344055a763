"""`attention_spectrogram`: the public op, its checks and its `Op` record."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MemxError
from .. import native
from ..op import Op, Shape
from . import tiles
from .lse import attention_lse, check_attention, pick
from .reference import (
    BINS,
    CARRY,
    HOP,
    WINDOW,
    Spectrogram,
    attention_spectrogram_reference,
    averaged_rows,
    sum_dtype,
)


def attention_spectrogram(
    query: Tensor,
    key: Tensor,
    lse: Tensor | None = None,
    carry: Tensor | None = None,
    previous: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    decay: float | None = None,
    *,
    impl: Literal["auto", "torch", "triton"] = "auto",
) -> Spectrogram:
    """The short-time Fourier transform over queries of the attention that each cached key gets.

    query [B, Hq, Q, d]: the last Q queries (after rotary positions), Q a multiple of 16. key [B, H, T, d]: the cache
    with the Q new keys at its end. Both of one dtype, any strides. T_old = T - Q keys were there before.
    lse [B, Hq, Q]: natural log-sum-exp of the scaled, masked scores, as a flash attention returns it; None computes
    it by `attention_lse`, a pass of its own over queries and keys.
    carry [B, H, 16, T_old]: what the last run returned, gathered with the keys; None is zeros.
    mask [B, 1 or H, T], bool: the keys that exist. Scale: d^-0.5 by default.
    Attention p = exp(scale <q_i, k_j> - lse_i), zero unless j <= T_old + i and key j exists, is averaged over the
    Hq/H heads of a group, then transformed: windows of 32 queries (periodic Hann), hop 16, not centred, bins 0..16,
    not normalised, magnitude. The carry is the left context; so Q queries give F = Q/16 frames.

    Returns (spectrum, carry) in float32: spectrum [B, H, F, T, 17], carry [B, H, 16, T] the last 16 averaged rows (in
    memory by key, as `evict_gather` wants it). With decay (γ, per query) the frames are never written but reduced to
    spectrum [B, H, T, 17] = sum_f (1 - γ^16) γ^(16 (F-1-f)) X[f], plus γ^Q times `previous` [B, H, T_old, 17] for old
    keys. A frame before a new key's own block is zero, so it adds nothing.
    float64 inputs give float64, by torch alone. No gradients.
    Raises MemxError for a Q that is no multiple of 16, and for an implementation that is not there or does not take
    the inputs. Source: Cetin et al. 2024 (arXiv 2410.13166), section 3.
    """
    check_attention(query, key, mask)
    (batch, query_heads, new, dim), (_, heads, keys, _) = query.shape, key.shape
    if new == 0 or new % HOP:
        raise MemxError(
            f"{new} new queries are not a multiple of {HOP} (the spectrogram's hop)",
            hint=f"use an interval of {HOP} tokens or a multiple of it",
        )
    assert lse is None or lse.shape == (batch, query_heads, new), lse.shape
    assert carry is None or carry.shape == (batch, heads, CARRY, keys - new), carry.shape
    assert previous is None or (decay is not None and previous.shape == (batch, heads, keys - new, BINS))
    assert decay is None or 0 < decay < 1, decay
    chosen = pick("attention_spectrogram", impl, query)
    if lse is None:
        lse = attention_lse(query, key, mask, scale, impl=chosen)  # type: ignore[arg-type]
    scale = dim**-0.5 if scale is None else scale
    query, key = query.detach(), key.detach()
    spectrum, by_key = _spectrogram(query, key, lse, carry, previous, mask, scale, decay, chosen)
    return Spectrogram(spectrum, by_key.mT)


@torch.library.custom_op(
    "memx::attention_spectrogram",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor lse, Tensor? carry, Tensor? previous, Tensor? mask, float scale, "
    "float? decay, str impl) -> (Tensor, Tensor)",
)
def _spectrogram(
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    carry: Tensor | None,
    previous: Tensor | None,
    mask: Tensor | None,
    scale: float,
    decay: float | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    if impl == "triton":
        from . import kernel

        return kernel.spectrogram(query, key, lse, carry, previous, mask, scale, decay)
    loops = native if sum_dtype(query) == torch.float32 and native.available(query, key) else tiles
    return loops.spectrogram(query, key, lse, carry, previous, mask, scale, decay)


@_spectrogram.register_fake
def _(
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    carry: Tensor | None,
    previous: Tensor | None,
    mask: Tensor | None,
    scale: float,
    decay: float | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    dtype, (batch, heads, keys, _) = sum_dtype(query), key.shape
    frames = () if decay is not None else (query.shape[2] // HOP,)
    spectrum = query.new_empty(batch, heads, *frames, keys, BINS, dtype=dtype)
    return spectrum, query.new_empty(batch, heads, keys, CARRY, dtype=dtype)


def eager(
    query: Tensor,
    key: Tensor,
    lse: Tensor | None,
    carry: Tensor,
    previous: Tensor,
    mask: Tensor | None,
    scale: float | None,
    decay: float,
) -> Spectrogram:
    """The plain way: eager attention, all probabilities in memory, and torch's own short-time Fourier transform."""
    rows = averaged_rows(query, key, None, mask, scale)  # [B, H, Q, T]
    (batch, heads, new, keys), old = rows.shape, carry.shape[3]
    rows = torch.cat([F.pad(carry, (0, keys - old)), rows], 2)
    window = torch.hann_window(WINDOW, device=rows.device)
    flat = rows.mT.reshape(-1, CARRY + new)
    frames = torch.stft(flat, WINDOW, HOP, window=window, center=False, return_complex=True).abs()  # [B*H*T, 17, F]
    ages = torch.arange(new // HOP - 1, -1, -1, device=rows.device)
    spectrum = (frames @ ((1 - decay**HOP) * decay ** (HOP * ages))).view(batch, heads, keys, BINS)
    spectrum[:, :, :old] += decay**new * previous
    return Spectrogram(spectrum, rows[:, :, -CARRY:])


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    batch, heads, keys, dim, old = shape["B"], shape["H"], shape["T"], shape["d"], shape["T"] - shape["Q"]

    def draw(*size: int) -> Tensor:
        # the state is kept in float32 whatever the heads are in
        exact = torch.promote_types(dtype, torch.float32)
        return torch.randn(size, generator=generator, dtype=exact).to(device)

    query, key = draw(batch, shape["Hq"], shape["Q"], dim).to(dtype), draw(batch, heads, keys, dim).to(dtype)
    carry = draw(batch, heads, old, CARRY).abs().mT / keys
    previous = draw(batch, heads, old, BINS).abs() / keys
    # without a given one the op makes a pass of its own
    lse = attention_lse(query, key) if shape["lse"] else None
    return query, key, lse, carry, previous, None, None, 0.99


def _scores_seen(shape: Shape) -> int:
    """Pairs of a query and a key that it sees, of all query heads."""
    new = shape["Q"]
    return shape["B"] * shape["Hq"] * (new * (shape["T"] - new) + new * (new + 1) // 2)


def _bytes_moved(shape: Shape, dtype: torch.dtype) -> int:
    heads, old = shape["B"] * shape["H"], shape["T"] - shape["Q"]
    reads = (shape["B"] * shape["Hq"] * shape["Q"] + heads * shape["T"]) * shape["d"] * dtype.itemsize
    reads += 4 * shape["B"] * shape["Hq"] * shape["Q"] * shape["lse"]
    return reads + 4 * heads * (old + shape["T"]) * (CARRY + BINS)


def _flops(shape: Shape) -> int:
    """The score products, twice without a log-sum-exp; the transform, by a fast one, would add some per cent."""
    return 2 * shape["d"] * _scores_seen(shape) * (1 if shape["lse"] else 2)


OP = Op(
    name="attention_spectrogram",
    run=attention_spectrogram,
    reference=attention_spectrogram_reference,
    make_inputs=_make_inputs,
    shapes=(
        {"B": 2, "Hq": 6, "H": 2, "Q": 32, "T": 200, "d": 64, "lse": 0},
        {"B": 1, "Hq": 8, "H": 2, "Q": 512, "T": 1024, "d": 64, "lse": 0},
        {"B": 1, "Hq": 8, "H": 2, "Q": 512, "T": 4096, "d": 64, "lse": 1},
    ),
    large_shapes=(
        {"B": 1, "Hq": 32, "H": 8, "Q": 512, "T": 8192, "d": 128, "lse": 1},
        {"B": 1, "Hq": 32, "H": 8, "Q": 512, "T": 32768, "d": 128, "lse": 1},
        {"B": 1, "Hq": 32, "H": 8, "Q": 512, "T": 32768, "d": 128, "lse": 0},
    ),
    odd_shapes=(
        {"B": 2, "Hq": 6, "H": 2, "Q": 48, "T": 150, "d": 20, "lse": 0},
        {"B": 1, "Hq": 5, "H": 1, "Q": 16, "T": 16, "d": 80, "lse": 1},
    ),
    gradients=(),
    implementations=("triton", "torch"),
    loops="all",
    bytes_moved=_bytes_moved,
    flops=_flops,
    terms=lambda shape: shape["d"],
    rivals={"eager attention and torch.stft": eager},
)
