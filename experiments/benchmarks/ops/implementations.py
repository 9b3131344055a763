"""What the benchmark of an op compares: its implementations, other code and its definition under torch.compile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ....files import cache_folder
from ....kernels.op import Op
from ....private_files import private_folder

COMPILED = "torch.compile"


@dataclass(frozen=True)
class Implementation:
    """A name, a function of the op's inputs, and whether it is somebody else's."""

    name: str
    call: Callable
    rival: bool


def implementations_of(
    op: Op, device: torch.device, implementations: Iterable[str], *, compiled: bool
) -> list[Implementation]:
    """The named implementations of memx, the rivals that the op names, then its definition, compiled."""
    own = [Implementation(op.label(impl, device), _with(op.run, impl), rival=False) for impl in implementations]
    rivals = [Implementation(name, call, rival=True) for name, call in op.rivals.items()]
    return [*own, *rivals, *([Implementation(COMPILED, _compile(op.reference), rival=True)] if compiled else [])]


def cannot_compile(device: torch.device) -> str:
    """Why torch.compile has nothing to compile with here; empty if it has."""
    if device.type == "cuda" or any(map(shutil.which, [os.environ.get("CXX") or "g++", "clang++"])):
        return ""
    return "torch.compile skipped: no C++ compiler found"


def forward_call(implementation: Implementation, inputs: tuple) -> Callable[[], object]:
    """The forward pass alone, without gradients."""

    def call() -> object:
        with torch.no_grad():
            return implementation.call(*inputs)

    return call


def training_call(op: Op, implementation: Implementation, inputs: tuple) -> Callable[[], object]:
    """Both passes."""

    def call() -> object:
        outputs, wanted, given = _graph(op, implementation, inputs)
        return torch.autograd.grad(outputs, wanted, given)

    return call


def backward_call(op: Op, implementation: Implementation, inputs: tuple) -> Callable[[], object]:
    """The backward pass alone, on a graph that is kept."""
    outputs, wanted, given = _graph(op, implementation, inputs)
    return lambda: torch.autograd.grad(outputs, wanted, given, retain_graph=True)


def _graph(op: Op, implementation: Implementation, inputs: tuple) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Differentiable outputs, the inputs whose gradients are wanted, and random gradients of the outputs."""
    leaves = [x.detach().requires_grad_() if i in op.gradients else x for i, x in enumerate(inputs)]
    result = implementation.call(*leaves)
    outputs = [x for x in (result if isinstance(result, tuple) else (result,)) if x.requires_grad]
    return outputs, [leaves[i] for i in op.gradients], [torch.randn_like(x) for x in outputs]


def _with(run: Callable, impl: str) -> Callable:
    return lambda *given: run(*given, impl=impl)


def _compile(reference: Callable) -> Callable:
    """Compile at the first call, within whoever keeps the compiler quiet."""

    @cache
    def compiled() -> Callable:
        keep_compiled_code_private()
        return torch.compile(reference, dynamic=False)

    return lambda *given: compiled()(*given)


def keep_compiled_code_private() -> None:
    """Have torch.compile keep the code that it makes where no other user can write.

    Its own place is a folder of the shared temporary directory, which another user can make first. A place that the
    environment names is left as it is.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    try:
        folder = private_folder(private_folder(cache_folder()) / "inductor")
    except (OSError, RuntimeError):  # no home, or no place to write
        folder = Path(tempfile.mkdtemp(prefix="memx-inductor-"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
