"""Mends of Triton's interpreter, for tests: bfloat16 as GPUs have it, and reductions without a loop over all elements.

The interpreter keeps bfloat16 as its bits, multiplies those bits where a dot has bfloat16 inputs, and cuts float32 off
where a GPU rounds it to the nearest. And it makes every reduction but sums, minima and maxima in a Python loop over all
elements, which sorting is full of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def mend() -> None:
    """Patch the interpreter of this process."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, TensorHandle

    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    def cast_impl(self: Any, handle: Any, kind: Any) -> Any:
        if (handle.dtype.scalar, kind.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, handle, kind)
        bits = torch.from_numpy(np.ascontiguousarray(handle.data)).bfloat16().view(torch.int16).numpy().view(np.uint16)
        return TensorHandle(bits.reshape(handle.data.shape), kind.scalar)

    def generic_reduce(self: Any, inputs: Any) -> list[Any]:
        axis, (first, *others) = self.axis, inputs
        assert axis is not None and not others, "only what the kernels here use"
        data = first.handle.data
        total = self.to_tensor(data.take(0, axis), first.dtype)
        for place in range(1, data.shape[axis]):
            total = self.combine_fn.fn(total, self.to_tensor(data.take(place, axis), first.dtype))
        result = total.handle.data
        return [self.to_tensor(np.expand_dims(result, axis) if self.keep_dims else result, first.dtype)]

    InterpreterBuilder.create_dot = create_dot
    InterpreterBuilder.cast_impl = cast_impl
    ReduceOps.generic_reduce = generic_reduce
