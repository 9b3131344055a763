"""`evict_gather`: the public op, its checks and its `Op` record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from ...errors import MemxError
from ..op import Op, Shape, choose
from .reference import evict_gather_reference, used


def evict_gather(
    tensors: Sequence[Tensor],
    kept: Tensor,
    counts: Tensor | None = None,
    *,
    impl: Literal["auto", "torch", "triton"] = "auto",
) -> tuple[Tensor, ...]:
    """Compact everything that is stored by key to the keys that are kept, each head to its own.

    tensors: each [B, H, T, W] with a width and dtype of its own, or [B, H, T]; any strides, though one whose last
    stride is not 1 is copied first. kept [B, H, M] (int32 or int64): indices in 0..T-1, ascending by custom only.
    counts [B, H] (integers in 0..M): how many entries of a head count; the others are ignored and give zeros. None
    counts all. Returns exact copies [B, H, M, W] or [B, H, M], contiguous; on CUDA by one launch for all tensors.
    No gradients. An index out of range raises MemxError on the CPU; a Triton kernel reads nothing for it and gives
    zeros, since looking would wait for the device. Raises MemxError for an implementation that is not there.
    """
    assert kept.dim() == 3 and not kept.is_floating_point(), (kept.shape, kept.dtype)
    for tensor in tensors:
        assert tensor.dim() in (3, 4) and tensor.shape[:2] == kept.shape[:2], (tensor.shape, kept.shape)
        assert tensor.shape[2] == tensors[0].shape[2] and tensor.device == kept.device, (tensor.shape, tensor.device)
    assert counts is None or counts.shape == kept.shape[:2], (counts.shape, kept.shape)
    return tuple(_gather([tensor.detach() for tensor in tensors], kept, counts, impl)) if tensors else ()


@torch.library.custom_op(
    "memx::evict_gather",
    mutates_args=(),
    schema="(Tensor[] tensors, Tensor kept, Tensor? counts, str impl) -> Tensor[]",
)
def _gather(tensors: Sequence[Tensor], kept: Tensor, counts: Tensor | None, impl: str) -> list[Tensor]:
    if choose("evict_gather", impl, OP.available(kept.device)) == "triton":
        from . import kernel

        return kernel.evict_gather(tensors, kept, counts)
    there = None if counts is None else used(kept, counts)
    kept = kept if there is None else kept.masked_fill(~there, 0)
    keys = tensors[0].shape[2]
    if kept.device.type == "cpu" and ((kept < 0) | (kept >= keys)).any():
        raise MemxError(
            f"a kept index is outside 0..{keys - 1}", hint="check the first counts[b, h] indices of each head"
        )
    return [_rows(tensor, kept, counts, there) for tensor in tensors]


@_gather.register_fake
def _(tensors: Sequence[Tensor], kept: Tensor, counts: Tensor | None, impl: str) -> list[Tensor]:
    return [tensor.new_empty(*kept.shape, *tensor.shape[3:]) for tensor in tensors]


def _rows(tensor: Tensor, kept: Tensor, counts: Tensor | None, there: Tensor | None) -> Tensor:
    """The kept rows of one tensor: whole rows are copied, where torch.gather would take numbers."""
    batch, heads, keys = tensor.shape[:3]
    if tensor.is_contiguous():  # all heads at once: index_select shares rows among threads, not heads
        first = torch.arange(batch * heads, device=kept.device).view(batch, heads, 1) * keys
        out = tensor.flatten(0, 2).index_select(0, (kept + first).flatten()).view(*kept.shape, *tensor.shape[3:])
    else:
        out = tensor.new_empty(*kept.shape, *tensor.shape[3:])
        for b, head in product(range(batch), range(heads)):
            torch.index_select(tensor[b, head], 0, kept[b, head], out=out[b, head])
    if counts is None or there is None:
        return out
    if counts.device.type != "cpu":  # its counts are not read, which would wait for it
        return out.masked_fill_(~there if out.dim() == 3 else ~there[..., None], 0)
    for (b, head), count in zip(product(range(batch), range(heads)), counts.flatten().tolist(), strict=True):
        out[b, head, count:] = 0
    return out


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    """A layer of a NAMM's cache: keys, values, spectrum, carry and positions; heads keep M or a few less."""
    lead, keys, most = (shape["B"], shape["H"]), shape["T"], shape["M"]

    def draw(width: int, kind: torch.dtype) -> Tensor:
        return torch.randn(*lead, keys, width, generator=generator).to(device, kind)

    positions = torch.arange(keys).expand(*lead, keys).contiguous().to(device)
    tensors = [draw(shape["d"], dtype), draw(shape["d"], dtype), draw(17, torch.float32), draw(16, torch.float32)]
    kept = torch.rand(*lead, keys, generator=generator).topk(most).indices.sort(-1).values
    counts = most - torch.randint(most // 8 + 1, lead, generator=generator)
    return [*tensors, positions], kept.to(device), counts.to(device)


def _observe(inputs: tuple, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Ones where a copy has the bits of its source, in every tensor: nothing else will do."""
    return tuple(
        (out.view(torch.uint8) == exact.view(torch.uint8)).double()
        for out, exact in zip(outputs, evict_gather_reference(*inputs), strict=True)
    )


def _bytes_moved(shape: Shape, dtype: torch.dtype) -> int:
    """Read and write every kept row, read its index."""
    row = 2 * shape["d"] * dtype.itemsize + 4 * (17 + 16) + 8
    return shape["B"] * shape["H"] * shape["M"] * (2 * row + 8)


OP = Op(
    name="evict_gather",
    run=evict_gather,
    reference=evict_gather_reference,
    make_inputs=_make_inputs,
    observe=_observe,
    shapes=(
        {"B": 2, "H": 2, "T": 256, "M": 64, "d": 64},
        {"B": 1, "H": 8, "T": 4096, "M": 1024, "d": 64},
        {"B": 1, "H": 8, "T": 8192, "M": 2048, "d": 128},
    ),
    large_shapes=(
        {"B": 1, "H": 8, "T": 32768, "M": 8192, "d": 128},
        {"B": 8, "H": 8, "T": 32768, "M": 8192, "d": 128},
    ),
    odd_shapes=({"B": 2, "H": 3, "T": 50, "M": 37, "d": 200}, {"B": 1, "H": 1, "T": 1, "M": 1, "d": 1}),
    gradients=(),
    implementations=("triton", "torch"),
    bytes_moved=_bytes_moved,
    flops=lambda shape: 0,
    terms=lambda shape: 1,
    rivals={"torch.gather each": evict_gather_reference},
)
