"""Kinds of memory at equal cost, and shares of a budget of sparse parameters between them: facts, text, time."""

from __future__ import annotations

from memx.results.labels import short
from memx.results.memory_layers.kinds import Measure, Model, kinds_of
from memx.results.memory_layers.shares import Curve, Point, curves_of, shares_of
from memx.results.store.rows import Row

from .text import plus_minus, rows_of, table

_TIER = "rephrased"
_DENSE = "dense"


def shares(page: str) -> str:
    """N-gram tables against experts, and product keys against experts, by share."""
    rows = rows_of("shares/shares")
    curves = curves_of(rows, _TIER)
    sizes = {(tuple(shares_of(row)), next(iter(shares_of(row).values()))): row.parameters_total for row in rows}
    lines = []
    for kinds in dict.fromkeys(curve.kinds for curve in curves):
        own = {(curve.dataset == _TIER, curve.metric): curve for curve in curves if curve.kinds == kinds}
        exact, answers, text = own[True, "exact_match"], own[True, "nll"], own[False, "nll"]
        for place, point in enumerate(text.points):
            others = [curve.points[place] for curve in (exact, answers)]
            line = [text.name, f"{100 * point.share:g}%", short(sizes[kinds, point.share] or 0, 1000)]
            line += [_value(others[0], 1), _value(others[1], 3), _value(point, 3)]
            lines.append([*line, _change(answers, place), _change(text, place)])
    columns = ["memory", "share", "parameters", "paraphrased, EM %", "paraphrased, NLL", "text, NLL"]
    return table([*columns, "NLL of answers less share 0", "NLL of text less share 0"], lines, left=2)


def kinds(page: str) -> str:
    """Models of every kind at two base widths: facts, entities with long names, text, and text less dense models'."""
    lines = []
    for base in kinds_of(rows_of("kinds/kinds"), _TIER, _DENSE):
        for model in base.models:
            facts, names, answers, text = model.scores
            sizes = [short(model.about.parameters_total or 0, 1000), short(model.about.flops or 0, 1000)]
            values = [_score(model, measure) for measure in (facts, names, answers, text)]
            lines.append([base.base.rpartition("x")[2], model.name, *sizes, *values, _apart(model, text)])
    columns = ["width", "model", "parameters", "FLOPs per token", "paraphrased, EM %", "long names, EM %"]
    return table([*columns, "paraphrased, NLL", "text, NLL", "text NLL less dense"], lines, left=2)


def kinds_line() -> tuple[str, str, str, str]:
    """The best kind at the larger width, beside the dense models: a line of the results at a glance."""
    models = kinds_of(rows_of("kinds/kinds"), _TIER, _DENSE)[-1].models
    facts, *_, text = models[0].scores
    equal = [model for model in models if model.name != f"{_DENSE}, as large"]  # that one has more FLOPs
    best = min(equal, key=lambda model: model.scores[text].value)
    named = {model.name: model for model in models}
    parts = [
        f"{name} {_score(named[name], facts)}% and {_score(named[name], text)}"
        for name in dict.fromkeys((best.name, _DENSE, f"{_DENSE}, as large"))
    ]
    return (
        "Which kind of memory is best at equal parameters and FLOPs, in facts (EM) and in the loss of text (NLL)?",
        "; ".join(parts),
        "Kinds of memory",
        "kinds",
    )


def kinds_time(page: str) -> str:
    """What a token costs each of these models in time, in training and in the forward pass alone, in one run."""
    rows = {(row.model, row.variant, row.metric): row for row in rows_of("kinds/time")}
    lines = []
    for model, variant in dict.fromkeys((model, variant) for model, variant, _ in rows):
        cells = []
        for metric in ("step_ms", "forward_ms"):
            row, dense = rows[model, variant, metric], rows[model, _DENSE, metric]
            cells += [f"{1000 * row.value / _tokens(row):.0f}", f"{row.value / dense.value:.2f}x"]
        lines.append([model.rpartition("x")[2], variant, *cells])
    columns = ["width", "model", "training, µs per token", "over dense", "forward, µs per token", "over dense"]
    return table(columns, lines, left=2)


def _tokens(row: Row) -> int:
    """Tokens of a step of `memx bench model`: rows times tokens of each."""
    sizes = dict(part.split("=") for part in row.dataset.split() if "=" in part)
    return int(sizes["batch"]) * int(sizes["sequence"])


def _score(model: Model, measure: Measure) -> str:
    s = model.scores[measure]
    return plus_minus(s.value, s.low, s.high, measure.digits)


def _apart(model: Model, measure: Measure) -> str:
    found = model.differences[measure]
    if found.value is None or found.verdict == "first":
        return ""
    return plus_minus(found.value, found.low, found.high, measure.digits, "+")


def _value(point: Point, digits: int) -> str:
    return plus_minus(point.mean, point.low, point.high, digits)


def _change(curve: Curve, place: int) -> str:
    difference = curve.points[place].difference
    return plus_minus(*difference, 3, "+") if difference else ""
