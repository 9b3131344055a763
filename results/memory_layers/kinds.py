"""Rows of models of equal cost -> what each kind scores on facts and on text, on each base, paired with one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...errors import MemxError
from ..labels import INTERVALS, Table, score_of, short, with_interval
from ..store.rows import Row
from ..summary import TIER_LABELS, Summary, summarize
from .ablation import Difference, difference

LONG_NAMES = "5+"  # tokens of the name of an entity, of those questions that have a panel of their own


class Measure(NamedTuple):
    """What models are compared in: a data set and a metric, its title and its unit."""

    dataset: str
    metric: str
    title: str
    unit: str
    digits: int

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better."""
        return self.metric == "exact_match"


class Model(NamedTuple):
    """A model on one base: its mean in each measure over seeds, and its paired difference from the baseline."""

    name: str
    scores: dict[Measure, Summary]
    differences: dict[Measure, Difference]

    @property
    def about(self) -> Summary:
        """Any of its scores: they share its kind, parameters and FLOPs."""
        return next(iter(self.scores.values()))


class KindsOfBase(NamedTuple):
    """The models of one base, in the order of the rows; the baseline is one of them."""

    base: str
    baseline: str
    models: tuple[Model, ...]


def measures_of(rows: Sequence[Row], tier: str) -> list[Measure]:
    """What rows of several models can be compared in.

    Args:
        rows: Those of `memx train`.
        tier: The tier of questions.

    Returns:
        Exact match on the facts, on those of entities with long names, and the loss of answers and of each text.
    """
    label = TIER_LABELS[tier]
    points, nats = "exact match (%)", "NLL (nats per token), lower is better"
    wanted = [
        Measure(tier, "exact_match", f"Facts, {label}", points, 1),
        Measure(f"names/{LONG_NAMES}/{tier}", "exact_match", f"Names of {LONG_NAMES} tokens", points, 1),
        Measure(tier, "nll", "Loss of answers", nats, 3),
    ]
    texts = dict.fromkeys(row.dataset for row in rows if row.labels.text)
    wanted += [Measure(text, "nll", "Loss of held-out text" if len(texts) == 1 else text, nats, 3) for text in texts]
    there = {(row.dataset, row.metric) for row in rows}
    return [measure for measure in wanted if (measure.dataset, measure.metric) in there]


def kinds_of(rows: Sequence[Row], tier: str, baseline: str | None = None) -> list[KindsOfBase]:
    """The models of each base, smallest first.

    Args:
        rows: Those of models with names, the variants of a preset.
        tier: The tier of questions.
        baseline: The variant that the others are compared with; the first, if none is named.

    Raises:
        MemxError: There are no two variants on a base, or no baseline of that name.
    """
    named = [row for row in rows if row.variant]
    names = list(dict.fromkeys(row.variant for row in named))
    if len(names) < 2:
        raise MemxError(
            f"nothing to compare: these runs have {f'only the variant {names[0]!r}' if names else 'no variants'}",
            hint="train a preset with a variant for each kind, such as `memx train kinds`",
        )
    if baseline is not None and baseline not in names:
        raise MemxError(f"--baseline: unknown variant {baseline!r}", hint=f"choose from: {', '.join(names)}")
    first, measures = baseline or names[0], measures_of(named, tier)
    if not measures:
        raise MemxError(
            f"these runs were not asked {TIER_LABELS[tier]} questions", hint="choose other ones with --tier"
        )
    by_base: dict[str, dict[str, dict[Measure, Summary]]] = {}
    keys = {(measure.dataset, measure.metric): measure for measure in measures}
    for s in summarize(row for row in named if (row.dataset, row.metric) in keys):
        scores = by_base.setdefault(s.model, {}).setdefault(s.variant, {})
        if scores.setdefault(measure := keys[s.dataset, s.metric], s) is not s:
            raise MemxError(
                f"variant {s.variant!r} was run with several memory sizes ({measure.title}, {s.model})",
                hint="give the runs of only one of them",
            )
    bases = []
    for base, found in by_base.items():
        ordered = {name: {m: scores[m] for m in measures if m in scores} for name, scores in found.items()}
        models = [_model(name, ordered[name], ordered.get(first, {})) for name in names if name in ordered]
        bases.append(KindsOfBase(base, first, tuple(models)))
    return sorted(bases, key=lambda base: min(model.about.flops or 0 for model in base.models))


def kinds_table(bases: Sequence[KindsOfBase], tier: str) -> Table:
    """A line for each base and model: its size and cost, its scores, and what they differ by from the baseline's."""
    measures = list(dict.fromkeys(m for base in bases for model in base.models for m in model.scores))
    ends = [m for m in measures if (m.dataset, m.metric) == (tier, "exact_match") or m.dataset.startswith("text/")]
    columns = ["base", "model", "params", "FLOPs", *(_column(m, tier) for m in measures)]
    columns += [f"{_column(m, tier)} minus baseline" for m in ends]
    title = f"Kinds of memory; differences from {bases[0].baseline!r} are paired by seed ({INTERVALS}, over seeds)"
    table = Table(title, columns, [], [], left=2)
    for base in bases:
        for model in base.models:
            sizes = [short(model.about.parameters_total or 0, 1000), short(model.about.flops or 0, 1000)]
            cells = [score_of(model.scores[m], m.digits) if m in model.scores else "" for m in measures]
            table.lines.append([base.base, model.name, *sizes, *cells, *(apart(model, m) for m in ends)])
            table.facts.extend(_fact(base, model, measure) for measure in model.scores)
    return table


def apart(model: Model, measure: Measure) -> str:
    """A model's difference from the baseline in words of tables; empty for the baseline."""
    found = model.differences.get(measure)
    if found is None or found.value is None or found.verdict == "first":
        return ""
    return with_interval(found.value, found.low, found.high, measure.digits, "+")


def _model(name: str, scores: dict[Measure, Summary], first: dict[Measure, Summary]) -> Model:
    differences = {
        measure: Difference(None, None, None, (), "first")
        if s is first[measure]
        else difference(s, first[measure], higher_is_better=measure.higher_is_better)
        for measure, s in scores.items()
        if measure in first
    }
    return Model(name, scores, differences)


def _column(measure: Measure, tier: str) -> str:
    short_name = "EM %" if measure.metric == "exact_match" else "NLL"
    if measure.dataset == tier:
        return f"{short_name} {TIER_LABELS[tier]}"
    if measure.dataset.startswith("names/"):
        return f"{short_name} long names"
    return f"{short_name} {'text' if measure.title.startswith('Loss of') else measure.dataset}"


def _fact(base: KindsOfBase, model: Model, measure: Measure) -> dict[str, Any]:
    s, found = model.scores[measure], model.differences.get(measure)
    about = {"base": base.base, "variant": model.name, "kind": s.kind, "parameters_total": s.parameters_total}
    about |= {"flops": s.flops, "dataset": measure.dataset, "metric": measure.metric, "runs": s.runs}
    return about | {"value": s.value, "low": s.low, "high": s.high, "difference": found._asdict() if found else None}
