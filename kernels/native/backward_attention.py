"""The compiled backward attention as a function of tensors: queries, keys and values -> what tokens read of newer ones.

N sequences of T tokens, oldest first.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .build import library
from .threads import shared

_WIDTH, _QUERIES = 32, 64  # of a head; of a unit of work; as in C
_I = ctypes.c_int64


class _Backward(ctypes.Structure):
    """struct backward of backward_attention.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("tokens", "exists", "read")),
        ("length", _I),
        ("strict", ctypes.c_int32),
    )


def backward_attention(tokens: Tensor, exists: Tensor | None = None, *, strict: bool = False) -> Tensor:
    """What each token reads of itself and of newer ones: [N, T, 32], float32, without gradients.

    tokens [N, T, 96]: query, key and value of each, side by side; exists [N, T], bool: the others are read by none.
    Softmax of <query, key> / sqrt(32); with `strict` of newer tokens alone. A token with nothing to read reads zero.
    """
    tokens = tokens.detach().float().contiguous()
    sequences, length, width = tokens.shape
    assert width == 3 * _WIDTH and tokens.device.type == "cpu", (width, tokens.device)
    if exists is not None:
        assert exists.shape == (sequences, length) and exists.dtype == torch.bool, (exists.shape, exists.dtype)
        exists = exists.contiguous()
    read = tokens.new_empty(sequences, length, _WIDTH)
    held = {"tokens": tokens, "exists": exists, "read": read}
    addresses = {name: None if x is None else x.data_ptr() for name, x in held.items()}
    given = _Backward(**addresses, length=length, strict=strict)
    loops = library()
    assert loops is not None, "check `available` first"

    def part(_: int, start: int, stop: int) -> None:
        assert held  # what the pointers point to stays alive with this function
        loops.memx_backward_attention(ctypes.byref(given), _I(start), _I(stop))

    shared(part, sequences * -(-length // _QUERIES), least=1)
    return read
