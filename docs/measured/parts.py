"""What each part of a NAMM brings: fits with one change each, and allocations, next to one whole fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memx.namm.policies.features.registry import NO_PASS
from memx.namm.policies.head_table import HeadTable
from memx.namm.policies.network import Namm
from memx.results.namm.rows import prepared, size_of, split_allocation
from memx.results.store.rows import Row
from memx.results.summary import without_seed

from .namms import ALL, INTERVALS, LIKELIHOOD, MAIN, OVER, SETS, SIZES, by_policy, cells, shares
from .text import blocks, interval, plus_minus, rows_of, table

FIRST = "relative_log_likelihood_over_first"
WHOLE = "heads"  # the run of the whole fit, without its hash
LAYERS, HEADS = 30, 3  # of SmolLM2-135M
COSTLY = ("received", "later_max", "log_spectrum")  # features that need all of the attention matrix


@dataclass(frozen=True)
class Variant:
    """A fit with one change: what it is called in rows, what it says on the page, and how large it is."""

    run: str
    words: str
    features: Sequence[str] = NO_PASS
    hidden: tuple[int, ...] = (64, 64)
    bias: bool = True
    embedding: int = 8

    @property
    def numbers(self) -> int:
        """The number of its parameters."""
        heads = HeadTable(LAYERS, HEADS, self.bias, self.embedding) if self.bias or self.embedding else None
        scorer = "mlp" if self.hidden else "linear"
        return len(Namm(scorer=scorer, hidden=self.hidden, features=tuple(self.features), table=heads).parameters)


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in NO_PASS if name not in names)


VARIANTS = (
    Variant(WHOLE, "the whole fit: eight features, layers of 64 and 64, bias and embedding of each head"),
    Variant("fit-bias", "without the embedding of each head", embedding=0),
    Variant("fit-without-heads", "without any number of a head", bias=False, embedding=0),
    Variant("fit-tiny", "the same, layers of 8 and 8", hidden=(8, 8), bias=False, embedding=0),
    Variant("fit-linear", "linear, with a bias of each head", hidden=(), embedding=0),
    Variant("fit-keys", "without attention: `recent_max` and `expected` left out", _without("recent_max", "expected")),
    Variant("fit-expected", "without `recent_max`", _without("recent_max")),
    Variant("fit-recent", "without `expected`", _without("expected")),
    Variant("fit-all", "with `received`, `later_max` and `log_spectrum` besides", (*NO_PASS, *COSTLY)),
)
# presets -> their numbers with and without expected attention
EVOLVED = {"namm-universal": (161, 153), "namm-smollm2-heads": (6187, 6123)}
ALLOCATIONS = {" global": "one threshold", " table": "table of head shares", " layer_max": "`layer_max`", "": "equal"}


def parts(page: str) -> str:
    """Fits with one change each: numbers, likelihood at each size, and the difference to the whole fit."""
    rows, lines = _rows("namm/parts"), []
    for variant in VARIANTS:
        name = f"namm {variant.run} global"
        lines.append([variant.words, f"{variant.numbers:,}", *_cells(rows, name), *_over(rows, name)])
    minus = [f"minus the whole, {100 * float(size):g}%" for size in SIZES[1:]]
    return table(["scorer", "numbers", *shares(SIZES), *minus], lines)


def with_expected(page: str) -> str:
    """NAMMs that were evolved with and without expected attention: likelihood at each size, over three seeds."""
    files = {"namm/with-expected": "yes", MAIN: "no"}
    lines = []
    for data, title in SETS.items():
        for name, numbers in EVOLVED.items():
            for (file, told), count in zip(files.items(), numbers, strict=True):
                rows = [row for row in rows_of(file) if without_seed(row.variant) == f"namm {name} global"]
                ((_, points),) = by_policy(prepared(rows), data, LIKELIHOOD)
                lines.append([title, f"`{name}`", told, f"{count:,}", *cells(points, SIZES, 2)])
    return blocks(table(["tasks", "preset", "reads `expected`", "numbers", *shares(SIZES)], lines, left=3), INTERVALS)


def gain(page: str) -> str:
    """NAMMs that were evolved from a fit, each minus its own fit, paired by prompt: likelihood at each size."""
    rows = [row for row in rows_of("namm/gain") if row.metric == FIRST and _suffix(row) == " global"]
    found = {(row.dataset, row.seed, size_of(row)): row for row in rows}
    lines = []
    for data, title in {**SETS, ALL: "all tasks"}.items():
        for seed in sorted({seed for named, seed, _ in found if named == data}):
            at_sizes = [found[data, seed, size] for size in SIZES]
            told = [interval(row.value, row.low, row.high, 2, "+") for row in at_sizes]
            lines.append([title, str(at_sizes[0].n), str(seed), *told])
    return table(["tasks", "prompts", "seed", *shares(SIZES)], lines)


def evolved_table(page: str) -> str:
    """KeyDiff with biases of heads that were evolved, and with the measured table of head shares."""
    names = {"keydiff table": "the measured table of head shares", "namm global": "an evolved bias of each head"}
    lines, rows = [], rows_of("namm/evolved-table")
    for data, title in SETS.items():
        for name, words in names.items():
            lines.append([title, words, *_cells([row for row in rows if row.dataset == data], name)])
        over = {size_of(row): row for row in rows if (row.dataset, row.metric) == (data, OVER)}
        difference = [interval(over[size].value, over[size].low, over[size].high, 2, "+") for size in SIZES]
        lines.append([title, "evolved minus measured", *difference])
    return table(["tasks", "KeyDiff with", *shares(SIZES)], lines, left=2)


def allocations(page: str) -> str:
    """One NAMM whose heads share a budget in each of the ways."""
    rows = _rows("namm/allocation")
    lines = []
    for suffix, words in ALLOCATIONS.items():
        name = next(row.variant for row in rows if row.variant.startswith("namm") and _suffix(row) == suffix)
        lines.append([words, *_cells(rows, name), *_over(rows, name)])
    minus = [f"minus one threshold, {100 * float(size):g}%" for size in SIZES[1:]]
    return table(["allocation", *shares(SIZES), *minus], lines)


def _rows(name: str) -> list[Row]:
    return [row for row in rows_of(name) if row.dataset == ALL]


def _suffix(row: Row) -> str:
    return split_allocation(row.variant)[1]


def _cells(rows: Sequence[Row], variant: str) -> list[str]:
    by_size = {size_of(row): row for row in rows if (row.variant, row.metric) == (variant, LIKELIHOOD)}
    return [plus_minus((row := by_size[size]).value, row.low, row.high, 2) for size in SIZES]


def _over(rows: Sequence[Row], variant: str) -> list[str]:
    """The difference to the first NAMM at the two smaller sizes; nothing for that one itself."""
    by_size = {size_of(row): row for row in rows if (row.variant, row.metric) == (variant, FIRST)}
    found = [by_size.get(size) for size in SIZES[1:]]
    return ["" if row is None else interval(row.value, row.low, row.high, 2, "+") for row in found]
