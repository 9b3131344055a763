"""The results at a glance: one claim a line, its figure with the interval, and the page that has the rest."""

from __future__ import annotations

import posixpath

from memx.results.memory_layers.ablation import difference
from memx.results.memory_layers.baselines import bases_of
from memx.results.memory_layers.finetuning.finetune import by_method, methods_of

from .answers import registers_line, ruler_line
from .costs import fastest_step
from .memory_layers import TIER, equal_compute, model
from .namms import (
    DIFFERENCE,
    HELD_OUT,
    SIZES,
    Difference,
    best_equal,
    evolved,
    likelihood,
    over,
    universal,
)
from .shares import kinds_line
from .text import interval, plus_minus, rows_of, slots, table

_COLUMNS = ["question", "answer", "page"]
_Line = tuple[str, str, str, str]  # the question, the answer, and a title and the name of the page with the rest


def memory(page: str) -> str:
    """Memory layers in five lines."""
    return _table(page, _memory_lines())


def namm(page: str) -> str:
    """NAMMs in five lines."""
    return _table(page, _namm_lines())


def both(page: str) -> str:
    """The lines on memory layers, and four on NAMMs."""
    return _table(page, [*_memory_lines(), _kept(), _against_others(), *_answers()])


def _memory_lines() -> list[_Line]:
    return [_equal_flops(), _compute(), kinds_line(), _step(), _retrofit()]


def _namm_lines() -> list[_Line]:
    return [_kept(), _against_others(), *_answers(), _evolved()]


def _answers() -> list[_Line]:
    """RULER, and a long answer."""
    return [(*line, "RULER and long answers", "ruler") for line in (ruler_line(), registers_line())]


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
    found = evolved("namm/evolve")
    seeds = sorted({seed for seed, *_ in found})
    gains = [found[seed, DIFFERENCE, "test", "fitness"] for seed in seeds]
    return (
        "How much likelihood does evolution gain from random weights? (full cache = 1; 12.5% and 25% kept; by seed)",
        ", ".join(interval(row.value, row.low, row.high, 2, "+") for row in gains),
        "Parts of a NAMM",
        "namm-parts",
    )


def _kept() -> _Line:
    namm = universal(HELD_OUT)
    scores = [f"{likelihood(HELD_OUT, namm, size):.2f}" for size in SIZES]
    rivals = [best_equal(HELD_OUT, size) for size in SIZES]
    told = ", ".join(f"{value:.2f} {name}" for name, value in rivals)
    return (
        "How much of the full cache's likelihood does a NAMM keep at 50%, 25% and 12.5%, on tasks held out from it?",
        f"{', '.join(scores)}; the best other policies with equal shares for all heads: {told}",
        "Eviction",
        "eviction",
    )


def _against_others() -> _Line:
    namm = universal(HELD_OUT)
    alike, tabled = (over(HELD_OUT, namm, against, "0.25") for against in ("", " table"))
    assert alike and tabled
    over_equal = f"over {alike.rival} with equal shares {alike.text}: {_verdict(alike)}"
    over_table = f"over {tabled.rival} with a table of head shares {tabled.text}: {_verdict(tabled)}"
    question = "Is that better than the best other policy at a quarter of the cache?"
    return question, f"{over_equal}; {over_table}", "Eviction", "eviction"


def _verdict(found: Difference) -> str:
    """Whether an interval lies above zero."""
    return "yes" if found.low > 0 else "no" if found.high < 0 else "not shown"
