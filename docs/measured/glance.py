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

_COLUMNS = ["what was compared", "result with 95% interval", "page"]


def memory(page: str) -> str:
    """Memory layers in four lines."""
    lines = [_equal_flops(), _compute(), _step(), _retrofit()]
    targets = ["memory-layers", "memory-layers", "step", "pretrained"]
    titles = ["Memory layers", "Memory layers", "Cost of a step", "Pretrained models"]
    return _table(page, lines, targets, titles)


def namm(page: str) -> str:
    """NAMMs in two lines."""
    return _table(page, [_evolved(), _against_others()], ["eviction", "eviction"], ["Eviction", "Eviction"])


def _table(page: str, lines: list[tuple[str, str]], targets: list[str], titles: list[str]) -> str:
    here = posixpath.dirname(page) or "."
    links = [
        f"[{title}]({posixpath.relpath(f'docs/results/{target}.md', here)})"
        for title, target in zip(titles, targets, strict=True)
    ]
    return table(_COLUMNS, [[*line, link] for line, link in zip(lines, links, strict=True)], left=3)


def _equal_flops() -> tuple[str, str]:
    rows = rows_of("rivals/rivals")
    dense, memory_model = model(rows, "dense"), model(rows, "memory 64k")
    gain = difference(memory_model, dense, higher_is_better=True)
    said = [plus_minus(s.value, s.low, s.high, 1) for s in (dense, memory_model)]
    claim = "Exact match on paraphrased questions at equal FLOPs, dense against a memory of 65,536 slots, three seeds"
    apart = plus_minus(gain.value or 0.0, gain.low, gain.high, 1, "+")
    return claim, f"{said[0]} % against {said[1]} %; difference {apart} points"


def _compute() -> tuple[str, str]:
    rows = rows_of("rivals/rivals")
    (base,) = bases_of(rows, TIER)
    found = [equal_compute(base, model(rows, variant)) for variant in ("memory 64k", "memory 256k")]
    claim = "Dense model that is as accurate as 65,536 and 262,144 slots: its FLOPs over theirs, with the range"
    return claim, " and ".join(found)


def _step() -> tuple[str, str]:
    own, other = fastest_step(own=True), fastest_step(own=False)
    claim = f"Training step of a layer with {slots(own.memory_slots)} slots, one CPU thread (20th to 80th percentile)"
    said = [f"{row.value:,.0f} ms ({row.low:,.0f} to {row.high:,.0f})" for row in (own, other)]
    return claim, f"{said[0]}; fastest other, {other.kind}: {said[1]}, {other.value / own.value:.1f} times as long"


def _retrofit() -> tuple[str, str]:
    (method,) = methods_of(by_method(rows_of("retrofit/retrofit")))
    before, after = method.before[TIER], method.after[TIER]
    claim = f"A memory added to SmolLM2-135M learns {after.n} facts: exact match on paraphrased questions, text loss"
    facts = f"{before.value:.0f} % before, {interval(after.value, after.low, after.high, 0)} % after"
    texts = [interval(s.value, s.low, s.high, 2) for s in (method.text_before, method.text_after) if s]
    return claim, f"{facts}; loss on other text {' before, '.join(texts)} after"


def _evolved() -> tuple[str, str]:
    found = evolved()
    seeds = sorted({seed for seed, *_ in found})
    gains = [found[seed, DIFFERENCE, "test", "fitness"] for seed in seeds]
    starts = {f"{found[seed, INITIAL, 'test', 'fitness'].value:.2f}" for seed in seeds}
    ends = [f"{found[seed, CHOSEN, 'test', 'fitness'].value:.2f}" for seed in seeds]
    claim = "Evolved NAMM against its initial parameters: fitness on test prompts, three seeds"
    said = ", ".join(interval(row.value, row.low, row.high, 2, "+") for row in gains)
    return claim, f"{', '.join(ends)} against {', '.join(sorted(starts))}; differences {said}"


def _against_others() -> tuple[str, str]:
    half, eighth = (over_best("all/all", size) for size in ("0.5", "0.125"))
    said = [", ".join(interval(row.value, row.low, row.high, 2, "+") for row in rows) for rows in (half, eighth)]
    claim = "NAMM minus the best other policy on all tasks, log-likelihood of answers in nats per token, three seeds"
    return claim, f"at 50% of the cache {said[0]} ({best_of(half)}); at 12.5% {said[1]} ({best_of(eighth)})"
