"""The compiled loops as functions of tensors: rows, dots of bags with them, sums into them, lookup backward, Adam.

N slots of width D, B bags of K rows, U touched rows. Tensors that are read may lie as they like; those that are
written are contiguous.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from .build import library
from .threads import shared

_LEAST = 256  # bags or rows that are worth a thread
_I, _F = ctypes.c_int64, ctypes.c_float


class _Adam(ctypes.Structure):
    """struct adam of rows.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("values", "momentum", "second", "rows", "starts", "bags", "weights")),
        *((name, ctypes.c_void_p) for name in ("dout", "decays", "ahead", "owed")),
        *((name, _I) for name in ("touched", "width")),
        *((name, _F) for name in ("new1", "new2", "eps", "scale")),
        *((name, ctypes.c_int32) for name in ("half", "per_row")),
    )


def available(*tensors: Tensor) -> bool:
    """Whether the loops can be had here, for tensors that are all on the CPU."""
    return all(x.device.type == "cpu" for x in tensors) and library() is not None


def gather(values: Tensor, rows: Tensor, out: Tensor, *, least: int = _LEAST) -> None:
    """out[r] = values[rows[r]]; values [N, D] and out [R, D] of one dtype, any; rows [R] integers.

    least: rows that are worth a thread. Raises IndexError for a row that is not there.
    """
    rows = _checked(rows, len(values))
    assert values.dtype == out.dtype and out.shape == (len(rows), values.shape[1]), (values.shape, out.shape)
    assert values.is_contiguous() and out.is_contiguous()
    tensors, sizes = (values, rows, out), (values.shape[1] * values.itemsize,)
    shared(lambda _, *bounds: _call("memx_gather", tensors, bounds, sizes), len(rows), least)


def dots(vectors: Tensor, values: Tensor, slots: Tensor) -> Tensor:
    """<vectors[b], values[slots[b, k]]>: [B, K] float32. vectors [B, D], values [N, D] float32; slots [B, K] integers.

    Raises IndexError for a slot that is not there.
    """
    vectors, values, slots = vectors.contiguous(), values.contiguous(), _checked(slots, len(values))
    assert vectors.dtype == values.dtype == torch.float32
    assert vectors.shape == (len(slots), values.shape[1]), (vectors.shape, slots.shape, values.shape)
    out = values.new_empty(slots.shape)
    tensors, sizes = (vectors, values, slots, out), (slots.shape[1], values.shape[1])
    shared(lambda _, *bounds: _call("memx_dots", tensors, bounds, sizes), len(slots), _LEAST)
    return out


def scatter(weights: Tensor, slots: Tensor, dout: Tensor, table: Tensor) -> None:
    """table[slots[b, k]] += weights[b, k] * dout[b], in the order of b, then k.

    weights and slots (integers) [B, K], dout [B, D] and table [N, D] float32. Raises IndexError for a slot that is not
    there.
    """
    weights, slots, dout = weights.contiguous(), _checked(slots, len(table)), dout.contiguous()
    assert weights.dtype == dout.dtype == table.dtype == torch.float32 and table.is_contiguous()
    assert weights.shape == slots.shape and dout.shape == (len(slots), table.shape[1])
    tensors, sizes = (weights, slots, dout, table), (slots.numel(), slots.shape[1], dout.shape[1])
    shared(lambda _, *bounds: _call("memx_scatter", tensors, bounds, sizes), dout.shape[1], least=16)


def lookup_backward(dscores: Tensor, slots: Tensor, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of query [B, H, d_k] and keys [2, H, n, d_k/2] for dscores [B, H, k] of slots [B, H, k], all float32.

    Raises IndexError for a slot that is not there.
    """
    dscores, query, keys = dscores.contiguous(), query.contiguous(), keys.contiguous()
    slots = _checked(slots, keys.shape[2] ** 2)
    assert dscores.dtype == query.dtype == keys.dtype == torch.float32
    assert dscores.shape == slots.shape and query.shape == (*slots.shape[:2], 2 * keys.shape[3])
    dquery, dkeys = torch.empty_like(query), torch.zeros_like(keys)
    tensors, sizes = (dscores, slots, query, keys, dquery, dkeys), (*slots.shape, *keys.shape[2:])
    shared(lambda _, *bounds: _call("memx_lookup_backward", tensors, bounds, sizes), 2 * keys.shape[1], least=1)
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
    either moment since the row's last touch: decays [2, U]; ahead and owed [U]: see `sparse_adam`. Raises IndexError
    for a row that is not there.
    """
    per_row = [x.float().contiguous() for x in (decays, ahead, owed)]
    read = [_checked(rows, len(values)), starts, bags, weights, dout]
    tensors = (values, momentum, second, *(x.contiguous() for x in read), *per_row)
    one, width = second.dim() == 1, values.shape[1]
    assert values.dtype == dout.dtype == weights.dtype == torch.float32 and starts.dtype == bags.dtype == torch.int64
    assert second.dtype == (torch.float32 if one else momentum.dtype)
    assert all(x.is_contiguous() for x in (values, momentum, second)) and dout.shape[1] == width
    assert momentum.shape == values.shape and second.shape == values.shape[: second.dim()]
    numbers = (len(rows), width, 1 - betas[0], 1 - betas[1], eps, scale, momentum.dtype == torch.bfloat16, one)
    scratch = torch.empty(len(rows) // _LEAST + 1, width, dtype=torch.float32, device="cpu")  # a row for each thread

    def part(number: int, start: int, stop: int) -> None:
        given = _Adam(*(x.data_ptr() for x in tensors), *numbers)
        place = ctypes.c_void_p(scratch[number].data_ptr())
        _loops().memx_adam(ctypes.byref(given), place, _I(start), _I(stop))

    shared(part, len(rows), _LEAST)


def _checked(slots: Tensor, rows: int) -> Tensor:
    """Slots as contiguous int64. Raises IndexError for one that is not in 0..rows - 1."""
    if slots.numel():
        low, high = slots.aminmax()
        if low < 0 or high >= rows:
            raise IndexError(f"slots {int(low)}..{int(high)} must be in 0..{rows - 1}")
    return slots.long().contiguous()


def _loops() -> ctypes.CDLL:
    loops = library()
    assert loops is not None, "check `available` first"
    return loops


def _call(name: str, tensors: Sequence[Tensor], bounds: Sequence[int], sizes: Sequence[int]) -> None:
    getattr(_loops(), name)(*(ctypes.c_void_p(x.data_ptr()) for x in tensors), *map(_I, (*bounds, *sizes)))
