"""The sparse Adam step as one Triton kernel: sorted contributions -> touched rows of table and state, in place.

U touched rows of width D. A program takes a few rows: it sums their gradients (no gradient row is ever written), makes
up for the steps they were not touched in, and reads and writes table, moments and master once. Arithmetic is float32
(float64 for a float64 table).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..embedding_bag.gradient import RowGradient
from ..embedding_bag.kernel import sums_type
from ..embedding_bag.segment_kernel import SPLIT, row_blocks, row_sums
from ..tuning import settings
from .state import TableState


@triton.jit
def _caught_up(curves, length, last, gap, row, here, step, lr):
    """What `catch_up` computes, for rows [R], in float64: both decays, ahead and owed; notes the touch."""
    before = tl.load(last + row, mask=here, other=0)
    since = step - before
    coasting = tl.load(curves + 2 * length + since, mask=here, other=0)
    coasted = tl.load(curves + 2 * length + tl.load(gap + row, mask=here, other=0), mask=here, other=0)
    owed = (coasting - coasted) * tl.load(curves + 3 * length + before, mask=here, other=0) * lr
    ahead = (coasting + 1) * tl.load(curves + 3 * length + step) * lr
    decay1 = tl.load(curves + since, mask=here, other=0)
    decay2 = tl.load(curves + length + since, mask=here, other=0)
    tl.debug_barrier()  # every warp has read them: a row is read by all that have some of its columns
    tl.store(last + row, tl.zeros_like(before) + step, mask=here)
    tl.store(gap + row, since, mask=here)
    return decay1, decay2, ahead, owed


@triton.jit
def _rounded(x, seed, place):
    """Float32 x, rounded stochastically to what bfloat16 holds; as `stochastic_round`, with other noise."""
    bits = x.to(tl.int32, bitcast=True) + (tl.randint(seed, place) & 0xFFFF).to(tl.int32)
    upper = (bits & -65536).to(tl.float32, bitcast=True)
    return tl.where(x == x, upper, x)


@triton.jit
def adam_kernel(
    values, master, momentum, second, last, gap, rows, starts, bags, weights, dout, partial, curves, scale, seed,
    row_count, width, length, step, lr: tl.float64, new1: tl.float64, new2: tl.float64, eps: tl.float64,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLIT: tl.constexpr, ACC: tl.constexpr,
    MOMENTUM: tl.constexpr, PER_ROW: tl.constexpr, MASTER: tl.constexpr, NOISE: tl.constexpr,
):  # fmt: skip
    """One step of rows [U]; grid (tiles of rows). new1, new2: 1 - beta of either moment."""
    place = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    here = place < row_count
    row = tl.load(rows + place, mask=here, other=0)
    start = tl.load(starts + place, mask=here, other=0)
    end = tl.load(starts + place + 1, mask=here, other=0)
    decay1, decay2, ahead, owed = _caught_up(curves, length, last, gap, row, here, step, lr)
    decay1, decay2, ahead, owed = decay1.to(ACC), decay2.to(ACC), ahead.to(ACC), owed.to(ACC)
    factor = tl.load(scale).to(ACC)
    wide = tl.zeros([ROWS], tl.float64)  # arguments are numbers when interpreted: added to it, they become tensors
    new1, new2, eps = (wide + new1).to(ACC), (wide + new2).to(ACC), (wide + eps).to(ACC)
    old_root, new_root = tl.zeros([ROWS], ACC), tl.zeros([ROWS], ACC)
    if PER_ROW:  # one second moment a row needs the whole row's gradient first
        square = tl.zeros([ROWS], ACC)
        for begin in range(0, width, COLUMNS):
            column = begin + tl.arange(0, COLUMNS)
            grad = factor * row_sums(
                start, end, bags, weights, dout, partial, column, column < width, width, ROWS, COLUMNS, SPLIT, ACC
            )
            square += tl.sum(grad * grad, 1)
        before = tl.load(second + row, mask=here, other=0).to(ACC)
        after = before * decay2 + new2 * (square / width)
        tl.debug_barrier()  # as above
        tl.store(second + row, after, mask=here)
        old_root, new_root = tl.sqrt(before), tl.sqrt(after)
    for begin in range(0, width, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        inside = column < width
        mask = here[:, None] & inside[None, :]
        at = row[:, None] * width + column[None, :]
        move = factor * row_sums(
            start, end, bags, weights, dout, partial, column, inside, width, ROWS, COLUMNS, SPLIT, ACC
        )
        if PER_ROW:
            old, new = old_root[:, None], new_root[:, None]
        else:
            before = tl.load(second + at, mask=mask, other=0).to(ACC)
            after = before * decay2[:, None] + new2[:, None] * move * move
            tl.store(second + at, after, mask=mask)
            old, new = tl.sqrt(before), tl.sqrt(after)
        settled = tl.zeros_like(move)
        if MOMENTUM:
            first = tl.load(momentum + at, mask=mask, other=0).to(ACC)
            settled = first * owed[:, None] / (old + eps[:, None])
            move = first * decay1[:, None] + new1[:, None] * move
            tl.store(momentum + at, move, mask=mask)
        change = move * ahead[:, None] / (new + eps[:, None]) + settled
        if MASTER:
            exact = tl.load(master + at, mask=mask, other=0).to(ACC) - change
            tl.store(master + at, exact, mask=mask)
        else:
            exact = tl.load(values + at, mask=mask, other=0).to(ACC) - change
            if NOISE:
                exact = _rounded(exact, tl.load(seed), place[:, None] * width + column[None, :])
        tl.store(values + at, exact, mask=mask)


def fits(values: Tensor, gradient: RowGradient, state: TableState) -> bool:
    """Whether the kernel takes this table, gradient and state."""
    exact = (torch.float32, torch.float64)
    stored = values.dtype in exact or state.master is not None or values.dtype == torch.bfloat16
    return gradient.slots is not None and stored and all(x.is_contiguous() for x in (values, *state.tensors().values()))


def adam(
    values: Tensor,
    gradient: RowGradient,
    state: TableState,
    curves: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    scale: float | Tensor,
    generator: torch.Generator | None,
) -> None:
    """The step of `sparse_adam`; curves [4, L] (float64) are those of `catch_up`, eps is bias-corrected."""
    (count, width), device = (len(gradient), values.shape[1]), values.device
    if count == 0 or width == 0:
        return
    noise = state.master is None and values.dtype == torch.bfloat16
    seed = torch.zeros(1, dtype=torch.int64, device=device)
    if noise:
        seed.random_(generator=generator)
    key = (width, values.dtype, state.second.dim(), gradient.dout.dtype)
    chosen = settings("sparse_adam", key, row_blocks(width, state.second.dim() == 1), device)
    with torch.cuda.device_of(values):  # else Triton launches on the current one
        adam_kernel[(triton.cdiv(count, chosen["ROWS"]),)](
            values, state.master, state.momentum, state.second, state.last, state.gap,
            gradient.rows, gradient.starts, gradient.bags, gradient.weights, gradient.dout, gradient.partial,
            curves, torch.as_tensor(scale, dtype=torch.float64, device=device), seed,
            count, width, curves.shape[1], step, lr, 1 - betas[0], 1 - betas[1], eps,
            SPLIT=SPLIT, ACC=sums_type(gradient.dtype),
            MOMENTUM=state.momentum is not None, PER_ROW=state.second.dim() == 1,
            MASTER=state.master is not None, NOISE=noise, **chosen,
        )  # fmt: skip


def aot() -> list[tuple]:
    """What `kernels.resources` compiles: width 1024; a whole float32 state, and bfloat16 with one moment a row."""
    integers = {"last": "*i32", "gap": "*i32", "rows": "*i64", "starts": "*i64", "bags": "*i64", "seed": "*i64"}
    floats = {"weights": "*fp32", "partial": "*fp32", "curves": "*fp64", "scale": "*fp64"}
    numbers = dict.fromkeys(("row_count", "width", "length", "step"), "i32")
    rates = dict.fromkeys(("lr", "new1", "new2", "eps"), "fp64")
    found = []
    for name, dtype, per_row in (("fp32", "*fp32", False), ("bf16, a moment a row", "*bf16", True)):
        tables = {"values": dtype, "momentum": dtype, "dout": "*bf16", "second": "*fp32"}
        chosen = row_blocks(1024, per_row)
        warps = chosen.pop("num_warps")
        constants = {
            **chosen, "SPLIT": SPLIT, "ACC": tl.float32, "MOMENTUM": True,
            "PER_ROW": per_row, "MASTER": False, "NOISE": dtype == "*bf16", "master": None,
        }  # fmt: skip
        signature = {**tables, **integers, **floats, **numbers, **rates}
        found.append((f"adam {name}", adam_kernel, signature, constants, warps, 3, ("width",)))
    return found
