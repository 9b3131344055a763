"""What `memx bench --shapes` says -> shapes of an op: its small ones, its large ones, or one with entries changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import torch

from ....errors import MemxError, nearest
from ....kernels.op import Op, Shape
from .correctness import first_line, inputs_of

S = TypeVar("S", bound=Any)  # a dataclass of whole numbers
_SETS = ("small", "large")
_SWITCHES = ("full", "lse")  # 0 or 1


def shapes_of(op: Op, texts: Sequence[str], dtype: torch.dtype, device: torch.device) -> list[Shape]:
    """The shapes to run an op at; by default the large ones on CUDA, the small ones on a CPU.

    Raises MemxError for what is no shape, an entry that the op has not, or a shape that its definition refuses.
    """
    sets = {"small": op.shapes, "large": op.large_shapes or op.shapes}
    usual = sets["large" if device.type == "cuda" else "small"]
    shapes: list[Shape] = []
    for text in texts:
        if text in _SETS:
            shapes += sets[text]
        else:
            shape = changed(usual[-1], text, op.name)
            _try_out(op, shape, dtype, device)
            shapes.append(shape)
    return shapes or list(usual)


def changed(shape: Shape, text: str, op: str) -> Shape:
    """A shape with the entries that a text changes, as N=4096,D=64 or N=2^12."""
    return {**shape, **_entries(text, shape, op)}


def changes(texts: Iterable[str], shape: Shape, op: str) -> Mapping[str, int]:
    """All entries that texts change, but for the names of sets; for benchmarks that have one shape."""
    return {key: value for text in texts if text not in _SETS for key, value in _entries(text, shape, op).items()}


def sized(small: S, large: S, texts: Sequence[str], device: torch.device, op: str) -> S:
    """The shape of a benchmark that has one: the large one on CUDA, else the small one, with what `--shapes` changes.

    Args:
        small: What suits a CPU, or is named "small".
        large: What suits CUDA, or is named "large".
        texts: What `--shapes` says.
        device: Where the benchmark runs.
        op: What errors call the benchmark.
    """
    shape = large if "large" in texts or (device.type == "cuda" and "small" not in texts) else small
    return replace(shape, **changes(texts, asdict(shape), op))


def written(shape: Shape) -> str:
    """A shape as rows and tables write it."""
    return " ".join(f"{key}={value}" for key, value in shape.items())


def _entries(text: str, shape: Shape, op: str) -> dict[str, int]:
    entries = {}
    for part in text.split(","):
        key, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise MemxError(
                f"--shapes: {text!r} is not a shape", hint=f"use {', '.join(_SETS)}, or sizes such as N=4096,D=64"
            )
        if key not in shape:
            near = nearest(key, shape)
            keys = f"its dimensions are {', '.join(shape)}"
            raise MemxError(f"--shapes: {op} has no dimension {key!r}", hint=f"{near}; {keys}" if near else keys)
        entries[key] = _number(number, part.strip())
    return entries


def _number(text: str, part: str) -> int:
    parsed = re.fullmatch(r"(\d{1,12})(?:(?:\^|\*\*)(\d{1,2}))?", text)
    value = int(parsed[1]) ** int(parsed[2] or 1) if parsed else -1
    least = 0 if part.partition("=")[0].strip() in _SWITCHES else 1
    if not least <= value < 2**40:
        raise MemxError(f"--shapes: {part!r} is not a valid size", hint="use e.g. N=4096 or N=2^12")
    return value


def _try_out(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
    """Run the definition at a shape that a person asked for."""
    try:
        op.reference(*inputs_of(op, shape, dtype, device))
    except torch.OutOfMemoryError:
        raise MemxError(
            f"--shapes: {op.name} at {written(shape)} does not fit in memory", hint="use a smaller shape"
        ) from None
    except (AssertionError, RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        reason = first_line(error) or type(error).__name__
        if "alloc" in reason:  # how torch says on a CPU that there is no memory
            reason = "it does not fit in memory"
        raise MemxError(
            f"--shapes: {op.name} cannot run at {written(shape)}: {reason}", hint="see memx bench list for valid shapes"
        ) from None
