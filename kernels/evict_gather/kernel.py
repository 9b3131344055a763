"""Triton kernel of the evict gather: all tensors of a layer in one launch.

Names as in `reference.py`. A program takes a tile of kept keys of one head, reads their indices once, and copies the
rows of every tensor. Numbers travel as integers of their size, so every dtype is copied bit by bit. Offsets of rows
are 64-bit. An index outside 0..T-1 reads nothing and gives zeros.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 32  # kept keys a program: some 20 KB of rows in a layer of a NAMM's cache
_COLUMNS = 256  # numbers of a row at a time, at most
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit
def gather_kernel(
    sources, outs, strides, kept, counts, heads, keys, most,
    WIDTHS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, HAS_COUNTS: tl.constexpr,
):  # fmt: skip
    """One (sequence, head, tile of kept keys) a program; sources, outs, strides (by sequence, head, key): tuples."""
    tiles = tl.cdiv(most, ROWS)
    place = (tl.program_id(0) // tiles).to(tl.int64)  # sequence * heads + head
    row = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    here = row < most
    out_row = place * most + row.to(tl.int64)
    there = here
    if HAS_COUNTS:
        there = here & (row < tl.load(counts + place))
    index = tl.load(kept + out_row, mask=there, other=0).to(tl.int64)
    there = there & (index >= 0) & (index < keys)
    for i in tl.static_range(len(WIDTHS)):
        source = sources[i] + place // heads * strides[i][0] + place % heads * strides[i][1]
        for start in tl.static_range(0, WIDTHS[i], COLUMNS[i]):
            column = start + tl.arange(0, COLUMNS[i])
            inside = (column < WIDTHS[i])[None, :]
            numbers = tl.load(
                source + index[:, None] * strides[i][2] + column[None, :], mask=there[:, None] & inside, other=0
            )
            out = outs[i] + out_row[:, None] * WIDTHS[i] + column[None, :]
            tl.store(out, numbers, mask=here[:, None] & inside)


def evict_gather(tensors: Sequence[Tensor], kept: Tensor, counts: Tensor | None) -> list[Tensor]:
    """The kept rows of every tensor, packed: [B, H, M, W] or [B, H, M] each."""
    (batch, heads, most), keys = kept.shape, tensors[0].shape[2]
    outs = [tensor.new_empty(*kept.shape, *tensor.shape[3:]) for tensor in tensors]
    pairs = [(as_rows(x), as_rows(out)) for x, out in zip(tensors, outs, strict=True) if out.numel()]
    if pairs:
        sources, targets = zip(*pairs, strict=True)
        widths = tuple(source.shape[3] for source in sources)
        launch: Any = gather_kernel[(triton.cdiv(most, _ROWS) * batch * heads,)]
        launch(
            sources, targets, tuple(source.stride()[:3] for source in sources),
            kept.contiguous(), None if counts is None else counts.contiguous(), heads, keys, most,
            **settings(widths), HAS_COUNTS=counts is not None,
        )  # fmt: skip
    return outs


def as_rows(x: Tensor) -> Tensor:
    """A tensor stored by key as integers [B, H, T, W] with unit stride along W; a copy only where that is not 1."""
    x = x if x.dim() == 4 else x[..., None]
    x = torch.view_as_real(x).flatten(3) if x.is_complex() else x
    x = x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()
    return x.view(_INTEGERS[x.dtype.itemsize])


def settings(widths: tuple[int, ...]) -> dict[str, Any]:
    """The constants of a launch for tensors of these widths."""
    columns = tuple(min(_COLUMNS, triton.next_power_of_2(width)) for width in widths)
    return {"WIDTHS": widths, "ROWS": _ROWS, "COLUMNS": columns, "num_warps": 4}


def aot() -> list[tuple[str, Any, dict[str, Any], dict[str, Any], int, int]]:
    """Variants to compile ahead of time: (name, kernel, signature, constants, warps, stages)."""
    variants = []
    for name, number, dim in (("bf16 d=128", "*i16", 128), ("fp32 d=128", "*i32", 128), ("bf16 d=80", "*i16", 80)):
        # keys, values, spectrum, carry and positions
        pointers = (number, number, "*i32", "*i32", "*i64")
        constants = settings((dim, dim, 17, 16, 1)) | {"HAS_COUNTS": True}
        warps = constants.pop("num_warps")
        signature = {"sources": pointers, "outs": pointers, "strides": (("i32",) * 3,) * 5, "kept": "*i64"}
        signature |= {"counts": "*i64", "heads": "i32", "keys": "i32", "most": "i32"}
        variants.append((f"gather {name}", gather_kernel, signature, constants, warps, 3))
    return variants
