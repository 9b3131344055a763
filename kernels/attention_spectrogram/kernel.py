"""Triton kernel of the attention spectrogram: queries, keys and log-sum-exp -> spectrum and carry.

Names as in `reference.py`. A program takes one key-value head and a tile of keys, keeps the keys and walks over blocks
of 16 queries. A block's probabilities are recomputed for the heads of the group together, averaged, and multiplied by
both halves of the windowed DFT: the second half completes this frame, the first begins the next. So no probability is
written, and each is transformed once. Offsets of rows are 64-bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lse_kernel import LOG2E, as_bytes, lse_kernel, lse_settings, mask_strides, unit
from .reference import BINS, CARRY, HOP, windowed_dft

_GROUP = 4  # query heads at a time, at most


@triton.jit
def _rows(at, here, feature, dim):
    """Rows of queries or keys, zero where there are none: [rows, features]."""
    return tl.load(at[:, None] + feature[None, :], mask=here[:, None] & (feature < dim)[None, :], other=0)


@triton.jit
def spectrogram_kernel(
    query, key, lse, carry, previous, mask, dft, spectrum, new_carry,
    query_b, query_h, query_t, key_b, key_h, key_t, mask_b, mask_h,
    keys, old, heads, frames, dim, scale, decay,
    G: tl.constexpr, GROUP: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
    REDUCE: tl.constexpr, HAS_CARRY: tl.constexpr, HAS_PREVIOUS: tl.constexpr,
    HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One (sequence, key-value head, tile of keys) a program; scale is for base 2, decay that of a frame."""
    tiles = tl.cdiv(keys, BLOCK_T)
    place = (tl.program_id(0) // tiles).to(tl.int64)  # sequence * heads + head
    batch, head = place // heads, place % heads
    t = (tl.program_id(0) % tiles) * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = t < keys
    at = place * keys + t.to(tl.int64)  # the key's place in outputs
    before = place * old + t.to(tl.int64)  # and in the state of the last run
    known = (t < old)[:, None]
    exists = inside
    if HAS_MASK:
        exists = inside & (tl.load(mask + batch * mask_b + head * mask_h + t, mask=inside, other=0) != 0)
    feature = tl.arange(0, CHUNK)
    key_at = key + batch * key_b + head * key_h + t.to(tl.int64) * key_t
    k = _rows(key_at, inside, feature, dim)

    n = tl.arange(0, 16)
    cell = dft + n[:, None] * 32 + n[None, :]  # the four quarters: rows of this or the last block, cosines or sines
    first_cos, first_sin = tl.load(cell), tl.load(cell + 16)
    second_cos, second_sin = tl.load(cell + 16 * 32), tl.load(cell + 16 * 32 + 16)
    attention = tl.zeros([BLOCK_T, 16], tl.float32)
    if HAS_CARRY:
        attention = tl.load(carry + before[:, None] * 16 + n[None, :], mask=known, other=0)
    real = tl.dot(attention, first_cos, input_precision=PRECISION)
    imag = tl.dot(attention, first_sin, input_precision=PRECISION)
    total = tl.zeros([BLOCK_T, 16], tl.float32)
    nyquist = tl.zeros([BLOCK_T, 16], tl.float32)  # column 0 alone counts
    if HAS_PREVIOUS:
        total = tl.load(previous + before[:, None] * 17 + n[None, :], mask=known, other=0)
        nyquist = tl.load(previous + before[:, None] * 17 + 16 + n[None, :], mask=known & (n == 0)[None, :], other=0)

    lane = tl.arange(0, GROUP * 16)
    for frame in range(frames):
        i = frame * 16 + lane % 16
        attention = tl.zeros([BLOCK_T, 16], tl.float32)
        for start in range(0, G, GROUP):  # one turn for groups of up to GROUP heads
            member = start + lane // 16
            here = member < G
            query_at = query + batch * query_b + (head * G + member) * query_h + i.to(tl.int64) * query_t
            scores = tl.dot(k, tl.trans(_rows(query_at, here, feature, dim)), input_precision="ieee")
            if CHUNK < BLOCK_D:  # float32 products take registers: a few features at a time, keys read again
                for more in range(CHUNK, BLOCK_D, CHUNK):
                    k_part = _rows(key_at + more, inside, feature, dim - more)
                    q_part = _rows(query_at + more, here, feature, dim - more)
                    scores = tl.dot(k_part, tl.trans(q_part), acc=scores, input_precision="ieee")
            offset = tl.load(lse + (place * G + member) * frames * 16 + i, mask=here, other=0) * 1.4426950408889634
            scores = scores * scale - offset[None, :]
            seen = exists[:, None] & here[None, :] & (t[:, None] <= (old + i)[None, :])
            weights = tl.exp2(tl.where(seen, scores, float("-inf")))  # [BLOCK_T, GROUP * 16]
            attention += tl.sum(tl.reshape(weights, [BLOCK_T, GROUP, 16]), 1)
        attention = attention / G
        real = tl.dot(attention, second_cos, acc=real, input_precision=PRECISION)
        imag = tl.dot(attention, second_sin, acc=imag, input_precision=PRECISION)
        # bins 0 and 16 have no sine, and the cosine of bin 16 has the place of the sine of bin 0
        magnitude = tl.sqrt(real * real + tl.where((n > 0)[None, :], imag * imag, 0.0))
        if REDUCE:
            total = decay * total + (1 - decay) * magnitude
            nyquist = decay * nyquist + (1 - decay) * tl.abs(imag)
        else:
            out = spectrum + ((place * frames + frame) * keys + t.to(tl.int64))[:, None] * 17 + n[None, :]
            tl.store(out, magnitude, mask=inside[:, None])
            tl.store(out + 16, tl.abs(imag), mask=inside[:, None] & (n == 0)[None, :])
        real = tl.dot(attention, first_cos, input_precision=PRECISION)
        imag = tl.dot(attention, first_sin, input_precision=PRECISION)
    if REDUCE:
        out = spectrum + at[:, None] * 17 + n[None, :]
        tl.store(out, total, mask=inside[:, None])
        tl.store(out + 16, nyquist, mask=inside[:, None] & (n == 0)[None, :])
    tl.store(new_carry + at[:, None] * 16 + n[None, :], attention, mask=inside[:, None])


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
    """The spectrum, and the new carry by key [B, H, T, 16], both float32."""
    (batch, heads, keys, dim), (_, query_heads, queries, _) = key.shape, query.shape
    query, key, mask = unit(query), unit(key), as_bytes(mask)
    frames = queries // HOP
    shape = (batch, heads, frames, keys, BINS) if decay is None else (batch, heads, keys, BINS)
    spectrum = query.new_empty(shape, dtype=torch.float32)
    new_carry = query.new_empty(batch, heads, keys, CARRY, dtype=torch.float32)
    settings = spectrogram_settings(query.dtype, dim, query_heads // heads)
    programs = triton.cdiv(keys, settings["BLOCK_T"]) * batch * heads
    if programs:
        launch: Any = spectrogram_kernel[(programs,)]
        with torch.cuda.device_of(query):  # else Triton launches on the current one
            launch(
                query, key, lse.float().contiguous(),
                None if carry is None else carry.mT.float().contiguous(),  # as it is, if it came from here
                None if previous is None else previous.float().contiguous(),
                mask, windowed_dft(torch.float32, query.device), spectrum, new_carry,
                *query.stride()[:3], *key.stride()[:3], *mask_strides(mask),
                keys, keys - queries, heads, frames, dim, scale * LOG2E, 1.0 if decay is None else decay**HOP,
                **settings, REDUCE=decay is not None, HAS_CARRY=carry is not None, HAS_PREVIOUS=previous is not None,
                HAS_MASK=mask is not None,
            )  # fmt: skip
    return spectrum, new_carry


def spectrogram_settings(dtype: torch.dtype, dim: int, group: int) -> dict[str, Any]:
    """Tile sizes without register spills on sm_80 and sm_90. float32 is exact, and made without tensor cores."""
    wide, exact = max(16, triton.next_power_of_2(dim)), dtype == torch.float32
    return {
        "G": group,
        "GROUP": min(_GROUP, triton.next_power_of_2(group)),
        "BLOCK_T": 32 if exact else 64,
        "BLOCK_D": wide,
        "CHUNK": 16 if exact else wide,
        # three products of halves of the float32 probabilities: as exact as float32 to some 2^-21
        "PRECISION": "ieee" if exact else "tf32x3",
        "num_warps": 4,
        "num_stages": 2,
    }


def aot() -> list[tuple]:
    """What `kernels.resources` compiles: groups of 3 heads of 64 and of 4 heads of 128."""
    variants = []
    for dtype, pointer in ((torch.bfloat16, "*bf16"), (torch.float32, "*fp32")):
        for dim, group in ((64, 3), (128, 4)):
            name = f"{pointer[1:]} d={dim} group={group}"
            flags: dict[str, Any] = {"HAS_MASK": True}
            types = {"query": pointer, "key": pointer, "mask": "*u8", "scale": "fp32"}
            variants.append(_variant(f"lse {name}", lse_kernel, types, lse_settings(dtype, dim, group) | flags))
            flags |= {"REDUCE": True, "HAS_CARRY": True, "HAS_PREVIOUS": True}
            types |= {"decay": "fp32"}
            settings = spectrogram_settings(dtype, dim, group) | flags
            variants.append(_variant(f"spectrogram {name}", spectrogram_kernel, types, settings))
    return variants


def _variant(name: str, kernel: Any, types: dict[str, str], constants: dict[str, Any]) -> tuple:
    """One entry of `aot`: strides and sizes are i32, pointers without a type *fp32."""
    constants = dict(constants)
    warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
    pointers = {"lse", "carry", "previous", "dft", "spectrum", "new_carry", "out"}
    names = [argument for argument in kernel.arg_names if argument not in constants]
    signature = {x: types.get(x, "*fp32" if x in pointers else "i32") for x in names}
    strides = [x for x in names if x.endswith(("_b", "_h", "_t"))]
    return name, kernel, signature, constants, warps, stages, ("dim", *strides)
