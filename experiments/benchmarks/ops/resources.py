"""What the Triton kernels take of a GPU, without one: kernels compiled ahead of time -> rows and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

from ....errors import MemxError
from ....kernels.resources import Resources, measure, variants
from ....results.store.environment import commit
from ....results.store.rows import Row

CAPABILITIES = {"sm_80": "A100", "sm_90": "H100, H200"}
_METRICS = ("registers", "spills", "shared", "programs", "load_bits")


def bench_resources(
    architectures: Sequence[str], progress: Callable[[str], None] = lambda text: None
) -> list[Resources]:
    """Compile every kernel for each architecture. Raises MemxError for an unknown one, or without Triton."""
    for name in architectures:
        if name not in CAPABILITIES:
            raise MemxError(f"unknown architecture {name!r}", hint=f"choose from: {', '.join(CAPABILITIES)}")
    measured = []
    for variant in variants():
        progress(f"compiling {variant.name}")
        measured += [measure(variant, int(name.removeprefix("sm_"))) for name in architectures]
    return measured


def resource_rows(measured: Sequence[Resources]) -> list[Row]:
    """A row for each figure of each kernel; matrix instructions are a field of their own."""
    return [
        Row(
            run="resources",
            experiment="bench-resources",
            kind=kernel.name,
            model=f"sm_{kernel.capability}",
            dataset="compiled ahead of time",
            metric=metric,
            value=getattr(kernel, metric),
            n=1,
            device=f"triton {version('triton')}",
            commit=commit(),
            matrix=kernel.matrix,  # pyright: ignore[reportCallIssue]
        )
        for kernel in measured
        for metric in _METRICS
    ]


def resource_table(measured: Sequence[Resources]) -> tuple[list[str], list[list[str]]]:
    """Columns and lines."""
    columns = [
        "kernel",
        "card",
        "registers",
        "spilled bytes",
        "shared bytes",
        "programs/SM",
        "load bits",
        "matrix units",
    ]
    lines = [
        [
            kernel.name,
            f"sm_{kernel.capability}",
            *(f"{getattr(kernel, metric):,}" for metric in _METRICS),
            kernel.matrix or "none",
        ]
        for kernel in measured
    ]
    return columns, lines
