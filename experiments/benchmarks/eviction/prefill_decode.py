"""`memx bench --op prefill|decode|generate`: a host under each policy -> time, tokens and bytes held, peak memory.

All take turns in one process, so that a ratio to the plain model is of the same minutes; `generate` runs each in a
process of its own, so that its peak memory is its own. Everything is checked before it is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ....errors import MemxError
from ....namm.policies.base import check_every
from ....namm.policies.network import RUN
from ....results.store.rows import Row
from ...base_models.synthetic import TINY, Host, build_host, check_host
from ..environment import row_settings
from ..timing import PeakMemory
from .correctness import check_baselines
from .policies import Baseline, Held, baselines, check_peers, check_policies, decode, held, prefill
from .rows import decode_rows, prefill_rows, verdict_rows

EVICT_OPS = ("prefill", "decode", "generate")
CONTEXT = {"cpu": 2048, "cuda": 8192}
_WARM = 1


@dataclass(frozen=True)
class EvictionBenchConfig:
    """What to run: a host (layers: fewer or more of a random one), context lengths, batch sizes, policies, budgets.

    No policy: all there are. every: tokens between runs. new_tokens: written greedily after the prefill. population:
    candidates of a generation of `evolve`, of which batches are the numbers of prompts.
    """

    host: str = TINY
    layers: int | None = None
    contexts: Sequence[int] = ()
    batches: Sequence[int] = (1,)
    policies: Sequence[str] = ()
    budgets: Sequence[float] = (0.5,)
    every: int = RUN
    new_tokens: int = 64
    population: int = 32


@dataclass
class Times:
    """Seconds of each round's prefill and of its new tokens, and what was held after the prefill."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    held: Held | None = None
    in_pieces: Held | None = None
    peak_bytes: int | None = None


class Setting(NamedTuple):
    """What all rows of one context and batch share beside the contestant."""

    order: EvictionBenchConfig
    context: int
    batch: int
    common: dict[str, Any]


def check_order(order: EvictionBenchConfig, device: torch.device, *, peers: bool) -> None:
    """Raise MemxError for what cannot be run, before anything is built."""
    check_policies(order.policies, order.budgets)
    check_every(order.every)
    for context in contexts(order, device):
        if context < order.every:
            raise MemxError(
                f"--context {context}: policies run every {order.every} tokens, so nothing would be evicted",
                hint=f"use {order.every} or more, or a smaller --every",
            )
    check_host(order.host, order.layers, max(contexts(order, device)) + order.new_tokens)
    if peers:
        check_peers()


def contexts(order: EvictionBenchConfig, device: torch.device) -> Sequence[int]:
    """The context lengths: those of the order, or what suits the device."""
    return order.contexts or (CONTEXT[device.type],)


def bench_evict(
    ops: Sequence[str],
    order: EvictionBenchConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int = 7,
    peers: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure prefill, decode or both, at every context and batch; rows of what is wrong alone if anything is."""
    host = build_host(order.host, order.layers, device, dtype)
    entrants = baselines(order.policies, order.budgets, order.every, peers=peers)
    common = common_facts(order, host.model.config.num_hidden_layers, device, dtype)
    rows: list[Row] = []
    for context in contexts(order, device):
        tell(f"{order.host}: checking {context:,} tokens")
        verdicts = check_baselines(host, entrants, context, order.every)
        setting = Setting(order, context, 1, common)
        rows += [row for op in ops for row in verdict_rows(op, verdicts, setting)]
        if any(verdict.wrong for verdict in verdicts):
            return [row for row in rows if row.metric == "correct"]  # what is wrong anywhere has no speed
        for batch in order.batches:
            tell(f"{order.host}: {context:,} tokens, batch {batch}, {len(entrants)} contestants")
            setting = Setting(order, context, batch, common)
            found = measure(host, entrants, setting, rounds, "decode" in ops, tell)
            for op in ops:
                rows += (prefill_rows if op == "prefill" else decode_rows)(found, setting)
    return rows


def common_facts(order: EvictionBenchConfig, layers: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What all rows of a run share."""
    return row_settings(device, torch.get_num_threads()) | {
        "experiment": "bench-evict",
        "model": f"{order.host}, {layers} layers, {str(dtype).removeprefix('torch.')}",
        "every": order.every,
    }


def measure(
    host: Host, entrants: Sequence[Baseline], setting: Setting, rounds: int, writes: bool, tell: Callable[[str], None]
) -> dict[Baseline, Times]:
    """Let everyone read, and write, by turns: one round that is not counted, then so many, then one for the memory."""
    found = {entrant: Times() for entrant in entrants}
    new = setting.order.new_tokens if writes else 0
    for turn in range(_WARM + rounds + 1):
        for entrant in list(found):
            try:
                _turn(host, entrant, found[entrant], setting, new, turn, last=_WARM + rounds)
            except torch.OutOfMemoryError:
                tell(f"{entrant.name} at batch {setting.batch} is left out: it does not fit in memory")
                del found[entrant]
                torch.cuda.empty_cache()
    return found


def _turn(host: Host, entrant: Baseline, times: Times, setting: Setting, new: int, turn: int, *, last: int) -> None:
    ids = host.ids(setting.batch, setting.context, seed=turn)
    with torch.inference_mode(), entrant.on(host.model):
        if turn == last:
            with PeakMemory(host.model.device) as memory:
                read_and_write(host, entrant, ids, new)
            times.peak_bytes = memory.bytes
            times.in_pieces = held(prefill(host.model, ids, setting.order.every)[1])
            return
        reading, writing, times.held = read_and_write(host, entrant, ids, new)
    if turn >= _WARM:
        times.prefill.append(reading)
        times.decode.append(writing)


def read_and_write(host: Host, entrant: Baseline, ids: torch.Tensor, new: int) -> tuple[float, float, Held]:
    """Seconds of a prefill and of so many new tokens after it, and what was held between them."""
    device = host.model.device
    start = now(device)
    token, cache = prefill(host.model, ids, entrant.piece)
    middle = now(device)
    after = held(cache)
    begin = now(device)
    decode(host.model, token, cache, ids.shape[1], new)
    return middle - start, now(device) - begin, after


def now(device: torch.device) -> float:
    """The time, once the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
