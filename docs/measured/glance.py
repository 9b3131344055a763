"""The results at a glance: one claim a line, its figure with the interval, and the page that has the rest."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from memx.results.memory_layers.ablation import difference
from memx.results.memory_layers.baselines import bases_of
from memx.results.memory_layers.finetune import by_method, methods_of
from memx.results.store.rows import Row

from .costs import fastest_step
from .memory_layers import TIER, equal_compute, model
from .namms import DIFFERENCE, best_of, evolved, over_best
from .text import interval, plus_minus, rows_of, slots, table

_COLUMNS = ["question", "answer", "page"]
_Line = tuple[str, str, str, str]  # the question, the answer, and a title and the name of the page with the rest


def memory(page: str) -> str:
    """Memory layers in four lines."""
    return _table(page, _memory_lines())


def namm(page: str) -> str:
    """NAMMs in two lines."""
    return _table(page, _namm_lines())


def both(page: str) -> str:
    """All six lines."""
    return _table(page, [*_memory_lines(), *_namm_lines()])


def _memory_lines() -> list[_Line]:
    return [_equal_flops(), _compute(), _step(), _retrofit()]


def _namm_lines() -> list[_Line]:
    return [_evolved(), _against_others()]


def _table(page: str, lines: list[_Line]) -> str:
    here = posixpath.dirname(page) or "."
    cells = [
        [question, answer, f"[{title}]({posixpath.relpath(f'docs/results/{name}.md', here)})"]
        for question, answer, title, name in lines
    ]
    return table(_COLUMNS, cells, left=3)


def _equal_flops() -> _Line:
    rows = rows_of("rivals/rivals")
    dense, ours = (model(rows, variant) for variant in ("dense", "memory 64k"))
    gain = difference(ours, dense, higher_is_better=True)
    scores = [plus_minus(s.value, s.low, s.high, 1) for s in (ours, dense)]
    apart = plus_minus(gain.value or 0.0, gain.low, gain.high, 1, "+")
    return (
        "How many facts does a memory layer recall in a new phrasing, at equal FLOPs?",
        f"{scores[0]}% with {ours.memory_slots:,} slots, {scores[1]}% dense: {apart} points",
        "Memory layers",
        "memory-layers",
    )


def _compute() -> _Line:
    rows = rows_of("rivals/rivals")
    (base,) = bases_of(rows, TIER)
    models = [model(rows, variant) for variant in ("memory 64k", "memory 256k")]
    return (
        "How many times the FLOPs does a dense model need for that accuracy?",
        "; ".join(f"{equal_compute(base, ours)} for {ours.memory_slots:,} slots" for ours in models),
        "Memory layers",
        "memory-layers",
    )


def _step() -> _Line:
    own, other = fastest_step(own=True), fastest_step(own=False)
    ours, theirs = (f"{row.value:,.0f} ms ({row.low:,.0f} to {row.high:,.0f})" for row in (own, other))
    return (
        f"How long is a training step of a layer with {slots(own.memory_slots)} slots, on one CPU thread?",
        f"{ours}; the fastest other implementation: {theirs}. Ranges are 20th to 80th percentiles",
        "Cost of a step",
        "step",
    )


def _retrofit() -> _Line:
    (method,) = methods_of(by_method(rows_of("retrofit/retrofit")))
    before, after = method.before[TIER], method.after[TIER]
    texts = [interval(s.value, s.low, s.high, 2) for s in (method.text_before, method.text_after) if s]
    recall = f"recall {before.value:.0f}% before, {interval(after.value, after.low, after.high, 0)}% after"
    return (
        f"Can SmolLM2-135M learn {after.n} facts in an added memory?",
        f"{recall}; NLL of other text {texts[0]} before, {texts[1]} after",
        "Pretrained models",
        "pretrained",
    )


def _evolved() -> _Line:
    found = evolved()
    seeds = sorted({seed for seed, *_ in found})
    gains = [found[seed, DIFFERENCE, "test", "fitness"] for seed in seeds]
    return (
        "Does evolution improve a NAMM? (gain in likelihood minus cache penalty on test prompts, by seed)",
        ", ".join(interval(row.value, row.low, row.high, 2, "+") for row in gains) + _verdict(gains),
        "Eviction",
        "eviction",
    )


def _against_others() -> _Line:
    half = over_best("all/all", "0.5")
    return (
        f"Is it better than the best other policy, {best_of(half)}, at half the cache? (nats per token, by seed)",
        ", ".join(interval(row.value, row.low, row.high, 2, "+") for row in half) + _verdict(half),
        "Eviction",
        "eviction",
    )


def _verdict(rows: Sequence[Row]) -> str:
    """Whether the intervals of gains lie above zero, all or some of them."""
    above = sum((row.low or 0.0) > 0 for row in rows)
    return f": {'yes' if above == len(rows) else 'not shown' if not above else f'in {above} of {len(rows)}'}"
