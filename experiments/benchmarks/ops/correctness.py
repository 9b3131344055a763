"""The gate of the benchmarks: an op at a shape -> the error of each implementation against fp64, and what is allowed.

An implementation passes if its error is at most op.tolerance times that of the plain definition in the same dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from ....errors import MemxError
from ....kernels.op import Op, Shape


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
    def verdict(self) -> str:
        """The verdict in a few words."""
        if self.right:
            return "right"
        return f"FAIL {self.raised}" if self.raised else f"FAIL {self.error:.1e} > {self.limit:.1e}"


def check_op(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device, impl: str = "auto") -> tuple[float, float]:
    """Worst error of outputs and gradients against fp64, and the largest allowed: (error, limit), relative.

    The limit is op.tolerance times the error of the plain definition in the same dtype, and at least the rounding of
    a plain sum of op.terms products. The error is nan if an output holds one that the fp64 reference does not.
    """
    return _Exact(op, shape, dtype, device).compare(impl)


def check_implementations(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Check]:
    """Check every implementation that the device has, each on its own; one that raises is wrong.

    One that raises MemxError says that it is not for such inputs, and is left out.
    """
    exact = _Exact(op, shape, dtype, device)
    checks = {}
    for impl in op.available(device):
        if impl == "triton" and device.type == "cpu" and dtype == torch.bfloat16:
            continue  # interpreted, and the interpreter's bfloat16 is not a GPU's
        try:
            checks[impl] = Check(*exact.compare(impl))
        except torch.OutOfMemoryError:
            raise
        except MemxError:
            continue
        except Exception as error:  # a kernel may fail in any way; its name and message are reported
            checks[impl] = Check(inf, 0.0, f"{type(error).__name__}: {first_line(error)}")
    return checks


def check_where_it_fits(
    op: Op, shape: Shape, dtype: torch.dtype, device: torch.device
) -> tuple[Shape, dict[str, Check]]:
    """Check at the shape, or, where fp64 copies of it do not fit in memory, at fewer rows N and bags B."""
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


class _Seen(NamedTuple):
    """What a function of an op gave: outputs as the op wants them observed, the gradients of their weighted sum, and
    where the op chooses, the fp64 gradients of the same choice."""

    values: list[Tensor]
    gradients: list[Tensor]
    held: list[Tensor] | None

    def errors(self, truth: _Seen) -> list[float]:
        """Of each value and gradient, relative."""
        exact = [*truth.values, *(truth.gradients if self.held is None else self.held)]
        return [_error(got, right) for got, right in zip([*self.values, *self.gradients], exact, strict=True)]


class _Exact:
    """What fp64 and the plain definition give at a shape, to hold implementations against."""

    def __init__(self, op: Op, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.op = op
        self.floor = torch.finfo(dtype).eps * op.terms(shape) ** 0.5
        self.inputs = inputs_of(op, shape, dtype, device)
        self.wide = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in self.inputs)
        self.truth = _observed(op, op.reference, self.wide, self.wide)
        self.plain = _observed(op, op.reference, self.inputs, self.wide).errors(self.truth)

    def compare(self, impl: str) -> tuple[float, float]:
        """The error and limit of the output or gradient that comes nearest to its limit, or passes it."""
        tested = _observed(self.op, lambda *given: self.op.run(*given, impl=impl), self.inputs, self.wide)
        errors = [
            (error, max(self.op.tolerance * plain, self.floor) if isfinite(plain) else self.floor)
            for error, plain in zip(tested.errors(self.truth), self.plain, strict=True)
        ]
        return max(errors, key=lambda pair: pair[0] / pair[1] if isfinite(pair[0]) else inf)


def _error(got: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    if not exact.numel():
        return 0.0
    return float((got.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30))


def _observed(op: Op, function: Callable, inputs: tuple, wide: tuple) -> _Seen:
    """Run a function of an op on copies of its inputs."""
    leaves = _leaves(op, inputs)
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    floating = [output for output in outputs if output.is_floating_point()]
    gradients, held = [], None
    if op.gradients:
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(output.shape, generator=generator).to(output) for output in floating]
        gradients = _gradients(op, leaves, floating, weights)
        if op.held is not None:
            exact = _leaves(op, wide)
            held = _gradients(op, exact, op.held(tuple(exact), outputs), [weight.double() for weight in weights])
    seen = op.observe(wide, outputs) if op.observe else floating
    return _Seen([tensor.detach() for tensor in seen], gradients, held)


def _leaves(op: Op, inputs: tuple) -> list:
    return [x.clone().requires_grad_(i in op.gradients) if isinstance(x, Tensor) else x for i, x in enumerate(inputs)]


def _gradients(op: Op, leaves: list, outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Of the weighted sum of outputs, by the inputs that have gradients."""
    loss = torch.stack([(output * weight).sum() for output, weight in zip(outputs, weights, strict=True)]).sum()
    return list(torch.autograd.grad(loss, [leaves[i] for i in op.gradients]))
