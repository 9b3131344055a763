"""Questions against memory size: NQ-open exact match, TriviaQA F1, the first metric of own sets, from rows alone.

A line for each base and kind of memory, from its dense model on; the curves of Memory Layers at Scale (Berges et al.
2024, Table 1) may lie beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..labels import INTERVALS, Table, drawn, score_of
from ..published import TITLES, published_curves
from ..selection import Drawn, PlotRequest
from ..store.rows import Row, extra
from ..style import BASE_COLOURS, CYCLE, KIND_LABELS, caption_below, new_figure
from ..summary import Summary, summarize
from .slots import SlotAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {("nq", "exact_match"): ("NQ-open", "exact match (%)"), ("tqa", "f1"): ("TriviaQA", "F1 (%)")}
_MARKERS = "osD^vPX*"
_TABLE = {"exact_match": "exact match %", "f1": "F1 %", "nll": "nats per token"}


def is_wanted(row: Row) -> bool:
    """Whether a row is of the questions that the figure and its table show."""
    return _is_own(row) or (row.dataset in {name for name, _ in PANELS} and row.metric in _TABLE)


def _is_own(row: Row) -> bool:
    """Whether a row is of a user's own questions, less their NLL by answer, which no table shows."""
    asked = extra(row, "asked_with_seed") is not None
    return asked and row.dataset not in {name for name, _ in PANELS} and row.metric != "answer_nll"


def _panels_of(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[str, str]]:
    """The panels of rows with their titles and units: the published sets, and the first metric of each own set."""
    panels, named = dict(PANELS), {name for name, _ in PANELS}
    for row in rows:
        if _is_own(row) and row.metric != "nll" and row.dataset not in named:
            named.add(row.dataset)
            panels[row.dataset, row.metric] = (row.dataset, _title(row.metric).replace(" %", " (%)"))
    return panels


def _title(metric: str) -> str:
    return _TABLE.get(metric) or f"{metric.removesuffix('_score').replace('_', ' ')} %"


def draw(request: PlotRequest) -> Drawn:
    """Draw sets of questions against memory size, with the table of all scores."""
    rows = request.rows(is_wanted, hint="evaluate models on nq, tqa or your own questions with `memx eval`")
    return Drawn(request.write(qa_figure(rows, published=request.options.published), rows), qa_table(rows))


def qa_figure(rows: Sequence[Row], *, published: bool = False) -> Figure:
    """Draw a panel for each set of questions that there are rows of; published adds the curves of nq and tqa.

    Raises MemxError if questions were asked in several ways, or two models would share a place.
    """
    _check_one_way(rows)
    summaries = summarize(rows)
    titles = _panels_of(rows)
    lines = {key: lines_of([s for s in summaries if (s.dataset, s.metric) == key]) for key in titles}
    panels = [key for key in titles if lines[key] or (published and key in PANELS)]
    labels = list(dict.fromkeys(label for key in panels for label in lines[key]))
    if not labels:
        raise MemxError("there is neither exact match of nq nor F1 of tqa", hint="evaluate models with `memx eval`")
    figure, axes = new_figure(panels=len(panels), height=5.4)
    for axis, key in zip(axes, panels, strict=True):
        _panel(axis, key, lines[key], labels, published)
        axis.set_ylabel(titles[key][1])
    for axis, key in zip(axes, panels, strict=True):
        above = any(other.child_axes for other in axes)  # an axis of parameters
        axis.set_title(f"{drawn(titles[key][0])} by memory size", pad=34 if above else 10)
    runs = max(s.runs for s in summaries)
    interval = f"mean of {runs} seeds, 95% CI (t)" if runs > 1 else "95% CI over questions"
    devices = ", ".join(sorted({row.device for row in rows if row.device}))
    fewer = any(row.labels.fewer_shots for row in rows)
    shots = "/".join(str(count) for count in dict.fromkeys(_shots(row) for row in rows))
    book = "with contexts" if any(row.labels.context_questions for row in rows) else "closed book"
    text = f"{book}, {'at most ' if fewer else ''}{shots} shots · {devices} · {interval}"
    caption_below(figure, text + (" · published: Memory+" if published else ""), axes)
    return figure


def qa_table(rows: Sequence[Row]) -> Table:
    """What each model knows: a line for each set of questions, in the order of memory size."""
    by_model: dict[tuple, dict[str, Summary]] = {}
    for s in summarize(rows):
        by_model.setdefault((s.model, s.kind, s.memory_slots, s.variant, s.dataset), {})[s.metric] = s
    more = dict.fromkeys(s.metric for scores in by_model.values() for s in scores.values() if s.metric not in _TABLE)
    titles, lines, facts = {**_TABLE, **{metric: _title(metric) for metric in more}}, [], []
    for (model, kind, slots, variant, dataset), scores in by_model.items():
        name = ", ".join(filter(None, [model, kind, variant]))
        cells = [score_of(s, 2) if (s := scores.get(metric)) else "" for metric in titles]
        lines.append([name, dataset, f"{slots:,}" if slots else "dense", *cells])
        facts += [
            {"model": model, "kind": kind, "memory_slots": slots, "variant": variant, "dataset": dataset,
             "metric": s.metric, "value": s.value, "low": s.low, "high": s.high, "n": s.n, "runs": s.runs}
            for s in scores.values()
        ]  # fmt: skip
    columns = ["model", "questions", "slots", *titles.values()]
    book = "QA" if any(row.labels.context_questions for row in rows) else "Closed-book QA"
    return Table(f"{book} ({INTERVALS})", columns, lines, facts, left=2, names=3)


def lines_of(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """The label of each line and its points, smallest memory first: a base's dense model begins all of its lines.

    Raises MemxError if two models, such as variants, would share a place on a line.
    """
    lines: dict[str, list[Summary]] = {}
    for model in dict.fromkeys(s.model for s in summaries):
        of_model = [s for s in summaries if s.model == model]
        dense = [s for s in of_model if not s.memory_slots]
        kinds = list(dict.fromkeys(s.kind for s in of_model if s.memory_slots))
        if not kinds:
            lines[f"{model}, dense"] = dense
        for kind in kinds:
            points = dense + [s for s in of_model if s.memory_slots and s.kind == kind]
            lines[f"{model}, {KIND_LABELS.get(kind, kind)}"] = sorted(points, key=lambda s: s.memory_slots)
    for label, points in lines.items():
        places: dict[tuple, Summary] = {}
        for s in points:
            first = places.setdefault((s.dataset, s.metric, s.memory_slots), s)
            if first is not s:
                names = " and ".join(repr(one.variant or one.kind) for one in (first, s))
                raise MemxError(
                    f"two models of {label} have {s.memory_slots:,} slots: {names}",
                    hint="give the runs of only one of them",
                )
    return lines


def _panel(
    axis: Axes, key: tuple[str, str], lines: dict[str, list[Summary]], labels: Sequence[str], published: bool
) -> None:
    """One set of questions: own lines over the published ones. labels: of all panels, for the same look in each."""
    everything = list(dict.fromkeys(s for points in lines.values() for s in points))
    curves = {base: points for (base, title), points in published_curves().items() if title == TITLES.get(key)}
    curves = curves if published else {}
    others = [p.memory_slots for points in curves.values() for p in points if p.memory_slots]
    scale = SlotAxis(sorted({s.memory_slots for s in everything if s.memory_slots}), others)
    for base, points in curves.items():
        axis.plot(
            [scale.place(p.memory_slots) for p in points],
            [p.value for p in points],
            color=BASE_COLOURS.get(base, "0.5"), linestyle="--", marker="x", markersize=4, linewidth=1.1,
            label=f"published: {base}",
        )  # fmt: skip
    for label, points in lines.items():
        i = labels.index(label)
        axis.errorbar(
            [scale.place(s.memory_slots) for s in points],
            [s.value for s in points],
            yerr=[[s.value - s.low for s in points], [s.high - s.value for s in points]],
            color=CYCLE[i % len(CYCLE)], marker=_MARKERS[i % len(_MARKERS)], capsize=3, linewidth=1.8, markersize=6,
            elinewidth=1.1, label=drawn(label), zorder=3,
        )  # fmt: skip
    scale.dress(axis, everything)
    if len({s.model for s in everything}) != 1:  # parameters by memory size are those of one base
        axis.child_axes[-1].remove()
    axis.set_ylim(bottom=0)


def _check_one_way(rows: Sequence[Row]) -> None:
    """Scores of other numbers of examples do not compare, nor those of chats with others."""
    for name in dict.fromkeys(row.dataset for row in rows):
        of_set = [row for row in rows if row.dataset == name]
        ways = sorted({_shots(row) for row in of_set})
        if len(ways) > 1:
            raise MemxError(
                f"these runs differ in the number of shots: {', '.join(map(str, ways))}",
                hint="give runs with the same number of shots",
            )
        if len({row.labels.chat for row in of_set}) > 1:
            raise MemxError("some of these runs used --chat, others did not", hint="give runs of one kind")


def _shots(row: Row) -> int:
    return row.labels.shots
