"""`memx bench eviction`: a base model under each policy -> time, tokens and bytes held, peak memory.

All take turns in one process, so that a ratio to the plain model is of the same minutes; `generate` runs each in a
process of its own, so that its peak memory is its own. Everything is checked before it is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ....errors import MemxError
from ....namm.policies.base import check_every
from ....namm.saved.files import load
from ....results.store.rows import Row
from ...base_models.synthetic import Host, build_host, check_host
from ...eviction.kvpress_presses import check_peers
from ...runtime.devices import pick_dtype
from ...runtime.malloc import keep_freed_memory
from ..benchmark import BenchConfig, Benchmark, EvictionBenchConfig, Progress
from ..environment import row_settings
from ..timing import PeakMemory, now
from .correctness import check_baselines
from .policies import Baseline, Held, baselines_of, check_policies, decode, held, prefill
from .rows import decode_rows, prefill_rows, row_labels, verdict_rows
from .settings import Setting, Times, contexts

_WARM = 1


def check(config: BenchConfig, device: torch.device) -> None:
    """The check of all benchmarks of a model under policies."""
    check_eviction(config.evict, device, peers=config.peers)


def _run(names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress) -> list[list[Row]]:
    settings: Any = dict(peers=config.peers, device=device, dtype=pick_dtype(config.dtype, device))
    return [bench_evict(names, config.evict, rounds=config.steps, progress=progress, **settings)]


BENCHMARKS = (  # which are measured together
    Benchmark("prefill", "reading a prompt with each eviction policy", _run, "bench-evict", check),
    Benchmark("decode", "generating after a prompt with each eviction policy", _run, "bench-evict", check),
)


def check_eviction(config: EvictionBenchConfig, device: torch.device, *, peers: bool) -> None:
    """Raise MemxError for what cannot be run, before anything is built."""
    check_policies(config.policies, config.budgets)
    if peers and any(budget > 1 for budget in config.budgets):
        raise MemxError("--third-party takes shares, not numbers of tokens", hint="use e.g. --budget 0.5")
    for place in config.namms:
        load(place)
    check_every(config.every)
    for context in contexts(config, device):
        if context < config.every:
            raise MemxError(
                f"--context {context} is below the eviction interval of {config.every}, so nothing would be evicted",
                hint=f"use a context of at least {config.every}, or a smaller --interval",
            )
    check_host(config.host, config.layers, max(contexts(config, device)) + config.new_tokens)
    if peers:
        check_peers()


def bench_evict(
    ops: Sequence[str],
    config: EvictionBenchConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int = 7,
    peers: bool = False,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Measure prefill, decode or both, at every context and batch; rows of what is wrong alone if anything is."""
    keep_freed_memory()  # as `memx evict` does
    host = build_host(config.host, config.layers, device, dtype)
    baselines = baselines_of(config, peers=peers)
    common = common_labels(config, host.model.config.num_hidden_layers, device, dtype)
    rows: list[Row] = []
    for context in contexts(config, device):
        progress(f"{config.host}: checking {context:,} tokens")
        verdicts = check_baselines(host, baselines, context, config.every)
        setting = Setting(config, context, 1, common)
        rows += [row for op in ops for row in verdict_rows(verdicts, row_labels(op, setting))]
        if any(verdict.wrong for verdict in verdicts):
            return [row for row in rows if row.metric == "correct"]  # what is wrong anywhere has no speed
        for batch in config.batches:
            progress(f"{config.host}: {context:,} tokens, batch {batch}, timing {len(baselines)} policies")
            setting = Setting(config, context, batch, common)
            times_of = measure(host, baselines, setting, rounds, "decode" in ops, progress)
            for op in ops:
                rows += (prefill_rows if op == "prefill" else decode_rows)(times_of, setting)
    return rows


def common_labels(config: EvictionBenchConfig, layers: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What all rows of a run share."""
    return row_settings(device, torch.get_num_threads()) | {
        "experiment": "bench-evict",
        "model": f"{config.host}, {layers} layers, {str(dtype).removeprefix('torch.')}",
        "every": config.every,
    }


def measure(
    host: Host,
    baselines: Sequence[Baseline],
    setting: Setting,
    rounds: int,
    writes: bool,
    progress: Progress,
) -> dict[Baseline, Times]:
    """Let everyone read, and write, by turns: one round that is not counted, then so many, then one for the memory."""
    times_of = {baseline: Times() for baseline in baselines}
    new = setting.config.new_tokens if writes else 0
    for turn in range(_WARM + rounds + 1):
        for baseline in list(times_of):
            try:
                _turn(host, baseline, times_of[baseline], setting, new, turn, last=_WARM + rounds)
            except torch.OutOfMemoryError:
                progress(f"{baseline.name} at batch {setting.batch} skipped: does not fit in memory")
                del times_of[baseline]
                torch.cuda.empty_cache()
    return times_of


def _turn(host: Host, baseline: Baseline, times: Times, setting: Setting, new: int, turn: int, *, last: int) -> None:
    ids = host.ids(setting.batch, setting.context, seed=turn)
    with torch.inference_mode(), baseline.on(host.model):
        if turn == last:
            with PeakMemory(host.model.device) as memory:
                read_and_write(host, baseline, ids, new)
            times.peak_bytes = memory.bytes
            times.in_pieces = held(prefill(host.model, ids, setting.config.every)[1])
            return
        reading, writing, times.held = read_and_write(host, baseline, ids, new)
    if turn >= _WARM:
        times.prefill.append(reading)
        times.decode.append(writing)


def read_and_write(host: Host, baseline: Baseline, ids: torch.Tensor, new: int) -> tuple[float, float, Held]:
    """Seconds of a prefill and of so many new tokens after it, and what was held between them."""
    device = host.model.device
    start = now(device)
    token, cache = prefill(host.model, ids, baseline.piece)
    middle = now(device)
    after = held(cache)
    begin = now(device)
    decode(host.model, token, cache, ids.shape[1], new)
    return middle - start, now(device) - begin, after
