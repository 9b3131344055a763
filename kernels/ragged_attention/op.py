"""`ragged_attention`: the public op, its checks and its `Op` record."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...torch_compat import has_flash_attention_for_cpu
from .. import native
from ..op import Op, Shape, choose, interpreted, runs_triton
from . import tiles
from .reference import RaggedAttention, ragged_attention_reference, sum_dtype

WIDEST = 256  # the widest head that the Triton kernel takes
_FEW = 128  # rows (queries of a group) up to which the compiled loop is faster than torch's attention of each head
_HALVES = (torch.float32, torch.bfloat16, torch.float16)


def ragged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    scale: float | None = None,
    positions: Tensor | None = None,
    own: Tensor | None = None,
    window: int | None = None,
    longest: int | None = None,
    *,
    impl: Literal["auto", "torch", "native", "triton"] = "auto",
) -> RaggedAttention:
    """Attention over keys and values that are stored head by head, each head with as many as it keeps.

    The log-sum-exp lets a caller join it with attention over other keys of the same heads: the share of each part is
    e^(its lse - logaddexp of both).

    Args:
        query: [B, Hq, Q, d]: queries of B sequences, after rotary positions.
        key: [S, d], S = offsets[B*H]: the keys of sequence 0's head 0, then of its head 1, and so on.
        value: [S, e], of the same dtype as query and key.
        offsets: [B*H + 1], int64: key-value head h of sequence b has keys offsets[b*H + h] to offsets[b*H + h + 1];
            none is fine.
        scale: What the scores are multiplied by; d^-0.5 by default.
        positions: [S], integers: the position of each key. With `own`, keys after a query do not count, nor those out
            of its window. None: every query sees all keys of its head.
        own: [B, Q], integers: the position of each query.
        window: How many positions a query sees back, itself counted; None for all.
        longest: The most keys of a head, if it is known: else a GPU is waited for to learn it.
        impl: "native", the compiled loops, is best for few queries on a CPU, "torch" for many.

    Returns:
        Output [B, Hq, Q, e] of the queries' dtype, and the natural log-sum-exp [B, Hq, Q] in float32 (float64 for
        float64), -inf for a query that sees no key, whose output is 0. No gradients.

    Raises:
        MemxError: The implementation is not there, or does not take the inputs.

    Source: Milakov & Gimelshein 2018 (arXiv 1805.02867) for sums in parts.
    """
    pairs = len(offsets) - 1
    assert query.dim() == 4 and key.dim() == value.dim() == 2 and len(key) == len(value), (query.shape, key.shape)
    assert query.shape[3] == key.shape[1] and query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype)
    assert pairs % len(query) == 0 and query.shape[1] * len(query) % pairs == 0, (query.shape, pairs)
    assert offsets.dtype == torch.int64 and offsets.dim() == 1, (offsets.dtype, offsets.shape)
    assert (positions is None) == (own is None) and (positions is not None or window is None)
    assert positions is None or (positions.shape == key.shape[:1] and own is not None)
    assert own is None or own.shape == (query.shape[0], query.shape[2]), own.shape
    factor: float = query.shape[3] ** -0.5 if scale is None else scale
    query, key, value = (x.detach() for x in (query, key, value))
    # an op of torch's takes longer to call than a short head takes to read
    plain = type(query) is Tensor and query.device.type != "meta" and not torch.compiler.is_compiling()
    run = _run if plain else _attention
    return RaggedAttention(*run(query, key, value, offsets, factor, positions, own, window, longest, impl))


def _pick(impl: str, query: Tensor, pairs: int) -> str:
    """The implementation to use; on a CPU it depends on how many queries meet each key."""
    fits = query.dtype in _HALVES
    here = ["torch"]
    if fits and native.available(query):
        rows = query.shape[1] * query.shape[0] // pairs * query.shape[2]
        here.insert(0 if rows <= _FEW or not has_flash_attention_for_cpu() else 1, "native")
    on_gpu = query.device.type == "cuda"
    if fits and query.shape[3] <= WIDEST and (on_gpu or interpreted()) and runs_triton(query.device):
        here.insert(0 if on_gpu else len(here), "triton")
    return choose("ragged_attention", impl, tuple(here))


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    scale: float,
    positions: Tensor | None,
    own: Tensor | None,
    window: int | None,
    longest: int | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    impl = _pick(impl, query, len(offsets) - 1)
    if impl == "triton":
        from . import kernel

        return kernel.ragged_attention(query, key, value, offsets, scale, positions, own, window, longest)
    if impl == "native":
        output, lse = native.ragged_attention(query, key, value, offsets, scale, positions, own, window)
        return output.to(query.dtype), lse
    return tiles.ragged_attention(query, key, value, offsets, scale, positions, own, window)


_attention = torch.library.custom_op(
    "memx::ragged_attention",
    _run,
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor offsets, float scale, Tensor? positions, Tensor? own, "
    "int? window, int? longest, str impl) -> (Tensor, Tensor)",
)


@_attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    scale: float,
    positions: Tensor | None,
    own: Tensor | None,
    window: int | None,
    longest: int | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    output = query.new_empty(*query.shape[:3], value.shape[1])
    return output, query.new_empty(query.shape[:3], dtype=sum_dtype(query))


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    """Heads of a sequence keep T keys in the mean, the first of four an eighth as many as the last."""
    pairs, dim = shape["B"] * shape["H"], shape["d"]
    shares = torch.tensor([1, 2, 5, 8]).repeat(-(-pairs // 4))[:pairs] / 4
    counts = (shape["T"] * shares).long().to(device)
    offsets = torch.cat([counts[:1] * 0, counts]).cumsum(0)
    total = int(offsets[-1])

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype).to(device)

    query = draw(shape["B"], shape["Hq"], shape["Q"], dim)
    positions = own = None
    if shape["window"]:
        ends = offsets[1:].repeat_interleave(counts)
        positions = torch.arange(total, device=device) - ends  # the newest key is at -1
        own = torch.arange(shape["Q"], device=device).expand(shape["B"], -1) - 1
    return query, draw(total, dim), draw(total, dim), offsets, None, positions, own, shape["window"] or None, None


def _keys(shape: Shape) -> int:
    """Keys that are read: of all heads, in the mean T each."""
    return shape["B"] * shape["H"] * shape["T"]


def _bytes_moved(shape: Shape, dtype: torch.dtype) -> int:
    rows = shape["B"] * shape["Hq"] * shape["Q"]
    return 2 * _keys(shape) * shape["d"] * dtype.itemsize + rows * (2 * shape["d"] * dtype.itemsize + 4)


OP = Op(
    name="ragged_attention",
    run=ragged_attention,
    reference=ragged_attention_reference,
    make_inputs=_make_inputs,
    shapes=(
        {"B": 1, "Hq": 9, "H": 3, "Q": 1, "T": 256, "d": 64, "window": 0},
        {"B": 1, "Hq": 9, "H": 3, "Q": 1, "T": 1024, "d": 64, "window": 0},
        {"B": 8, "Hq": 9, "H": 3, "Q": 16, "T": 1024, "d": 64, "window": 0},
    ),
    large_shapes=(
        {"B": 1, "Hq": 32, "H": 8, "Q": 1, "T": 8192, "d": 128, "window": 0},
        {"B": 8, "Hq": 32, "H": 8, "Q": 1, "T": 8192, "d": 128, "window": 0},
        {"B": 1, "Hq": 32, "H": 8, "Q": 512, "T": 8192, "d": 128, "window": 0},
    ),
    odd_shapes=(
        {"B": 2, "Hq": 6, "H": 2, "Q": 3, "T": 37, "d": 20, "window": 0},
        {"B": 1, "Hq": 5, "H": 5, "Q": 20, "T": 90, "d": 72, "window": 30},
    ),
    gradients=(),
    implementations=("triton", "native", "torch"),
    bytes_moved=_bytes_moved,
    flops=lambda shape: 4 * shape["d"] * _keys(shape) * shape["Hq"] // shape["H"] * shape["Q"],
    terms=lambda shape: 2 * shape["d"],
)
