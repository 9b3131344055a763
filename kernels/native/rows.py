"""The compiled loops as functions of tensors: the dots of bags with rows, and Adam's step of touched rows.

N slots of width D, B bags of K rows, U touched rows. All tensors are on the CPU and contiguous.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import pairwise
from threading import Thread

import torch
from torch import Tensor

from .build import library

_I, _F = ctypes.c_int64, ctypes.c_float


class _Adam(ctypes.Structure):
    """struct adam of rows.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("values", "momentum", "second", "rows", "starts", "bags", "weights")),
        *((name, ctypes.c_void_p) for name in ("dout", "decays", "ahead", "owed")),
        *((name, _I) for name in ("touched", "width")),
        *((name, _F) for name in ("beta1", "beta2", "eps", "scale")),
        *((name, ctypes.c_int32) for name in ("half", "per_row")),
    )


def available(*tensors: Tensor | None) -> bool:
    """Whether the loops can be had and take these tensors: contiguous ones on the CPU."""
    here = (x is None or (x.device.type == "cpu" and x.is_contiguous()) for x in tensors)
    return all(here) and library() is not None


def dots(vectors: Tensor, values: Tensor, slots: Tensor) -> Tensor:
    """<vectors[b], values[slots[b, k]]>: [B, K] float32. vectors [B, D], values [N, D] float32; slots [B, K] int64."""
    loops = library()
    assert loops is not None and vectors.dtype == values.dtype == torch.float32 and slots.dtype == torch.int64
    out = values.new_empty(slots.shape)
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (vectors, values, slots, out)]
    kept, width = _I(slots.shape[1]), _I(values.shape[1])

    def part(start: int, stop: int) -> None:
        loops.memx_dots(*pointers, _I(start), _I(stop), kept, width)

    _shared(part, len(slots))
    return out


def scatter(weights: Tensor, slots: Tensor, dout: Tensor, table: Tensor) -> None:
    """table[slots[b, k]] += weights[b, k] * dout[b], in the order of b, then k. weights and slots (int64) [B, K], dout
    [B, D] and table [N, D] float32."""
    loops = library()
    assert loops is not None and weights.dtype == dout.dtype == table.dtype == torch.float32
    assert slots.dtype == torch.int64
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (weights, slots, dout, table)]
    sizes = [_I(size) for size in (slots.numel(), slots.shape[1], dout.shape[1])]

    def part(start: int, stop: int) -> None:
        loops.memx_scatter(*pointers, _I(start), _I(stop), *sizes)

    _shared(part, dout.shape[1], least=16)


def lookup_backward(dscores: Tensor, slots: Tensor, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of query [B, H, d_k] and keys [2, H, n, d_k/2], float32; dscores and slots [B, H, k], slots int64."""
    loops = library()
    assert loops is not None and dscores.dtype == query.dtype == keys.dtype == torch.float32
    assert slots.dtype == torch.int64
    dquery, dkeys = torch.empty_like(query), torch.zeros_like(keys)
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (dscores, slots, query, keys, dquery, dkeys)]
    sizes = [_I(size) for size in (*slots.shape, *keys.shape[2:])]

    def part(start: int, stop: int) -> None:
        loops.memx_lookup_backward(*pointers, _I(start), _I(stop), *sizes)

    _shared(part, 2 * keys.shape[1], least=1)
    return dquery, dkeys


def adam(
    values: Tensor,
    momentum: Tensor,
    second: Tensor,
    rows: Tensor,
    starts: Tensor,
    bags: Tensor,
    weights: Tensor,
    dout: Tensor,
    *,
    decays: Tensor,
    ahead: Tensor,
    owed: Tensor,
    betas: tuple[float, float],
    eps: float,
    scale: float,
) -> None:
    """Sum the gradient of each row and step it, in place: one pass over the touched rows of the table and its state.

    values [N, D] float32; momentum [N, D] and a full second moment float32 or bfloat16, both the same; second [N]
    float32 is one number a row. rows, starts, bags, weights, dout: those of a `RowGradient` in float32. What is left of
    either moment since the row's last touch: decays [2, U]; ahead and owed [U]: see `sparse_adam`.
    """
    loops = library()
    assert loops is not None and values.dtype == dout.dtype == weights.dtype == torch.float32
    assert rows.dtype == starts.dtype == bags.dtype == torch.int64
    assert second.dtype == (torch.float32 if second.dim() == 1 else momentum.dtype)
    per_row = [x.float().contiguous() for x in (decays, ahead, owed)]
    tensors = (values, momentum, second, rows, starts, bags, weights, dout, *per_row)
    half, one = momentum.dtype == torch.bfloat16, second.dim() == 1
    given = _Adam(*(x.data_ptr() for x in tensors), len(rows), values.shape[1], *betas, eps, scale, half, one)

    def part(start: int, stop: int) -> None:
        scratch = torch.empty(values.shape[1])
        loops.memx_adam(ctypes.byref(given), ctypes.c_void_p(scratch.data_ptr()), _I(start), _I(stop))

    _shared(part, len(rows))


def _shared(part: Callable[[int, int], None], size: int, least: int = 256) -> None:
    """Call part(start, stop) on as many ranges of 0..size as torch has threads, of at least so many each.

    The calls release the interpreter.
    """
    threads = max(1, min(torch.get_num_threads(), size // least))
    ranges = list(pairwise(size * i // threads for i in range(threads + 1)))
    others = [Thread(target=part, args=given) for given in ranges[1:]]
    for thread in others:
        thread.start()
    part(*ranges[0])
    for thread in others:
        thread.join()
