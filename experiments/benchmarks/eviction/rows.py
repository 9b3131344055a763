"""What the benchmark of eviction measured -> rows of experiment "bench-evict".

Rows are of dataset "prefill host=… context=… batch=…", decode and generate alike. prefill_ratio, decode_ratio: the
median over rounds of the time over the plain model's in the same round. kept_slots, kept_tokens: of the fullest
head and of a head; kept_in_pieces: slots when the prompt comes in pieces of `every` tokens. beside_percent: what a
policy keeps beside keys and values, of their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....results.store.rows import Row
from ..timing import timing
from .policies import PLAIN, Baseline, Held

if TYPE_CHECKING:
    from .correctness import Verdict
    from .settings import Setting, Times


def row_labels(op: str, setting: Setting) -> dict[str, Any]:
    """What rows of an operation at a context and batch share."""
    config, context, batch = setting.config, setting.context, setting.batch
    dataset = f"{op} host={config.host} context={context} batch={batch}"
    if op != "prefill":
        dataset += f" new={config.new_tokens}"
    return setting.common | {"dataset": dataset, "context": context, "batch": batch}


def baseline_labels(baseline: Baseline) -> dict[str, Any]:
    """What rows of a baseline share."""
    return {
        "kind": baseline.name,
        "policy": baseline.policy,
        "package": baseline.package,
        "budget": baseline.budget,
        "allocation": "" if baseline.budget is None else baseline.allocation,
    }


def verdict_rows(verdicts: Sequence[Verdict], labels: dict[str, Any]) -> list[Row]:
    """Whether each is right, 1 or 0, with what rows of the operation or case share."""
    common = labels | {"n": 1, "metric": "correct"}
    return [Row(**common, kind=each.name, value=float(not each.wrong), **each.labels()) for each in verdicts]


def prefill_rows(measured: Mapping[Baseline, Times], setting: Setting) -> list[Row]:
    """Times, what is held, peak memory."""
    rows = []
    for baseline, times in measured.items():
        common = row_labels("prefill", setting) | baseline_labels(baseline)
        rows.append(time_row(common, "prefill_ms", times.prefill))
        for base in measured:
            if base.policy == PLAIN or base.piece:
                metric = "prefill_ratio" if base.policy == PLAIN else "prefill_ratio_pieces"
                rows.append(ratio_row(common, metric, times.prefill, measured[base].prefill))
        rows += held_rows(common, times.held, setting.context)
        if times.in_pieces is not None:
            rows.append(Row(**common, metric="kept_in_pieces", value=times.in_pieces.slots, n=1))
        rows += memory_rows(common, times.peak_bytes)
    return rows


def decode_rows(measured: Mapping[Baseline, Times], setting: Setting) -> list[Row]:
    """Times of a token, rates over the batch, what is held when writing begins, peak memory with the prefill."""
    rows = []
    new = setting.config.new_tokens
    for baseline, times in measured.items():
        common = row_labels("decode", setting) | baseline_labels(baseline)
        rows.append(time_row(common, "token_ms", [seconds / new for seconds in times.decode]))
        rows.append(rate_row(common, "tokens_per_second", setting.batch * new, times.decode))
        for base in measured:
            if base.policy == PLAIN:
                rows.append(ratio_row(common, "decode_ratio", times.decode, measured[base].decode))
        rows += held_rows(common, times.held, setting.context) + memory_rows(common, times.peak_bytes)
    return rows


def generate_rows(baseline: Baseline, runs: Sequence[Any], setting: Setting) -> list[Row]:
    """Times of whole answers, each run in a process of its own; its peak memory is the highest of all runs."""
    common = row_labels("generate", setting) | baseline_labels(baseline)
    new = setting.config.new_tokens
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
    """Slots of the fullest head and tokens of a head, their share of the context, bytes."""
    if kept is None:
        return []
    values = {
        "kept_slots": kept.slots,
        "kept_tokens": kept.tokens,
        "kept_percent": 100 * kept.tokens / context,
        "kv_mb": kept.kv_bytes / 1e6,
        "beside_percent": 100 * kept.beside_bytes / kept.kv_bytes,
    }
    return [Row(**common, metric=metric, value=value, n=1) for metric, value in values.items()]


def memory_rows(common: dict[str, Any], peak: int | None) -> list[Row]:
    """The peak beyond the model's weights, where it is counted."""
    return [] if peak is None else [Row(**common, metric="peak_memory_mb", value=peak / 1e6, n=1)]


def time_row(common: dict[str, Any], metric: str, seconds: Sequence[float]) -> Row:
    """A time in milliseconds; best: the shortest."""
    return Row(**common | {"best": 1e3 * min(seconds)}, metric=metric, **timing(seconds).milliseconds())


def rate_row(common: dict[str, Any], metric: str, work: float, seconds: Sequence[float]) -> Row:
    """So much work a second; the longest time is the lowest rate."""
    return Row(**common, metric=metric, **timing(seconds).rates(work))


def ratio_row(common: dict[str, Any], metric: str, own: Sequence[float], base: Sequence[float]) -> Row:
    """Over the base of the same round; best: shortest over shortest."""
    pairs = [a / b for a, b in zip(own, base, strict=True)]
    middle, low, high, n = timing(pairs)
    common = common | {"best": min(own) / min(base)}
    return Row(**common, metric=metric, value=middle, low=low, high=high, n=n)
