"""The benchmarks of `memx bench`. To add one, define a `Benchmark` record in its module and list it here."""

from __future__ import annotations

from .benchmark import Benchmark
from .eviction import evolution, generate, prefill_decode
from .models import host_offload, layer_step, training_step
from .ops.run import op_benchmarks


def benchmarks() -> list[Benchmark]:
    """All benchmarks, in the order in which they run and are printed."""
    return [
        *op_benchmarks(),
        layer_step.BENCHMARK,
        host_offload.BENCHMARK,
        *prefill_decode.BENCHMARKS,
        generate.BENCHMARK,
        evolution.BENCHMARK,
        training_step.BENCHMARK,
    ]
