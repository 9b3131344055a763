"""The compiled ragged attention as a function of tensors: names and results as in `kernels/ragged_attention`.

For few queries, as when a model generates: each key and value is read once for up to four rows (queries of a group).
"""

from __future__ import annotations

import ctypes
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from .build import library
from .threads import shared

_SPAN, _PART = 256, 32  # keys of a unit of work, and of its parts, as in C
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_I = ctypes.c_int64


class _Ragged(ctypes.Structure):
    """struct ragged of ragged_attention.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "offsets", "first", "positions", "own")),
        *((name, ctypes.c_void_p) for name in ("sums", "largest", "total", "output", "lse")),
        *((name, _I) for name in ("pairs", "heads", "rows", "queries", "width", "wide", "depth", "deep", "window")),
        ("kind", ctypes.c_int32),
    )


def ragged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    scale: float,
    positions: Tensor | None = None,
    own: Tensor | None = None,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Output [B, Hq, Q, e] in float32 and log-sum-exp [B, Hq, Q], of keys and values of one dtype of three."""
    (batch, query_heads, queries, width), pairs, depth = query.shape, len(offsets) - 1, value.shape[1]
    rows, wide, deep = query_heads * batch // pairs * queries, -(-width // 16) * 16, -(-depth // 16) * 16
    scaled = query.float() * scale if wide == width else F.pad(query.float() * scale, (0, wide - width))
    spans = (-(-(stop - start) // _SPAN) for start, stop in pairwise(offsets.tolist()))
    first = torch.tensor([0, *accumulate(spans)])
    units = int(first[-1])

    def empty(*shape: int) -> Tensor:
        return query.new_empty(shape, dtype=torch.float32)

    held = {
        "query": scaled.contiguous(), "key": key.contiguous(), "value": value.contiguous(),
        "offsets": offsets, "first": first, "positions": None if positions is None else positions.int().contiguous(),
        "own": None if own is None else own.int().contiguous(),
        "sums": empty(units, rows, deep), "largest": empty(units, rows), "total": empty(units, rows),
        "output": empty(*query.shape[:3], depth), "lse": empty(*query.shape[:3]),
    }  # fmt: skip
    given = _Ragged(
        **{name: None if x is None else x.data_ptr() for name, x in held.items()},
        pairs=pairs, heads=pairs // batch, rows=rows, queries=queries, width=width, wide=wide, depth=depth, deep=deep,
        window=window or 0, kind=_KINDS[key.dtype],
    )  # fmt: skip
    loops = library()
    assert loops is not None, "check `available` first"

    scratch = empty(torch.get_num_threads(), rows * _SPAN + _PART * max(wide, deep))

    def find(number: int, start: int, stop: int) -> None:
        assert held  # what the pointers point to stays alive with this function
        place = ctypes.c_void_p(scratch[number].data_ptr())
        loops.memx_ragged_units(ctypes.byref(given), place, _I(start), _I(stop))

    def join(_: int, start: int, stop: int) -> None:
        assert held
        loops.memx_ragged_output(ctypes.byref(given), _I(start), _I(stop))

    shared(find, units, least=1)
    shared(join, pairs, least=max(1, 2**14 // max(1, rows * depth)))
    return held["output"], held["lse"]
