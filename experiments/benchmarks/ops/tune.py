"""A search for the launch settings of Triton kernels on this card: an op and its shapes -> settings, kept in the cache.

Each kernel that a training call of the op runs is tried with neighbours of what it runs with now, one setting at a
time, as long as that makes the call faster. A setting that gives wrong results or does not fit the card is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from ....errors import MemxError
from ....kernels.op import Op, Shape
from ....kernels.tuning import Asked, Settings, forced, noted, path, store
from .correctness import check_implementations, inputs_of

_WORTH = 0.98  # of the time before: what is kept must gain more than noise
_BOUNDS = {"num_warps": (1, 16), "num_stages": (1, 5), "ROWS": (1, 128), "COLUMNS": (32, 4096), "TILE": (16, 1024)}


class Tuned(NamedTuple):
    """A kernel whose settings changed: what they are stored by, before and after, and milliseconds of the op."""

    op: str
    name: str
    before: Settings
    after: Settings
    before_ms: float
    after_ms: float


def tune_ops(
    ops: Sequence[Op], dtype: torch.dtype, device: torch.device, progress: Callable[[str], None] = lambda text: None
) -> list[Tuned]:
    """Search for every shape of every op, and keep what is faster. Raises MemxError without CUDA."""
    if device.type != "cuda":
        raise MemxError("--tune needs a CUDA device: it tunes Triton kernels", hint="remove --tune")
    from triton.testing import do_bench

    improved: list[Tuned] = []
    for op in (op for op in ops if "triton" in op.available(device)):
        for shape in op.large_shapes or op.shapes:
            call = _call(op, shape, dtype, device)

            def milliseconds(call: Callable[[], object] = call) -> float:
                median: Any = do_bench(call, return_mode="median")
                return float(median)

            def right(op: Op = op) -> bool:
                checks = (check_implementations(op, odd, dtype, device)["triton"] for odd in op.odd_shapes)
                return all(check.right for check in checks)

            for tuned in search(op.name, call, milliseconds, right):
                progress(f"{tuned.name}: {dict(tuned.after)}, {tuned.before_ms:.3f} to {tuned.after_ms:.3f} ms")
                store(path(device), {tuned.name: tuned.after})
                improved.append(tuned)
    return improved


def search(
    op: str, call: Callable[[], object], milliseconds: Callable[[], float], right: Callable[[], bool]
) -> Iterator[Tuned]:
    """Better settings of the kernels that `call` runs, as `milliseconds` measures and `right` allows."""
    with noted() as asked:
        call()
    for kernel, (name, current) in asked.items():
        tuned = _descend(kernel, Asked(name, current), milliseconds, right)
        if tuned is not None:
            yield Tuned(op, name, current, *tuned)


def _descend(
    kernel: str, asked: Asked, milliseconds: Callable[[], float], right: Callable[[], bool]
) -> tuple[Settings, float, float] | None:
    """The best settings on the way down from the current ones and their times, or None if those are the best."""
    best, before = dict(asked.current), milliseconds()
    least, improved, seen = before, True, {tuple(asked.current.values())}
    while improved:
        improved = False
        for candidate in _neighbours(best):
            if tuple(candidate.values()) in seen:
                continue
            seen.add(tuple(candidate.values()))
            with forced(kernel, candidate):
                time = _attempt(milliseconds)
                if time < _WORTH * least and right():
                    best, least, improved = candidate, time, True
                    break
    return (best, before, least) if least < before else None


def _neighbours(current: Settings) -> Iterator[dict[str, int]]:
    """Settings with one of them halved or doubled, stages one more or less."""
    for name, value in current.items():
        low, high = _BOUNDS.get(name, (16, 256))
        near = (value - 1, value + 1) if name == "num_stages" else (value // 2, value * 2)
        for other in near:
            candidate = {**current, name: other}
            if low <= other <= high and _fills_its_threads(candidate):
                yield candidate


def _fills_its_threads(candidate: Settings) -> bool:
    """Whether no two threads hold the same number of a tile: kernels that work in place rely on it."""
    numbers = candidate.get("ROWS", 1) * candidate.get("COLUMNS", 1 << 20)
    return numbers >= 32 * candidate.get("num_warps", 4)


def _attempt(milliseconds: Callable[[], float]) -> float:
    """The time, or infinity for settings that do not compile or do not fit."""
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources, PTXASError

    try:
        return milliseconds()
    except (torch.AcceleratorError, torch.OutOfMemoryError):
        raise
    except (CompilationError, OutOfResources, PTXASError, RuntimeError):  # the last from a pass of the compiler
        return float("inf")


def _call(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """A forward and, where there are gradients, a backward pass of the op."""
    inputs = inputs_of(op, shape, dtype, device)
    leaves = [x.detach().requires_grad_() if i in op.gradients else x for i, x in enumerate(inputs)]

    def call() -> object:
        output = op.run(*leaves, impl="triton")
        if not op.gradients:
            return output
        first = output[0] if isinstance(output, tuple) else output
        return torch.autograd.grad(first.sum(), [leaves[i] for i in op.gradients])

    return call
