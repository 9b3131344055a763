"""NAMMs under other conditions: longer contexts, a second base model; which kinds of token they evict."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from memx.results.namm.evicted_tokens import chance_of, texts_of
from memx.results.namm.looks import policy_label
from memx.results.namm.rows import FULL, prepared, size_of
from memx.results.store.rows import Row

from .evictions import beside
from .namms import ALL, LIKELIHOOD, SETS, SIZES, differences_table, group, shares
from .parts import FIRST
from .text import blocks, interval, plus_minus, rows_of, table

LENGTHS = {"namm/at-2000": "2,000 tokens", "namm/at-4000": "4,000 tokens"}
HOSTS = {"namm/two-on-smollm2": "SmolLM2-135M", "namm/two-on-gemma": "Gemma 3 270M"}


def lengths(page: str) -> str:
    """Longer contexts: likelihood on both sets of tasks, and differences over all tasks."""
    tables = []
    for data, title in SETS.items():
        tables += [f"**Likelihood of the right answer, {title} (full cache: 1)**", beside(LENGTHS, data)]
    for file, words in LENGTHS.items():
        tables += [f"**Differences, {words}**", differences_table(file, {ALL: "all tasks"})]
    return blocks(*tables)


def online(page: str) -> str:
    """Eviction while reading: likelihood and the share of the cache that is held when the question begins."""
    rows = [row for row in rows_of("namm/online") if row.dataset == ALL]
    told = {(row.variant, size_of(row), row.metric): row for row in rows}
    names = [*dict.fromkeys(row.variant for row in rows if row.variant != FULL)]
    lines = []
    for name in sorted(names, key=lambda name: (group(name), name)):
        likelihoods = [told[name, size, LIKELIHOOD] for size in SIZES]
        held = [told[name, size, "held"].value for size in SIZES]
        scores = [plus_minus(row.value, row.low, row.high, 2) for row in likelihoods]
        pairs = zip(scores, held, strict=True)
        lines.append([policy_label(name, names), *(f"{score}, {share:.0f}%" for score, share in pairs)])
    return table(["policy", *(f"{100 * float(size):g}%: likelihood, cache held" for size in SIZES)], lines)


def unanswerable(page: str) -> str:
    """Families that the full cache cannot answer either: likelihood."""
    return beside({"namm/unanswerable": "likelihood"}, ALL)


def two_hosts(page: str) -> str:
    """A NAMM that was evolved on two models at once, next to those that were evolved on one."""
    lines = []
    for file, title in HOSTS.items():
        rows = [row for row in rows_of(file) if (row.dataset, row.metric) == (ALL, FIRST)]
        one_host = {size: [row for row in rows if size_of(row) == size] for size in SIZES}
        lines.append([title, *(_two_minus_one(one_host[size]) for size in SIZES)])
    columns = ["evolved on both minus on SmolLM2 alone, evaluated on", *shares(SIZES)]
    return blocks(beside(HOSTS, ALL), table(columns, lines))


def _two_minus_one(rows: Sequence[Row]) -> str:
    """The mean over NAMMs of one host, with an interval that holds those of all; rows are theirs minus the other's."""
    low, high = min(-(row.high or 0.0) for row in rows), max(-(row.low or 0.0) for row in rows)
    return interval(-fmean(row.value for row in rows), low, high, 2, "+")


def kinds(page: str) -> str:
    """Which kinds of token two NAMMs and chance evict from code and from prose."""
    rows = prepared([row for row in rows_of("namm/kinds") if row.dataset.startswith("kinds/")])
    texts = texts_of(rows)
    names = list(dict.fromkeys(one.policy for one in texts if chance_of(texts, one) not in (None, one)))
    lines = []
    for text in dict.fromkeys(one.text for one in texts):
        by_policy = {one.policy: {kind.name: kind for kind in one.kinds} for one in texts if one.text == text}
        first = by_policy[names[0]]
        for kind in first.values():
            cells_of = [by_policy[name][kind.name] for name in names]
            told = [plus_minus(one.dropped, one.low, one.high, 0) for one in cells_of]
            lines.append([text, kind.name, f"{kind.share:.0f}", *told])
    labels = [f"evicted by {policy_label(name, names)}, %" for name in names]
    return table(["text", "kind of token", "share of tokens, %", *labels], lines, left=2)
