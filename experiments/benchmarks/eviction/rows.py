"""What the benchmark of eviction measured -> rows of experiment "bench-evict".

Rows are of dataset "prefill host=… context=… batch=…", decode and generate alike. prefill_ratio, decode_ratio: the
median over rounds of the time over the plain model's in the same round. kept_slots, kept_tokens: physical and logical,
of a head; kept_in_pieces: slots when the prompt comes in pieces of `every` tokens. beside_percent: what a policy keeps
beside keys and values, of their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....results.store.rows import Row
from ..timing import timing
from .policies import PLAIN, Baseline, Held

if TYPE_CHECKING:
    from .correctness import Verdict
    from .prefill_decode import Setting, Times


def settings(op: str, setting: Setting) -> dict[str, Any]:
    """What rows of an operation at a context and batch share."""
    order, context, batch = setting.order, setting.context, setting.batch
    dataset = f"{op} host={order.host} context={context} batch={batch}"
    if op != "prefill":
        dataset += f" new={order.new_tokens}"
    return setting.common | {"dataset": dataset, "context": context, "batch": batch}


def facts(entrant: Baseline) -> dict[str, Any]:
    """What rows of a contestant share."""
    return {
        "kind": entrant.name,
        "policy": entrant.policy,
        "package": entrant.package,
        "budget": entrant.budget,
    }


def verdict_rows(op: str, verdicts: Sequence[Verdict], setting: Setting) -> list[Row]:
    """Whether each is right: 1 or 0."""
    common = settings(op, setting) | {"n": 1, "metric": "correct"}
    return [Row(**common, kind=verdict.name, value=float(not verdict.wrong), **verdict.facts()) for verdict in verdicts]


def prefill_rows(found: Mapping[Baseline, Times], setting: Setting) -> list[Row]:
    """Times, what is held, peak memory."""
    rows = []
    for entrant, times in found.items():
        common = settings("prefill", setting) | facts(entrant)
        rows.append(time_row(common, "prefill_ms", times.prefill))
        for base in found:
            if base.policy == PLAIN or base.piece:
                metric = "prefill_ratio" if base.policy == PLAIN else "prefill_ratio_pieces"
                rows.append(ratio_row(common, metric, times.prefill, found[base].prefill))
        rows += held_rows(common, times.held, setting.context)
        if times.in_pieces is not None:
            rows.append(Row(**common, metric="kept_in_pieces", value=times.in_pieces.slots, n=1))
        rows += memory_rows(common, times.peak_bytes)
    return rows


def decode_rows(found: Mapping[Baseline, Times], setting: Setting) -> list[Row]:
    """Times of a token, rates over the batch, what is held when writing begins, peak memory with the prefill."""
    rows = []
    new = setting.order.new_tokens
    for entrant, times in found.items():
        common = settings("decode", setting) | facts(entrant)
        rows.append(time_row(common, "token_ms", [seconds / new for seconds in times.decode]))
        rows.append(rate_row(common, "tokens_per_second", setting.batch * new, times.decode))
        for base in found:
            if base.policy == PLAIN:
                rows.append(ratio_row(common, "decode_ratio", times.decode, found[base].decode))
        rows += held_rows(common, times.held, setting.context) + memory_rows(common, times.peak_bytes)
    return rows


def generate_rows(entrant: Baseline, runs: Sequence[Any], setting: Setting) -> list[Row]:
    """Times of whole answers, each run in a process of its own; its peak memory is the highest of all runs."""
    common = settings("generate", setting) | facts(entrant)
    new = setting.order.new_tokens
    total = [run.prefill + run.decode for run in runs]
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return [
        time_row(common, "total_ms", total),
        time_row(common, "prefill_ms", [run.prefill for run in runs]),
        time_row(common, "token_ms", [run.decode / new for run in runs]),
        rate_row(common, "tokens_per_second", setting.batch * new, total),
        *held_rows(common, runs[0].held, setting.context),
        *memory_rows(common, max(peaks) if peaks else None),
    ]


def held_rows(common: dict[str, Any], kept: Held | None, context: int) -> list[Row]:
    """Physical and logical tokens, their share of the context, bytes."""
    if kept is None:
        return []
    values = {
        "kept_slots": kept.slots,
        "kept_tokens": kept.tokens,
        "kept_percent": 100 * kept.slots / context,
        "kv_mb": kept.kv_bytes / 1e6,
        "beside_percent": 100 * kept.beside_bytes / kept.kv_bytes,
    }
    return [Row(**common, metric=metric, value=value, n=1) for metric, value in values.items()]


def memory_rows(common: dict[str, Any], peak: int | None) -> list[Row]:
    """The peak beyond the model's weights, where it is counted."""
    return [] if peak is None else [Row(**common, metric="peak_memory_mb", value=peak / 1e6, n=1)]


def time_row(common: dict[str, Any], metric: str, seconds: Sequence[float]) -> Row:
    """A time in milliseconds; best: the shortest."""
    middle, low, high, n = timing(seconds)
    common = common | {"best": 1e3 * min(seconds)}
    return Row(**common, metric=metric, value=1e3 * middle, low=1e3 * low, high=1e3 * high, n=n)


def rate_row(common: dict[str, Any], metric: str, work: float, seconds: Sequence[float]) -> Row:
    """So much work a second; the longest time is the lowest rate."""
    middle, low, high, n = timing(seconds)
    return Row(**common, metric=metric, value=work / middle, low=work / high, high=work / low, n=n)


def ratio_row(common: dict[str, Any], metric: str, own: Sequence[float], base: Sequence[float]) -> Row:
    """Over the base of the same round; best: shortest over shortest."""
    pairs = [a / b for a, b in zip(own, base, strict=True)]
    middle, low, high, n = timing(pairs)
    common = common | {"best": min(own) / min(base)}
    return Row(**common, metric=metric, value=middle, low=low, high=high, n=n)
