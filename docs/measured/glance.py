"""The results at a glance: one claim a line, its figure with the interval, and the page that has the rest."""

from __future__ import annotations

import posixpath

from memx.results.memory_layers.ablation import difference
from memx.results.memory_layers.baselines import bases_of
from memx.results.memory_layers.finetune import by_method, methods_of

from .costs import fastest_step
from .memory_layers import TIER, equal_compute, model
from .namms import CHOSEN, DIFFERENCE, INITIAL, best_of, evolved, over_best
from .text import interval, plus_minus, rows_of, slots, table

_COLUMNS = ["measured", "memx", "compared with", "page"]
_Line = tuple[str, str, str, str, str]  # the four cells, the last a title, and the name of its page


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
        [*texts, f"[{title}]({posixpath.relpath(f'docs/results/{name}.md', here)})"] for *texts, title, name in lines
    ]
    return table(_COLUMNS, cells, left=4)


def _equal_flops() -> _Line:
    rows = rows_of("rivals/rivals")
    dense, ours = (model(rows, variant) for variant in ("dense", "memory 64k"))
    gain = difference(ours, dense, higher_is_better=True)
    apart = plus_minus(gain.value or 0.0, gain.low, gain.high, 1, "+")
    return (
        "Facts recalled in a new phrasing, at equal FLOPs (exact match)",
        f"{plus_minus(ours.value, ours.low, ours.high, 1)}% with {ours.memory_slots:,} slots: {apart} points",
        f"{plus_minus(dense.value, dense.low, dense.high, 1)}%, dense",
        "Memory layers",
        "memory-layers",
    )


def _compute() -> _Line:
    rows = rows_of("rivals/rivals")
    (base,) = bases_of(rows, TIER)
    models = [model(rows, variant) for variant in ("memory 64k", "memory 256k")]
    return (
        "FLOPs that a dense model needs for the same accuracy",
        " and ".join(f"{ours.memory_slots:,}" for ours in models) + " slots",
        " and ".join(equal_compute(base, ours) for ours in models) + " their FLOPs",
        "Memory layers",
        "memory-layers",
    )


def _step() -> _Line:
    own, other = fastest_step(own=True), fastest_step(own=False)
    ours, theirs = (f"{row.value:,.0f} ms ({row.low:,.0f} to {row.high:,.0f})" for row in (own, other))
    return (
        f"Training step of one layer with {slots(own.memory_slots)} slots, one CPU thread (20th to 80th percentile)",
        f"{ours}: {other.value / own.value:.1f} times as fast",
        f"{theirs}, {other.kind}",
        "Cost of a step",
        "step",
    )


def _retrofit() -> _Line:
    (method,) = methods_of(by_method(rows_of("retrofit/retrofit")))
    before, after = method.before[TIER], method.after[TIER]
    texts = [interval(s.value, s.low, s.high, 2) for s in (method.text_before, method.text_after) if s]
    return (
        f"Memory added to SmolLM2-135M to learn {after.n} facts (exact match; NLL of other text)",
        f"{interval(after.value, after.low, after.high, 0)}%; {texts[1]}",
        f"before: {before.value:.0f}%; {texts[0]}",
        "Pretrained models",
        "pretrained",
    )


def _evolved() -> _Line:
    found = evolved()
    seeds = sorted({seed for seed, *_ in found})
    starts = {f"{found[seed, INITIAL, 'test', 'fitness'].value:.2f}" for seed in seeds}
    ends = ", ".join(f"{found[seed, CHOSEN, 'test', 'fitness'].value:.2f}" for seed in seeds)
    gains = (found[seed, DIFFERENCE, "test", "fitness"] for seed in seeds)
    return (
        "Fitness of an evolved NAMM on test prompts, three seeds",
        f"{ends}: " + ", ".join(interval(row.value, row.low, row.high, 2, "+") for row in gains),
        f"{', '.join(sorted(starts))}, initial parameters",
        "Eviction",
        "eviction",
    )


def _against_others() -> _Line:
    half = over_best("all/all", "0.5")
    return (
        "NAMM minus the best other policy at half the cache (nats per answer token), three seeds",
        ", ".join(interval(row.value, row.low, row.high, 2, "+") for row in half),
        f"{best_of(half)}, chosen on the same prompts",
        "Eviction",
        "eviction",
    )
