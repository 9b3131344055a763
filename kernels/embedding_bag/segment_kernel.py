"""Triton kernels over contributions sorted by row: their sums, row by row, in a fixed order and without atomics.

S contributions weights[s] * dout[bags[s]] of width D; row u has those of starts[u]:starts[u + 1]. A program sums a few
rows at once, side by side. A hot row would keep one program busy for long: the sorted list is cut into blocks of
`SPLIT`, those that lie within one row are summed first, each by a program of its own, and the row then adds those sums
to what is left at its two ends. Whether a block does is told by its first and last slot alone, so this takes no counts,
no search and no synchronisation, and the order of every sum follows from the slots alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import settings
from .kernel import blocks, sums_type

SPLIT = 128


@triton.jit
def _add_range(total, start, end, bags, weights, dout, column, inside, width, ACC: tl.constexpr):
    """Add contributions start:end ([R] each) to total [R, C]."""
    place = start
    bag = tl.load(bags + place, mask=place < end, other=0).to(tl.int64)
    for _ in range(0, tl.max(end - start, 0)):
        here = place < end
        part = tl.load(dout + bag[:, None] * width + column[None, :], mask=here[:, None] & inside[None, :], other=0)
        weight = tl.load(weights + place, mask=here, other=0).to(ACC)
        place += 1
        bag = tl.load(bags + place, mask=place < end, other=0).to(tl.int64)  # on its way while these rows are
        total += weight[:, None] * part.to(ACC)
    return total


@triton.jit
def row_sums(
    start, end, bags, weights, dout, partial, column, inside, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The sums of contributions start:end ([R] each, int64) at some columns [C]: [R, C]."""
    first = (start + SPLIT - 1) // SPLIT  # the whole blocks of a row are first:last
    last = end // SPLIT
    split = last > first
    total = tl.zeros([ROWS, COLUMNS], ACC)
    total = _add_range(
        total, start, tl.where(split, first * SPLIT, end), bags, weights, dout, column, inside, width, ACC
    )
    blocks = tl.where(split, last - first, 0)
    for step in range(0, tl.max(blocks, 0)):
        here = step < blocks
        total += tl.load(
            partial + (first + step)[:, None] * width + column[None, :],
            mask=here[:, None] & inside[None, :],
            other=0,
        )
    return _add_range(total, tl.where(split, last * SPLIT, end), end, bags, weights, dout, column, inside, width, ACC)


@triton.jit
def partial_kernel(
    slots, bags, weights, dout, partial, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """partial[j] = the sum of block j, if it lies within one row; grid (S // SPLIT, tiles of columns)."""
    block = tl.program_id(0).to(tl.int64)
    begin = block * SPLIT
    if tl.load(slots + begin) == tl.load(slots + begin + SPLIT - 1):
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = column < width
        total = tl.zeros([ROWS, COLUMNS], ACC)
        for step in range(0, SPLIT, ROWS):
            place = begin + step + tl.arange(0, ROWS)
            bag = tl.load(bags + place).to(tl.int64)
            weight = tl.load(weights + place).to(ACC)
            part = tl.load(dout + bag[:, None] * width + column[None, :], mask=inside[None, :], other=0)
            total += weight[:, None] * part.to(ACC)
        tl.store(partial + block * width + column, tl.sum(total, 0), mask=inside)


@triton.jit
def rows_kernel(
    starts, bags, weights, dout, partial, out, row_count, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out[u] = the sum of row u; grid (tiles of rows, tiles of columns)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    here, inside = row < row_count, column < width
    start = tl.load(starts + row, mask=here, other=0)
    end = tl.load(starts + row + 1, mask=here, other=0)
    total = row_sums(start, end, bags, weights, dout, partial, column, inside, width, ROWS, COLUMNS, SPLIT, ACC)
    tl.store(out + row[:, None] * width + column[None, :], total, mask=here[:, None] & inside[None, :])


@triton.jit
def norms_kernel(
    starts, bags, weights, dout, partial, squares, row_count, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """squares[u] = the squared norm of the sum of row u; grid (tiles of rows)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    here = row < row_count
    start = tl.load(starts + row, mask=here, other=0)
    end = tl.load(starts + row + 1, mask=here, other=0)
    square = tl.zeros([ROWS], ACC)
    for begin in range(0, width, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        inside = column < width
        total = row_sums(start, end, bags, weights, dout, partial, column, inside, width, ROWS, COLUMNS, SPLIT, ACC)
        square += tl.sum(total * total, 1)
    tl.store(squares + row, square, mask=here)


def row_blocks(width: int, twice: bool = False) -> dict[str, int]:
    """How many rows and columns a program sums side by side: 16 numbers a thread, which leaves registers for Adam.

    twice: the sums are made in two places, which takes registers for two.
    """
    return blocks(4096, width, 1024 if twice else 2048)


def partial_sums(slots: Tensor, bags: Tensor, weights: Tensor, dout: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums of the blocks of SPLIT contributions: [S // SPLIT, D] in dtype; unwritten for a block of several rows.

    slots, bags, weights [S], sorted by slot.
    """
    count, width = len(slots) // SPLIT, dout.shape[1]
    out = torch.empty(count, width, dtype=dtype, device=dout.device)
    if out.numel():
        chosen = settings("segment_partial", (width, dout.dtype), blocks(SPLIT, width), dout.device)
        assert SPLIT % chosen["ROWS"] == 0, f"{chosen}: the kernel reads whole tiles of a block"
        with torch.cuda.device_of(dout):  # else Triton launches on the current one
            partial_kernel[count, triton.cdiv(width, chosen["COLUMNS"])](
                slots, bags, weights, dout, out, width,
                SPLIT=SPLIT, ACC=sums_type(dtype), **chosen,
            )  # fmt: skip
    return out


def write_rows(starts: Tensor, bags: Tensor, weights: Tensor, dout: Tensor, partial: Tensor, out: Tensor) -> None:
    """Write the sums of the U rows of starts [U + 1] to out [U, D], of any floating dtype."""
    rows, width = out.shape
    if out.numel():
        chosen = settings("segment_rows", (width, dout.dtype, out.dtype), row_blocks(width), dout.device)
        with torch.cuda.device_of(dout):  # else Triton launches on the current one
            rows_kernel[triton.cdiv(rows, chosen["ROWS"]), triton.cdiv(width, chosen["COLUMNS"])](
                starts, bags, weights, dout, partial, out, rows, width,
                SPLIT=SPLIT, ACC=sums_type(partial.dtype), **chosen,
            )  # fmt: skip


def squared_norms(starts: Tensor, bags: Tensor, weights: Tensor, dout: Tensor, partial: Tensor) -> Tensor:
    """The squared norm of each of the U rows of starts [U + 1]: [U]; no sum is written."""
    rows, width = len(starts) - 1, dout.shape[1]
    squares = partial.new_empty(rows)
    if rows:
        chosen = settings("segment_norms", (width, dout.dtype), blocks(4096, width, 1024), dout.device)
        with torch.cuda.device_of(dout):  # else Triton launches on the current one
            norms_kernel[(triton.cdiv(rows, chosen["ROWS"]),)](
                starts, bags, weights, dout, partial, squares, rows, width,
                SPLIT=SPLIT, ACC=sums_type(partial.dtype), **chosen,
            )  # fmt: skip
    return squares


def aot() -> list[tuple]:
    """What `kernels.resources` compiles: bfloat16 gradients of width 1024."""
    sorted_parts = {"bags": "*i64", "weights": "*fp32", "dout": "*bf16", "partial": "*fp32"}
    found = []
    for kernel, chosen, signature in (
        (partial_kernel, blocks(SPLIT, 1024), {"slots": "*i32"}),
        (rows_kernel, row_blocks(1024), {"starts": "*i64", "out": "*bf16", "row_count": "i32"}),
        (norms_kernel, blocks(4096, 1024, 1024), {"starts": "*i64", "squares": "*fp32", "row_count": "i32"}),
    ):
        constants = {**chosen, "SPLIT": SPLIT, "ACC": tl.float32}
        warps = constants.pop("num_warps")
        name = f"segment {kernel.__name__.removesuffix('_kernel')} bf16"
        found.append((name, kernel, {**signature, **sorted_parts, "width": "i32"}, constants, warps, 3, ("width",)))
    return found
