"""Rows of named variants -> each variant's accuracy and loss, and its differences to the first, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from ...errors import MemxError
from ..labels import INTERVALS, Table, score_of, with_interval
from ..published import published_ablations
from ..store.rows import Row
from ..summary import TIER_LABELS, Summary, mean_interval, summarize

METRICS = ("exact_match", "nll")
Verdict = Literal["first", "better", "worse", "no clear difference", "one seed", "no common seed"]


class Difference(NamedTuple):
    """A variant less the first one, over the seeds that both have."""

    value: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...]
    verdict: Verdict


class Variant(NamedTuple):
    """One variant: a summary and a difference for each metric."""

    name: str
    summaries: dict[str, Summary]
    differences: dict[str, Difference]


def variants_of(rows: Sequence[Row], tier: str, baseline: str | None = None) -> list[Variant]:
    """The variants of rows at a tier, the baseline (the first, if none is named) first.

    Raises MemxError if there are no two variants, or one was run at several sizes.
    """
    rows = [row for row in rows if row.variant and row.dataset == tier and row.metric in METRICS]
    by_variant: dict[str, dict[str, Summary]] = {row.variant: {} for row in rows}
    if len(by_variant) < 2:
        which = f"only the variant {next(iter(by_variant))!r}" if by_variant else "no variants"
        raise MemxError(
            f"nothing to compare: these runs have {which}",
            hint="train a preset with variants, or compare memory sizes with `memx plot memory`",
        )
    if baseline is not None and baseline not in by_variant:
        raise MemxError(f"--baseline: unknown variant {baseline!r}", hint=f"choose from: {', '.join(by_variant)}")
    for s in summarize(rows):
        if s.metric in by_variant[s.variant]:
            raise MemxError(
                f"variant {s.variant!r} was run with several bases or memory sizes",
                hint="give the runs of only one of them",
            )
        by_variant[s.variant][s.metric] = s
    first = baseline or next(iter(by_variant))
    names = [first, *(name for name in by_variant if name != first)]
    return [_variant(name, by_variant[name], by_variant[first]) for name in names]


def difference(ours: Summary, first: Summary, *, higher_is_better: bool) -> Difference:
    """The paired difference over common seeds, with Student's t; no verdict from fewer than two."""
    theirs = dict(zip(first.seeds, first.values, strict=True))
    values = tuple(v - theirs[seed] for seed, v in zip(ours.seeds, ours.values, strict=True) if seed in theirs)
    if not values:
        return Difference(None, None, None, (), "no common seed")
    mean, low, high = mean_interval(values)
    if low is None or high is None:
        return Difference(mean, None, None, values, "one seed")
    if low <= 0 <= high:
        return Difference(mean, low, high, values, "no clear difference")
    return Difference(mean, low, high, values, "better" if (mean > 0) == higher_is_better else "worse")


def ablation_table(variants: Sequence[Variant], tier: str) -> Table:
    """Each variant's means, its differences to the first and what they say; published losses where names match."""
    published = published_ablations()
    known = any(variant.name.strip().lower() in published for variant in variants)
    columns = ["variant", "seeds"]
    for title in ("EM %", "NLL"):
        columns += [title, f"{title.split()[0]} minus baseline", f"{title.split()[0]} verdict"]
    if known:
        columns.append("373M, published*")
    title = f"Variants ({TIER_LABELS[tier]}); difference from {variants[0].name!r}, paired by seed; {INTERVALS}"
    note = "; *NLL of training/NQ/TQA, Berges et al. 2024" if known else ""
    table = Table(title + note, columns, [], [])
    for variant in variants:
        runs = max(s.runs for s in variant.summaries.values())
        line, fact = [variant.name, str(runs)], {"variant": variant.name, "runs": runs}
        for metric, digits in (("exact_match", 1), ("nll", 3)):
            line += _cells(variant, metric, digits)
            fact[metric] = _facts(variant, metric)
        losses = published.get(variant.name.strip().lower())
        if known:
            line.append("/".join(f"{value:.2f}" for value in losses) if losses else "")
            fact["published"] = losses._asdict() if losses else None
        table.lines.append(line)
        table.facts.append(fact)
    return table


def _variant(name: str, summaries: dict[str, Summary], first: dict[str, Summary]) -> Variant:
    differences = {
        metric: Difference(None, None, None, (), "first")
        if s is first.get(metric)
        else difference(s, first[metric], higher_is_better=metric == "exact_match")
        for metric, s in summaries.items()
        if metric in first
    }
    return Variant(name, summaries, differences)


def _cells(variant: Variant, metric: str, digits: int) -> list[str]:
    s, d = variant.summaries.get(metric), variant.differences.get(metric)
    value = score_of(s, digits) if s else ""
    if d is None:
        return [value, "", ""]
    apart = "" if d.value is None else with_interval(d.value, d.low, d.high, digits, "+")
    return [value, apart, "" if d.verdict == "first" else d.verdict]


def _facts(variant: Variant, metric: str) -> dict[str, Any] | None:
    s, d = variant.summaries.get(metric), variant.differences.get(metric)
    if s is None:
        return None
    return {"value": s.value, "low": s.low, "high": s.high, "difference": d._asdict() if d else None}
