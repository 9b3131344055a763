"""The `Op` record that tests and `memx bench` both read, and the choice of an implementation.

An op is a folder: `reference.py` defines it in plain torch, `op.py` picks what runs and carries its record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch
from torch import Tensor

from ..errors import MemxError
from .native import library

Shape = Mapping[str, int]


@dataclass(frozen=True)
class Op:
    """What a test or a benchmark must know of one op.

    run: the public function, called as `run(*inputs, impl=...)`; returns a tensor or a tuple of tensors.
    reference: its definition in plain torch, called as `reference(*inputs)`.
    make_inputs: (shape, dtype, device, generator) -> positional inputs; floating tensors come first.
    observe: (fp64 inputs, outputs) -> tensors to compare with those of the fp64 reference; lets an op whose
        outputs are indices be judged by what the indices stand for. None compares the outputs themselves.
    held: (fp64 inputs, outputs) -> the floating outputs in fp64, differentiable, with the choice that outputs made; for
        an op that chooses, as of two slots with nearly the same score, the gradients of either choice are right.
    gradients: positions of the inputs that have gradients; none for an op that works in place, on its inputs.
    tolerance: the error against fp64 may be this many times that of the reference in the same dtype.
    implementations: the fastest first; "native" is compiled C, on the CPU alone; "triton" runs on CUDA, and under
        Triton's interpreter on the CPU, where it is for tests and never chosen by itself.
    loops: which part of its torch implementation is compiled loops on the CPU, where there is a compiler: "backward",
        "all" or none.
    terms: how many products one output sums; a sum in plain order may be off by sqrt(terms) rounding steps
        (Higham 2002, section 4.5), however well the reference's own pairwise sum does.
    shapes, large_shapes: what `memx bench` runs on a CPU, and on a GPU, where small ones measure launches alone.
    odd_shapes: small ones that fill no tile of a kernel and hit what it does at edges; checked, never timed.
    bytes_moved, flops: the least that one forward must read and write, and compute.
    backward_bytes, backward_flops: the same of a backward that takes every gradient; None without gradients.
    rivals: other ways to get the same output, name -> function of the inputs.
    """

    name: str
    run: Callable
    reference: Callable
    make_inputs: Callable[[Shape, torch.dtype, torch.device, torch.Generator], tuple]
    shapes: tuple[Shape, ...]
    gradients: tuple[int, ...]
    bytes_moved: Callable[[Shape, torch.dtype], int]
    flops: Callable[[Shape], int]
    terms: Callable[[Shape], int]
    large_shapes: tuple[Shape, ...] = ()
    odd_shapes: tuple[Shape, ...] = ()
    backward_bytes: Callable[[Shape, torch.dtype], int] | None = None
    backward_flops: Callable[[Shape], int] | None = None
    implementations: tuple[str, ...] = ("torch",)
    loops: str = ""
    tolerance: float = 2.0
    observe: Callable[[tuple, tuple], tuple[Tensor, ...]] | None = None
    held: Callable[[tuple, tuple], tuple[Tensor, ...]] | None = None
    rivals: Mapping[str, Callable] = field(default_factory=dict)

    def available(self, device: torch.device) -> tuple[str, ...]:
        """The implementations that can run on a device, the fastest first."""
        here = {"native": _compiled(device), "triton": runs_triton(device)}
        found = [name for name in self.implementations if here.get(name, True)]
        if device.type != "cuda" and "triton" in found:  # interpreted: right, and far slower than anything else
            found.remove("triton")
            found.append("triton")
        return tuple(found)

    def label(self, implementation: str, device: torch.device) -> str:
        """What a table of times calls an implementation on a device."""
        if implementation != "torch" or not self.loops or not _compiled(device):
            return implementation
        return "torch, compiled loops" if self.loops == "all" else f"torch, compiled {self.loops}"


def _compiled(device: torch.device) -> bool:
    return device.type == "cpu" and library() is not None


def runs_triton(device: torch.device) -> bool:
    """Whether Triton kernels run on a device: CUDA, or the CPU under Triton's interpreter (TRITON_INTERPRET=1)."""
    if find_spec("triton") is None:
        return False
    return device.type == "cuda" or (device.type == "cpu" and interpreted())


def interpreted() -> bool:
    """Whether Triton interprets its kernels: by its own switch, which it reads when a kernel's file is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def fastest(impl: str, device: torch.device) -> str:
    """What "auto" means for an op with a Triton kernel: the kernel on CUDA, torch elsewhere."""
    if impl != "auto":
        return impl
    return "triton" if device.type == "cuda" and runs_triton(device) else "torch"


def choose(op: str, impl: str, available: tuple[str, ...]) -> str:
    """Resolve `impl` ("auto" or a name) to an implementation that exists, or say that it does not."""
    if impl == "auto":
        return available[0]
    if impl in available:
        return impl
    raise MemxError(
        f"{op} has no implementation {impl!r}",
        hint=f"use impl='auto', or one of: {', '.join(available)}",
    )
