"""`memx bench eviction generate`: whole answers under each policy -> seconds, tokens held, bytes, peak memory.

On a CPU every run has a process of its own, so that the peak memory is its own; baselines take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

from ....results.store.rows import Row
from ...base_models.synthetic import build_host
from ...runtime.devices import pick_dtype
from ..benchmark import BenchConfig, Benchmark, EvictionBenchConfig, Progress
from ..timing import PeakMemory, in_own_process
from .correctness import check_baselines
from .policies import Baseline, Held, baselines_of
from .prefill_decode import check, common_labels, read_and_write
from .rows import generate_rows, row_labels, verdict_rows
from .settings import Setting, contexts

_MOST = 3  # runs of each: they are long
_WARM = 4  # tokens written after a short prompt, before the time is taken
_PRELOAD = (__name__, "transformers.models.llama.modeling_llama")


@dataclass(frozen=True)
class Run:
    """What one process does: a baseline by its number, at a context and batch."""

    config: EvictionBenchConfig
    number: int
    context: int
    batch: int
    device: str
    dtype: str
    threads: int
    peers: bool


@dataclass(frozen=True)
class Outcome:
    """Seconds of the prefill and of the new tokens, what was held between them, bytes beyond the weights."""

    prefill: float
    decode: float
    held: Held
    peak_bytes: int | None


def bench_generate(
    config: EvictionBenchConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int = 1,
    peers: bool = False,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Measure answers at every context and batch; rows of what is wrong alone if anything is."""
    baselines = baselines_of(config, peers=peers)
    rows, layers = _check(config, baselines, device, dtype, progress)
    if any(row.value == 0 for row in rows):
        return rows
    common = common_labels(config, layers, device, dtype)
    for context in contexts(config, device):
        for batch in config.batches:
            setting = Setting(config, context, batch, common)
            runs_of: dict[Baseline, list[Outcome]] = {baseline: [] for baseline in baselines}
            for turn in range(min(rounds, _MOST)):
                for number, baseline in enumerate(baselines):
                    if baseline not in runs_of:
                        continue
                    progress(f"generate: {baseline.name}, {context:,} tokens, batch {batch}, run {turn + 1}")
                    name = str(dtype).removeprefix("torch.")
                    threads = torch.get_num_threads()
                    run = Run(config, number, context, batch, str(device), name, threads, peers)
                    try:
                        runs_of[baseline].append(_measure(run))
                    except (torch.OutOfMemoryError, BrokenProcessPool):  # the system kills what takes too much
                        progress(f"generate: {baseline.name} skipped: does not fit in memory, or was killed")
                        del runs_of[baseline]
            rows += [row for baseline, runs in runs_of.items() for row in generate_rows(baseline, runs, setting)]
    return rows


def _check(
    config: EvictionBenchConfig,
    baselines: list[Baseline],
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> tuple[list[Row], int]:
    """Rows of what is right, or of what is wrong alone; and how many layers the host has."""
    host = build_host(config.host, config.layers, device, dtype)
    layers = host.model.config.num_hidden_layers
    rows = []
    for context in contexts(config, device):
        progress(f"{config.host}: checking {context:,} tokens")
        verdicts = check_baselines(host, baselines, context, config.every)
        setting = Setting(config, context, 1, common_labels(config, layers, device, dtype))
        rows += verdict_rows(verdicts, row_labels("generate", setting))
    return rows, layers


def _measure(run: Run) -> Outcome:
    """In this process on CUDA, which counts its own memory; else in one of its own."""
    return generate(run) if run.device.startswith("cuda") else in_own_process(generate, run, preload=_PRELOAD)


def generate(run: Run) -> Outcome:
    """Read a prompt and write an answer, after a short one that is not counted."""
    torch.set_num_threads(run.threads)
    config, device = run.config, torch.device(run.device)
    baseline = baselines_of(config, peers=run.peers)[run.number]
    host = build_host(config.host, config.layers, device, getattr(torch, run.dtype))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with torch.inference_mode(), baseline.on(host.model):
        read_and_write(host, baseline, host.ids(1, config.every), _WARM)
        ids = host.ids(run.batch, run.context)
        with PeakMemory(device) as memory:
            reading, writing, kept = read_and_write(host, baseline, ids, config.new_tokens)
    return Outcome(reading, writing, kept, memory.bytes)


def _run(names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress) -> list[list[Row]]:
    settings: Any = dict(peers=config.peers, device=device, dtype=pick_dtype(config.dtype, device))
    return [bench_generate(config.evict, rounds=config.steps, progress=progress, **settings)]


BENCHMARK = Benchmark(
    "generate",
    "prefill and decode together, each policy in a new process; not in the default set",
    _run,
    "bench-evict",
    check,
    by_default=False,
)
