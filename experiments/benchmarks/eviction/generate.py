"""`memx bench --op generate`: whole answers under each policy -> seconds, tokens held, bytes, peak memory.

On a CPU every run has a process of its own, so that the peak memory is its own; contestants take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from ....results.store.rows import Row
from ...base_models.synthetic import build_host
from ..timing import PeakMemory
from .correctness import check_baselines
from .policies import Baseline, Held, baselines
from .prefill_decode import EvictionBenchConfig, Setting, common_facts, contexts, read_and_write
from .rows import generate_rows, verdict_rows

_MOST = 3  # runs of each: they are long
_WARM = 4  # tokens written after a short prompt, before the time is taken


@dataclass(frozen=True)
class Run:
    """What one process does: a contestant by its number, at a context and batch."""

    order: EvictionBenchConfig
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
    order: EvictionBenchConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int = 1,
    peers: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure answers at every context and batch; rows of what is wrong alone if anything is."""
    entrants = baselines(order.policies, order.budgets, order.every, peers=peers)
    rows, layers = _check(order, entrants, device, dtype, tell)
    if any(row.value == 0 for row in rows):
        return rows
    common = common_facts(order, layers, device, dtype)
    for context in contexts(order, device):
        for batch in order.batches:
            setting = Setting(order, context, batch, common)
            found: dict[Baseline, list[Outcome]] = {entrant: [] for entrant in entrants}
            for turn in range(min(rounds, _MOST)):
                for number, entrant in enumerate(entrants):
                    if entrant not in found:
                        continue
                    tell(f"generate: {entrant.name}, {context:,} tokens, batch {batch}, run {turn + 1}")
                    name = str(dtype).removeprefix("torch.")
                    threads = torch.get_num_threads()
                    run = Run(order, number, context, batch, str(device), name, threads, peers)
                    try:
                        found[entrant].append((generate if device.type == "cuda" else _in_a_process)(run))
                    except (torch.OutOfMemoryError, BrokenProcessPool):  # the system kills what takes too much
                        tell(f"generate: {entrant.name} is left out: it does not fit in memory, or was killed")
                        del found[entrant]
            rows += [row for entrant, runs in found.items() for row in generate_rows(entrant, runs, setting)]
    return rows


def _check(
    order: EvictionBenchConfig,
    entrants: list[Baseline],
    device: torch.device,
    dtype: torch.dtype,
    tell: Callable[[str], None],
) -> tuple[list[Row], int]:
    """Rows of what is right, or of what is wrong alone; and how many layers the host has."""
    host = build_host(order.host, order.layers, device, dtype)
    layers = host.model.config.num_hidden_layers
    rows = []
    for context in contexts(order, device):
        tell(f"{order.host}: checking {context:,} tokens")
        verdicts = check_baselines(host, entrants, context, order.every)
        rows += verdict_rows(
            "generate", verdicts, Setting(order, context, 1, common_facts(order, layers, device, dtype))
        )
    return rows, layers


def _in_a_process(run: Run) -> Outcome:
    """Run in a process of its own, forked from one that has imported torch and done nothing else."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "transformers.models.llama.modeling_llama"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # unlike a Pool, it notices a child that was killed
        return pool.submit(generate, run).result()


def generate(run: Run) -> Outcome:
    """Read a prompt and write an answer, after a short one that is not counted."""
    torch.set_num_threads(run.threads)
    order, device = run.order, torch.device(run.device)
    entrant = baselines(order.policies, order.budgets, order.every, peers=run.peers)[run.number]
    host = build_host(order.host, order.layers, device, getattr(torch, run.dtype))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with torch.inference_mode(), entrant.on(host.model):
        read_and_write(host, entrant, host.ids(1, order.every), _WARM)
        ids = host.ids(run.batch, run.context)
        with PeakMemory(device) as memory:
            reading, writing, kept = read_and_write(host, entrant, ids, order.new_tokens)
    return Outcome(reading, writing, kept, memory.bytes)
