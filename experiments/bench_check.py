"""The gate of the benchmarks: an op at a shape -> the error of each implementation against fp64, and what is allowed.

An implementation passes if its error is at most op.tolerance times that of the plain definition in the same dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import MemxError
from ..kernels.op import Op, Shape


class Check(NamedTuple):
    """The worst relative error of one implementation, the largest allowed, and what it raised, if it did."""

    error: float
    limit: float
    raised: str = ""

    @property
    def right(self) -> bool:
        """Whether the implementation may be timed; nan is wrong."""
        return self.error <= self.limit and not self.raised

    @property
    def told(self) -> str:
        """The verdict in a few words."""
        if self.right:
            return "right"
        return f"FAIL {self.raised}" if self.raised else f"FAIL {self.error:.1e} > {self.limit:.1e}"


def check_op(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device, impl: str = "auto") -> tuple[float, float]:
    """Worst error of outputs and gradients against fp64, and the largest allowed: (error, limit), relative.

    The limit is op.tolerance times the error of the plain definition in the same dtype, and at least the rounding of
    a plain sum of op.terms products. The error is nan if an output holds one that the fp64 reference does not.
    """
    return _Judge(op, shape, dtype, device).judge(impl)


def check_implementations(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Check]:
    """Judge every implementation that the device has, each on its own; one that raises is wrong.

    One that raises MemxError says that it is not for such inputs, and is left out.
    """
    judge = _Judge(op, shape, dtype, device)
    checks = {}
    for impl in op.available(device):
        try:
            checks[impl] = Check(*judge.judge(impl))
        except torch.OutOfMemoryError:
            raise
        except MemxError:
            continue
        except Exception as error:  # a kernel may fail in any way; its name and its words are told
            checks[impl] = Check(inf, 0.0, f"{type(error).__name__}: {first_line(error)}")
    return checks


def check_where_it_fits(
    op: Op, shape: Shape, dtype: torch.dtype, device: torch.device
) -> tuple[Shape, dict[str, Check]]:
    """Judge at the shape, or, where fp64 copies of it do not fit in memory, at fewer rows N and bags B."""
    while True:
        try:
            return shape, check_implementations(op, shape, dtype, device)
        except torch.OutOfMemoryError:
            largest = max((key for key in ("N", "B") if shape.get(key, 0) > 1), key=lambda key: shape[key], default="")
            if not largest:
                raise
            shape = {**shape, largest: shape[largest] // 2}
        torch.cuda.empty_cache()


def inputs_of(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple:
    """The inputs of an op, the same numbers each time; drawn where and as they are used, as large tables must be."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return op.make_inputs(shape, dtype, device, torch.Generator(device).manual_seed(0))
    finally:
        torch.set_default_dtype(usual)


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return next(iter(str(error).strip().splitlines()), "")


class _Judge:
    """What fp64 and the plain definition give at a shape, to hold implementations against."""

    def __init__(self, op: Op, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.op = op
        self.floor = torch.finfo(dtype).eps * op.terms(shape) ** 0.5
        self.inputs = inputs_of(op, shape, dtype, device)
        self.wide = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in self.inputs)
        self.truth = _observed(op, op.reference, self.wide, self.wide)
        plain = _observed(op, op.reference, self.inputs, self.wide)
        self.plain = [_error(got, exact) for got, exact in zip(plain, self.truth, strict=True)]

    def judge(self, impl: str) -> tuple[float, float]:
        """The error and limit of the output or gradient that comes nearest to its limit, or passes it."""
        tested = _observed(self.op, lambda *given: self.op.run(*given, impl=impl), self.inputs, self.wide)
        found = [
            (_error(got, exact), max(self.op.tolerance * plain, self.floor) if isfinite(plain) else self.floor)
            for got, exact, plain in zip(tested, self.truth, self.plain, strict=True)
        ]
        return max(found, key=lambda pair: pair[0] / pair[1] if isfinite(pair[0]) else inf)


def _error(got: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    if not exact.numel():
        return 0.0
    return float((got.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30))


def _observed(op: Op, function: Callable, inputs: tuple, wide: tuple) -> Sequence[Tensor]:
    """Outputs, as the op wants them observed, and the gradients of their weighted sum; works on copies."""
    leaves = [x.clone().requires_grad_(i in op.gradients) if isinstance(x, Tensor) else x for i, x in enumerate(inputs)]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    floating = [output for output in outputs if output.is_floating_point()]
    gradients: tuple[Tensor, ...] = ()
    if op.gradients:
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(output.shape, generator=generator).to(output) for output in floating]
        loss = torch.stack([(output * weight).sum() for output, weight in zip(floating, weights, strict=True)]).sum()
        gradients = torch.autograd.grad(loss, [leaves[i] for i in op.gradients])
    seen = op.observe(wide, outputs) if op.observe else floating
    return [tensor.detach() for tensor in (*seen, *gradients)]
