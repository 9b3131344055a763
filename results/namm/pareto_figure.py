"""Evolutions at several prices of the cache: their answers by what they keep and score, and the front of the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..collecting import collect_rows
from ..labels import drawn, host_label
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import CYCLE, NAMM_COLOURS, caption_below, new_figure, spread
from .curves import Point
from .pareto import (
    LIKELIHOOD,
    SCORE,
    SPLITS,
    Answer,
    alike,
    answers_of,
    best_of,
    group_labels,
    is_answer,
    pareto_table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {LIKELIHOOD: "likelihood per token, full cache = 1", SCORE: "task score, full cache = 1"}
_FULL = 99.5  # percent: from here on a point is the full cache
_ROOM = 30  # percent: names of points that keep less stand on their right


def draw(request: PlotRequest) -> Drawn:
    """Draw answers of evolutions by the cache they keep and what they score, and the Pareto front, with the table.

    Of a folder of runs all are drawn that are of the last one's host, mode, kind of fitness and prompts.
    """
    rows = [row for row in collect_rows(request.sources, request.log) if is_answer(row)]
    if not rows:
        hint = "give finished runs of `memx evolve-namm`; for unfinished ones use memx plot evolution"
        raise MemxError("there are no finished evolutions here", hint=hint)
    facts = alike(rows)
    rows = request.together(rows, lambda row: facts[row.run])
    answers, split = answers_of(rows, request.log)
    return Drawn(request.write(pareto_figure(answers, split, rows), rows), pareto_table(answers, split))


def pareto_figure(answers: Sequence[Answer], split: str, rows: Sequence[Row]) -> Figure:
    """Draw each answer, tied to its generation 0, the front as a step line, and the full cache."""
    figure, (axis,) = new_figure(1, 5.0)
    figure.set_figwidth(8.4)
    best = best_of(answers)
    axis.step(
        [p.kept for p in best], [p.value for p in best], where="post", color="0.3", linewidth=1.1, zorder=2,
        label="Pareto front",
    )  # fmt: skip
    axis.plot([100], [1], "D", color="black", markersize=6, zorder=4, label="full cache")
    labels = group_labels(answers)
    groups = list(labels)
    for answer in answers:
        place = groups.index(answer.group)
        colour = NAMM_COLOURS[0] if len(groups) == 1 else CYCLE[place % len(CYCLE)]
        _answer(axis, answer, colour, on=answer.point in best)
    axis.plot([], [], "o", color="0.35", markersize=7, label="NAMM on the Pareto front")
    axis.plot([], [], "o", markerfacecolor="white", markeredgecolor="0.35", markersize=7, label="dominated NAMM")
    if any(_told(answer) for answer in answers):
        axis.plot([], [], "x-", color="0.75", markersize=5, linewidth=0.8, label="from the initial parameters")
    _dress(axis, answers)
    _names(axis, answers, labels)
    n = max(answer.point.n for answer in answers)
    count = f"{len(answers)} evolution{'s' if len(answers) > 1 else ''}"
    title = " · ".join([host_label(rows[0].model), f"{n} {SPLITS[split]}", count, "95% CI"])
    caption_below(figure, title, [axis])
    return figure


def _answer(axis: Axes, answer: Answer, colour: str, *, on: bool) -> None:
    point = answer.point
    if start := _told(answer):
        axis.plot([start.kept, point.kept], [start.value, point.value], color="0.8", linewidth=0.8, zorder=1)
        axis.plot([start.kept], [start.value], "x", color="0.65", markersize=5, zorder=1)
    up = None if point.low is None or point.high is None else [[point.value - point.low], [point.high - point.value]]
    aside = None
    if answer.kept_low is not None and answer.kept_high is not None:
        aside = [[point.kept - answer.kept_low], [answer.kept_high - point.kept]]
    axis.errorbar(
        [point.kept], [point.value], yerr=up, xerr=aside, color=colour, marker="o", markersize=7, elinewidth=1,
        markerfacecolor=colour if on else "white", zorder=3, label=f"_{answer.run}",
    )  # fmt: skip


def _told(answer: Answer) -> Point | None:
    """Generation 0 where it is not the full cache, which is drawn anyway."""
    return answer.start if answer.start and answer.start.kept < _FULL else None


def _dress(axis: Axes, answers: Sequence[Answer]) -> None:
    axis.set_title("Score by share of the cache kept")
    axis.set_xlabel("share of the cache kept (%)")
    axis.set_ylabel(_LABELS[answers[0].metric])
    points = [point for answer in answers for point in (answer.point, answer.start) if point]
    axis.set_ylim(0, 1.06 * max([1.0, *(point.value if point.high is None else point.high for point in points)]))
    axis.set_xlim(0, 103)


def _names(axis: Axes, answers: Sequence[Answer], labels: dict[tuple[str, str], str]) -> None:
    """Each group of seeds named once, above and left of its first answer, where a front leaves room, or right below."""
    firsts = [next(answer for answer in answers if answer.group == group) for group in labels]
    gap = 0.042 * axis.get_ylim()[1]
    sides = [answer.point.kept >= _ROOM for answer in firsts]
    wanted = [answer.point.value + (0.8 if left else -0.8) * gap for answer, left in zip(firsts, sides, strict=True)]
    for name, answer, left, place in zip(labels.values(), firsts, sides, spread(wanted, gap), strict=True):
        axis.annotate(
            drawn(name), (answer.point.kept + (-0.8 if left else 0.8), place), fontsize=8.5,
            ha="right" if left else "left", va="center", color="0.2", zorder=6,
        )  # fmt: skip
