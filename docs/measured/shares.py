"""Shares of a budget of sparse parameters between kinds of memory: scores of facts and of text."""

from __future__ import annotations

from memx.results.labels import short
from memx.results.memory_layers.shares import Curve, Point, curves_of, shares_of

from .text import plus_minus, rows_of, table

_TIER = "rephrased"


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


def _value(point: Point, digits: int) -> str:
    return plus_minus(point.mean, point.low, point.high, digits)


def _change(curve: Curve, place: int) -> str:
    difference = curve.points[place].difference
    return plus_minus(*difference, 3, "+") if difference else ""
