"""Triton kernels that read the rows of bags: weighted sums of rows, and dot products with rows.

N slots of width D, B bags of K rows. A program takes one bag and a tile of columns (sums) or of rows (dots), and keeps
32 numbers a thread in flight: a gathered row is read once, in 16-byte accesses, and summed in float32 (float64 for
float64 tables). A slot that is not there gives nan, and nothing outside the table is read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import settings

_TILE = 4096  # numbers that a program of 4 warps has in flight


def blocks(rows: int, width: int, size: int = _TILE) -> dict[str, int]:
    """Blocks for bags of `rows` rows of a width: all columns up to 512, then as many rows as fit."""
    columns = min(triton.next_power_of_2(max(width, 1)), 512)
    rows = max(1, min(triton.next_power_of_2(max(rows, 1)), size // columns))
    return {"ROWS": rows, "COLUMNS": columns, "num_warps": 4}


@triton.jit
def sums_kernel(
    values, slots, weights, out, slot_count, bag_rows, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out[b] = sum_k weights[b, k] * values[slots[b, k]]; grid (B, tiles of columns)."""
    bag = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    total = tl.zeros([ROWS, COLUMNS], ACC)
    k = tl.arange(0, ROWS)
    slot = tl.load(slots + bag * bag_rows + k, mask=k < bag_rows, other=0).to(tl.int64)
    for start in range(0, bag_rows, ROWS):
        k = start + tl.arange(0, ROWS)
        here = k < bag_rows
        there = (slot >= 0) & (slot < slot_count)
        rows = tl.load(
            values + slot[:, None] * width + column[None, :],
            mask=(here & there)[:, None] & inside[None, :],
            other=0,
        )
        weight = tl.load(weights + bag * bag_rows + k, mask=here, other=0).to(ACC)
        weight = tl.where(there, weight, float("nan"))
        # the next slots are on their way while these rows are
        slot = tl.load(slots + bag * bag_rows + k + ROWS, mask=k + ROWS < bag_rows, other=0).to(tl.int64)
        total += weight[:, None] * rows.to(ACC)
    tl.store(out + bag * width + column, tl.sum(total, 0), mask=inside)


@triton.jit
def dots_kernel(
    vectors, values, slots, out, slot_count, bag_rows, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out[b, k] = <vectors[b], values[slots[b, k]]>; grid (B, tiles of rows)."""
    bag = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    here = k < bag_rows
    slot = tl.load(slots + bag * bag_rows + k, mask=here, other=0).to(tl.int64)
    there = here & (slot >= 0) & (slot < slot_count)
    total = tl.zeros([ROWS, COLUMNS], ACC)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = column < width
        vector = tl.load(vectors + bag * width + column, mask=inside, other=0).to(ACC)
        rows = tl.load(values + slot[:, None] * width + column[None, :], mask=there[:, None] & inside[None, :], other=0)
        total += vector[None, :] * rows.to(ACC)
    dot = tl.where(there, tl.sum(total, 1), float("nan"))
    tl.store(out + bag * bag_rows + k, dot, mask=here)


def sums_type(dtype: torch.dtype) -> tl.dtype:
    """What sums of numbers of a dtype are made in."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def weighted_sums(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """sum_k weights[b, k] * values[slots[b, k]]: [B, D], in the dtype of values."""
    values, slots, weights = values.detach().contiguous(), slots.contiguous(), weights.detach().contiguous()
    (bags, bag_rows), (slot_count, width) = slots.shape, values.shape
    out = values.new_empty(bags, width)
    if out.numel():
        chosen = settings("bag_sums", (bag_rows, width, values.dtype), blocks(bag_rows, width), values.device)
        grid = (bags, triton.cdiv(width, chosen["COLUMNS"]))
        with torch.cuda.device_of(values):  # else Triton launches on the current one
            sums_kernel[grid](
                values, slots, weights, out, slot_count, bag_rows, width, ACC=sums_type(values.dtype), **chosen
            )
    return out


def dot_products(vectors: Tensor, values: Tensor, slots: Tensor) -> Tensor:
    """<vectors[b], values[slots[b, k]]>: [B, K], in the dtype of values; vectors [B, D]."""
    vectors, values, slots = vectors.detach().contiguous(), values.detach().contiguous(), slots.contiguous()
    (bags, bag_rows), (slot_count, width) = slots.shape, values.shape
    out = values.new_empty(bags, bag_rows)
    if out.numel():
        chosen = settings("bag_dots", (bag_rows, width, values.dtype), blocks(bag_rows, width), values.device)
        grid = (bags, triton.cdiv(bag_rows, chosen["ROWS"]))
        with torch.cuda.device_of(values):  # else Triton launches on the current one
            dots_kernel[grid](
                vectors, values, slots, out, slot_count, bag_rows, width, ACC=sums_type(values.dtype), **chosen
            )
    return out


def aot() -> list[tuple]:
    """What `kernels.resources` compiles: 128 rows of width 1024 a bag."""
    constants = {**blocks(128, 1024), "ACC": tl.float32}
    warps = constants.pop("num_warps")
    counts = {"slot_count": "i32", "bag_rows": "i32", "width": "i32"}
    found = []
    for kernel, names in ((sums_kernel, ("values", "weights")), (dots_kernel, ("vectors", "values"))):
        for dtype in ("bf16", "fp32"):
            signature = {**dict.fromkeys((*names, "out"), f"*{dtype}"), "slots": "*i64", **counts}
            name = f"{kernel.__name__.removesuffix('_kernel')} {dtype}"
            found.append((f"bag {name}", kernel, signature, constants, warps, 3, tuple(counts)))
    return found
