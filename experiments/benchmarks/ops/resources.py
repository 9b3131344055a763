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


def bench_resources(architectures: Sequence[str], tell: Callable[[str], None] = lambda text: None) -> list[Resources]:
    """Compile every kernel for each architecture. Raises MemxError for an unknown one, or without Triton."""
    for name in architectures:
        if name not in CAPABILITIES:
            raise MemxError(f"no architecture {name!r}", hint=f"there are: {', '.join(CAPABILITIES)}")
    found = []
    for variant in variants():
        tell(f"compiling {variant.name}")
        found += [measure(variant, int(name.removeprefix("sm_"))) for name in architectures]
    return found


def resource_rows(found: Sequence[Resources]) -> list[Row]:
    """A row for each figure of each kernel; matrix instructions are a field of their own."""
    return [
        Row(
            run="resources",
            experiment="bench-resources",
            kind=one.name,
            model=f"sm_{one.capability}",
            dataset="compiled ahead of time",
            metric=metric,
            value=getattr(one, metric),
            n=1,
            device=f"triton {version('triton')}",
            commit=commit(),
            matrix=one.matrix,  # pyright: ignore[reportCallIssue]
        )
        for one in found
        for metric in _METRICS
    ]


def resource_table(found: Sequence[Resources]) -> tuple[list[str], list[list[str]]]:
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
            one.name,
            f"sm_{one.capability}",
            *(f"{getattr(one, metric):,}" for metric in _METRICS),
            one.matrix or "none",
        ]
        for one in found
    ]
    return columns, lines
