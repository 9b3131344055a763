"""Evolutions at several prices of the cache: their answers by what they keep and score, and the front of the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import MemxError
from .eval_rows import without_seed
from .labels import Table, host_label, with_half
from .namm_curves import Point, front
from .rows import Row
from .style import CYCLE, NAMM_COLOURS, caption_below, new_figure, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ANSWER, _START = "answer", "generation 0"
_LIKELIHOOD, _SCORE = "relative_log_likelihood", "relative_score"
_LABELS = {_LIKELIHOOD: "likelihood a token, full cache = 1", _SCORE: "task score, full cache = 1"}
_FULL = 99.5  # percent: from here on a point is the full cache
_ROOM = 30  # percent: names of points that keep less stand on their right
_SPLITS = {"test": "test prompts", "validation": "validation prompts, which chose the answers"}


class Answer(NamedTuple):
    """One run's answer, and generation 0 of it, if it is known; point.policy is the run."""

    run: str
    seed: int
    metric: str
    point: Point
    kept_low: float | None
    kept_high: float | None
    start: Point | None


def is_answer(row: Row) -> bool:
    """Whether a row says what an evolution's answer, or generation 0, scores or keeps over all tasks."""
    wanted = {_LIKELIHOOD, _SCORE, "kept"}
    split, _, tasks = row.dataset.partition("/")
    told = row.metric in wanted and row.variant in (_ANSWER, _START)
    return row.kind == "namm" and told and tasks == "all" and split in _SPLITS


def answers_of(rows: Sequence[Row], tell: Callable[[str], None]) -> tuple[list[Answer], str]:
    """An answer of each run, least kept first, and the split: test if every run has it, else validation.

    Raises MemxError if hosts or kinds of fitness differ.
    """
    runs = list(dict.fromkeys(row.run for row in rows))
    by_key = {(row.run, row.dataset, row.variant, row.metric): row for row in rows}
    tested = {row.run for row in rows if row.dataset == "test/all"}
    split = "test" if len(tested) == len(runs) else "validation"
    if 0 < len(tested) < len(runs):
        tell(f"on validation prompts: {', '.join(run for run in runs if run not in tested)} had no test prompts")
    metrics = {row.metric for row in rows} - {"kept"}
    for name, values in (("host", {row.model for row in rows}), ("kind of fitness", metrics)):
        if len(values) > 1:
            raise MemxError(f"these evolutions differ in their {name}: {', '.join(sorted(values))}", hint="name some")
    (metric,) = metrics or {_LIKELIHOOD}
    answers = []
    for run in runs:
        key = (run, f"{split}/all", _ANSWER)
        value, kept = by_key.get((*key, metric)), by_key.get((*key, "kept"))
        if value is None or kept is None:
            tell(f"left out: {run} says nothing of {_SPLITS[split]}")
            continue
        start = _point(by_key, run, split, metric)
        point = Point(run, "", kept.value, value.value, value.low, value.high, value.n)
        answers.append(Answer(run, value.seed, metric, point, kept.low, kept.high, start))
    if not answers:
        raise MemxError("no evolution here says what its answer keeps and scores", hint="`memx evolve-namm` does")
    return sorted(answers, key=lambda answer: answer.point.kept), split


def _point(by_key: dict[tuple[str, str, str, str], Row], run: str, split: str, metric: str) -> Point | None:
    """Generation 0 of a run."""
    value, kept = (by_key.get((run, f"{split}/all", _START, one)) for one in (metric, "kept"))
    return Point(run, "", kept.value, value.value, value.low, value.high, value.n) if value and kept else None


def _best(answers: Sequence[Answer]) -> list[Point]:
    """The front of the answers and the full cache."""
    return front([*(answer.point for answer in answers), Point("full cache", "", 100.0, 1.0, None, None, 0)])


def front_figure(answers: Sequence[Answer], split: str, rows: Sequence[Row]) -> Figure:
    """Draw each answer, tied to its generation 0, the front as a step line, and the full cache."""
    figure, (axis,) = new_figure(1, 5.0)
    figure.set_figwidth(8.4)
    best = _best(answers)
    axis.step(
        [p.kept for p in best], [p.value for p in best], where="post", color="0.3", linewidth=1.1, zorder=2,
        label="front",
    )  # fmt: skip
    axis.plot([100], [1], "D", color="black", markersize=6, zorder=4, label="full cache")
    groups = list(dict.fromkeys(without_seed(answer.run) for answer in answers))
    for answer in answers:
        place = groups.index(without_seed(answer.run))
        colour = NAMM_COLOURS[0] if len(groups) == 1 else CYCLE[place % len(CYCLE)]
        _answer(axis, answer, colour, on=answer.point in best)
    axis.plot([], [], "o", color="0.35", markersize=7, label="answer on the front")
    axis.plot([], [], "o", markerfacecolor="white", markeredgecolor="0.35", markersize=7, label="beaten answer")
    if any(_told(answer) for answer in answers):
        axis.plot([], [], "x-", color="0.75", markersize=5, linewidth=0.8, label="from generation 0")
    _dress(axis, answers)
    _names(axis, answers, groups)
    n = max(answer.point.n for answer in answers)
    count = f"{len(answers)} evolution{'s' if len(answers) > 1 else ''}"
    title = " · ".join([host_label(rows[0].model), f"{n} {_SPLITS[split]}", count, "95% intervals"])
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
    axis.set_title("What evolutions keep and score")
    axis.set_xlabel("share of the cache that is kept (%)")
    axis.set_ylabel(_LABELS[answers[0].metric])
    points = [point for answer in answers for point in (answer.point, answer.start) if point]
    axis.set_ylim(0, 1.06 * max([1.0, *(point.value if point.high is None else point.high for point in points)]))
    axis.set_xlim(0, 103)


def _names(axis: Axes, answers: Sequence[Answer], groups: Sequence[str]) -> None:
    """Each group of seeds named once, above and left of its first answer, where a front leaves room, or right below."""
    firsts = [next(answer for answer in answers if without_seed(answer.run) == name) for name in groups]
    gap = 0.042 * axis.get_ylim()[1]
    sides = [answer.point.kept >= _ROOM for answer in firsts]
    wanted = [answer.point.value + (0.8 if left else -0.8) * gap for answer, left in zip(firsts, sides, strict=True)]
    for name, answer, left, place in zip(groups, firsts, sides, spread(wanted, gap), strict=True):
        axis.annotate(
            name, (answer.point.kept + (-0.8 if left else 0.8), place), fontsize=8.5, ha="right" if left else "left",
            va="center", color="0.2", zorder=6,
        )  # fmt: skip


def front_table(answers: Sequence[Answer], split: str) -> Table:
    """What each run's answer keeps and scores, and whether it is on the front."""
    best = _best(answers)
    score = "likelihood" if answers[0].metric == _LIKELIHOOD else "score"
    columns = ["run", "seed", "kept %", f"{score}, full cache = 1", "generation 0", "front"]
    table = Table(f"Answers of evolutions on {_SPLITS[split]}, ± half the 95% interval", columns, [], [])
    for answer in answers:
        point, start = answer.point, answer.start
        on = point in best
        cells = [answer.run, str(answer.seed), with_half(point.kept, answer.kept_low, answer.kept_high, 1)]
        before = f"{start.value:.2f} at {start.kept:.0f}%" if start else ""
        table.lines.append([*cells, with_half(point.value, point.low, point.high, 2), before, "*" if on else ""])
        table.facts.append(
            {"run": answer.run, "seed": answer.seed, "kept": point.kept, answer.metric: point.value, "low": point.low,
             "high": point.high, "n": point.n, "split": split, "front": on}
        )  # fmt: skip
    return table
