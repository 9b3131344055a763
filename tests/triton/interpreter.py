"""Mends of Triton's interpreter, for tests: products of bfloat16 blocks, and reductions that take no second an element.

The interpreter keeps bfloat16 as its bits, and multiplies those where a dot has bfloat16 inputs. And it makes every
reduction but sums, minima and maxima in a Python loop over all elements, which sorting is full of.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def mend() -> None:
    """Patch the interpreter of this process."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, TensorHandle

    dot = InterpreterBuilder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

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
    ReduceOps.generic_reduce = generic_reduce
