"""The benchmarks that `memx bench` knows: to add one, give its file a `Benchmark` record and put a line here."""

from __future__ import annotations

from .benchmark import Benchmark
from .eviction import evolution, generate, prefill_decode
from .models import host_offload, layer_step, training_step
from .ops.run import op_benchmarks


def benchmarks() -> list[Benchmark]:
    """All that can be measured, in the order in which it is measured and printed."""
    return [
        *op_benchmarks(),
        layer_step.BENCHMARK,
        host_offload.BENCHMARK,
        *prefill_decode.BENCHMARKS,
        generate.BENCHMARK,
        evolution.BENCHMARK,
        training_step.BENCHMARK,
    ]
