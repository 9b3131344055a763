"""The `Op` record that tests and `memx bench` both read, and the choice of an implementation.

An op is a folder: `reference.py` defines it in plain torch, `op.py` picks what runs and carries its record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
    gradients: positions of the inputs that have gradients; none for an op that works in place, on its inputs.
    tolerance: the error against fp64 may be this many times that of the reference in the same dtype.
    implementations: the fastest first; "native" is compiled C, on the CPU alone.
    loops: which part of its torch implementation is compiled loops on the CPU, where there is a compiler: "backward",
        "all" or none.
    terms: how many products one output sums; a sum in plain order may be off by sqrt(terms) rounding steps
        (Higham 2002, section 4.5), however well the reference's own pairwise sum does.
    bytes_moved, flops: the least that one forward must read and write, and compute.
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
    implementations: tuple[str, ...] = ("torch",)
    loops: str = ""
    tolerance: float = 2.0
    observe: Callable[[tuple, tuple], tuple[Tensor, ...]] | None = None
    rivals: Mapping[str, Callable] = field(default_factory=dict)

    def available(self, device: torch.device) -> tuple[str, ...]:
        """The implementations that can run on a device, the fastest first."""
        here = {"native": _compiled(device)}
        return tuple(name for name in self.implementations if here.get(name, True))

    def label(self, implementation: str, device: torch.device) -> str:
        """What a table of times calls an implementation on a device."""
        if implementation != "torch" or not self.loops or not _compiled(device):
            return implementation
        return "torch, compiled loops" if self.loops == "all" else f"torch, compiled {self.loops}"


def _compiled(device: torch.device) -> bool:
    return device.type == "cpu" and library() is not None


def choose(op: str, impl: str, available: tuple[str, ...]) -> str:
    """Resolve `impl` ("auto" or a name) to an implementation that exists, or say that it does not."""
    if impl == "auto":
        return available[0]
    if impl in available:
        return impl
    raise MemxError(
        f"{op} has no implementation {impl!r}",
        hint=f"use impl='auto' or one of: {', '.join(available)}",
    )
