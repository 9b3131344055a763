"""Triton kernel of the evict gather: all tensors of a layer in one launch.

Names as in `reference.py`. A program takes a tile of kept keys of one head, reads their indices once, and copies the
rows of every tensor. Numbers travel as integers, up to 8 bytes of a row at once, so every dtype is copied bit by bit.
Offsets of rows are 64-bit. An index outside 0..T-1 reads nothing and gives zeros.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 32  # kept keys a program: some 20 KB of rows in a layer of a NAMM's cache
_COLUMNS = 64  # integers of a row at a time, at most
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit
def _copy(sources, outs, there, here, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Copy rows of one tensor; zeros where no source is there, nothing where the row is none of this head's."""
    for start in range(0, WIDTH, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = (column < WIDTH)[None, :]
        numbers = tl.load(sources[:, None] + column[None, :], mask=there[:, None] & inside, other=0)
        tl.store(outs[:, None] + column[None, :], numbers, mask=here[:, None] & inside)


@triton.jit
def gather_kernel(
    sources, outs, strides, kept, counts, heads, keys, most,
    WIDTHS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, HAS_COUNTS: tl.constexpr,
):  # fmt: skip
    """One (sequence, head, tile of kept keys) a program.

    sources, outs: tuples of tensors; strides: a tuple of three for each source, by sequence, head and key.
    """
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
        source = sources[i] + place // heads * strides[3 * i] + place % heads * strides[3 * i + 1]
        _copy(source + index * strides[3 * i + 2], outs[i] + out_row * WIDTHS[i], there, here, WIDTHS[i], COLUMNS[i])


def evict_gather(tensors: Sequence[Tensor], kept: Tensor, counts: Tensor | None) -> list[Tensor]:
    """The kept rows of every tensor, packed: [B, H, M, W] or [B, H, M] each."""
    (batch, heads, most), keys = kept.shape, tensors[0].shape[2]
    outs = [tensor.new_empty(*kept.shape, *tensor.shape[3:]) for tensor in tensors]
    filled = [i for i, out in enumerate(outs) if out.numel()]
    if filled:
        sources = [as_rows(tensors[i]) for i in filled]
        targets = tuple(as_rows(outs[i]).view(widest(x)) for i, x in zip(filled, sources, strict=True))
        sources = tuple(source.view(widest(source)) for source in sources)
        widths = tuple(source.shape[3] for source in sources)
        launch: Any = gather_kernel[(triton.cdiv(most, _ROWS) * batch * heads,)]
        with torch.cuda.device_of(kept):  # else Triton launches on the current one
            launch(
                sources, targets, tuple(stride for source in sources for stride in source.stride()[:3]),
                kept.contiguous(), None if counts is None else counts.contiguous(), heads, keys, most,
                **settings(widths), HAS_COUNTS=counts is not None,
            )  # fmt: skip
    return outs


def as_rows(x: Tensor) -> Tensor:
    """A tensor stored by key as [B, H, T, W] with unit stride along W; a copy only where that is not 1."""
    x = x if x.dim() == 4 else x[..., None]
    x = torch.view_as_real(x.resolve_conj()).flatten(3) if x.is_complex() else x
    return x if x.stride(3) == 1 else x.contiguous()


def widest(x: Tensor) -> torch.dtype:
    """The widest integers that rows of a tensor [B, H, T, W] can be read as: they divide rows, strides and address."""
    size = x.dtype.itemsize
    sizes = [size * n for n in (x.shape[3], x.storage_offset(), *x.stride()[:3])] + [x.data_ptr()]
    return _INTEGERS[next(n for n in (8, 4, 2, 1) if n <= size or all(s % n == 0 for s in sizes))]


def settings(widths: tuple[int, ...]) -> dict[str, Any]:
    """The constants of a launch for tensors of these widths."""
    columns = tuple(min(_COLUMNS, triton.next_power_of_2(width)) for width in widths)
    return {"WIDTHS": widths, "ROWS": _ROWS, "COLUMNS": columns, "num_warps": 4}


def aot() -> list[tuple]:
    """What `kernels.resources` compiles: a layer's keys, values, spectrum, carry and positions, heads of 128."""
    variants = []
    for name, width in (("bf16", 32), ("fp32", 64)):
        pointers = ("*i64", "*i64", "*i32", "*i64", "*i64")
        constants = settings((width, width, 17, 8, 1)) | {"HAS_COUNTS": True}
        warps = constants.pop("num_warps")
        signature: dict[str, Any] = {"sources": pointers, "outs": pointers, "strides": ("i32",) * 15, "kept": "*i64"}
        signature |= {"counts": "*i64", "heads": "i32", "keys": "i32", "most": "i32"}
        variants.append((f"gather {name}", gather_kernel, signature, constants, warps, 3, ("strides",)))
    return variants
