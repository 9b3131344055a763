"""The compiled attention loops as functions of tensors: queries and keys -> log-sum-exp, spectrum and carry.

Names and results as in `attention_spectrogram`; all in float32, in which other dtypes are copied first.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .build import library
from .threads import shared

HOP, BINS = 16, 17
_BLOCK, _CHUNK = 64, 256  # keys, and queries of a group, in a unit of work; as in C
_I = ctypes.c_int64


class _Attention(ctypes.Structure):
    """struct attention of scores.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "mask", "lse", "carry", "previous")),
        *((name, ctypes.c_void_p) for name in ("spectrum", "new_carry")),
        *((name, _I) for name in ("heads", "group", "queries", "keys", "width", "key_b", "key_h", "key_t")),
        ("decay", ctypes.c_float),
        ("reduce", ctypes.c_int32),
    )


def log_sum_exp(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """log sum exp of each query's scores: [B, Hq, Q]."""
    lse = query.new_empty(query.shape[:3], dtype=torch.float32)
    (batch, heads, _, _), rows = key.shape, query.shape[1] // key.shape[1] * query.shape[2]
    _run("memx_log_sum_exp", batch * heads * -(-rows // _CHUNK), query, key, mask, scale, lse=lse)
    return lse


def spectrogram(
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    carry: Tensor | None,
    previous: Tensor | None,
    mask: Tensor | None,
    scale: float,
    decay: float | None,
) -> tuple[Tensor, Tensor]:
    """The spectrum, and the new carry by key [B, H, T, 16]."""
    batch, heads, keys, _ = key.shape
    frames = () if decay is not None else (query.shape[2] // HOP,)
    spectrum = query.new_empty(batch, heads, *frames, keys, BINS, dtype=torch.float32)
    new_carry = query.new_empty(batch, heads, keys, HOP, dtype=torch.float32)
    _run(
        "memx_spectrogram", batch * heads * -(-keys // _BLOCK), query, key, mask, scale,
        lse=lse.float().contiguous(), carry=None if carry is None else carry.mT.float().contiguous(),
        previous=None if previous is None else previous.float().contiguous(),
        spectrum=spectrum, new_carry=new_carry, decay=decay,
    )  # fmt: skip
    return spectrum, new_carry


def _run(
    name: str,
    units: int,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scale: float,
    decay: float | None = None,
    **state: Tensor | None,
) -> None:
    """Call a loop for its units of work, shared among threads; state: contiguous float32 tensors of the struct."""
    (batch, heads, keys, width), queries = key.shape, query.shape[2]
    query, key = (query.float() * scale).contiguous(), key.float()
    key = key if key.stride(3) == 1 else key.contiguous()
    mask = None if mask is None else mask.expand(batch, heads, keys).contiguous()
    held = {"query": query, "key": key, "mask": mask, **state}
    given = _Attention(
        **{name: None if x is None else x.data_ptr() for name, x in held.items()},
        **dict(zip(("key_b", "key_h", "key_t"), key.stride(), strict=False)),
        heads=heads, group=query.shape[1] // heads, queries=queries, keys=keys, width=width,
        decay=0.0 if decay is None else decay**HOP, reduce=decay is not None,
    )  # fmt: skip
    loops = library()
    assert loops is not None, "check `available` first"
    scratch = torch.empty(torch.get_num_threads(), width * _BLOCK, dtype=torch.float32, device="cpu")

    def part(number: int, start: int, stop: int) -> None:
        assert held  # what the pointers point to stays alive with this function
        getattr(loops, name)(ctypes.byref(given), ctypes.c_void_p(scratch[number].data_ptr()), _I(start), _I(stop))

    shared(part, units, least=1)
