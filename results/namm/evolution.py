"""Evolutions as they went: metrics of runs -> fitness of candidates and of the mean, step size and cache by generation.

Unfinished runs are drawn as far as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import MemxError
from ..collecting import collect_runs
from ..labels import Table, drawn, host_label
from ..selection import Drawn, PlotRequest
from ..store.resuming import resume_hint
from ..store.runs import Run, run_config
from ..style import CYCLE, caption_below, new_figure
from ..summary import without_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BANDS = 3  # more runs than this would lay bands over bands
_LEGEND = 8  # runs that a legend has room for


class Course(NamedTuple):
    """How one evolution went, by generation: its lines of candidates and of validations, each in order.

    stages: the generations after which another stage began. chosen: the validation that the answer is of, the best of
    the last stage. finished: whether the run came to its end.
    """

    name: str
    seed: int
    generations: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    stages: list[int]
    chosen: dict[str, Any] | None
    finished: bool


def draw(request: PlotRequest) -> Drawn:
    """Draw how evolutions went, finished or not, with the table of where each run stands.

    Of a folder of runs the last and those that differ from it in their seed alone are drawn.
    """
    runs = collect_runs(request.sources, request.log)
    runs = [run for run in runs if run_config(run).get("command") == "evolve-namm"]
    if not runs:
        raise MemxError("there is no run of `memx evolve-namm` here", hint="give its run folder, or the folder of runs")
    chosen = request.together(runs, _settings)
    courses = [course for run in chosen if (course := course_of(run))]
    if not courses:
        raise _no_generation(chosen[-1])
    hosts = dict.fromkeys(_host(run) for run in chosen)
    state = "" if all(course.finished for course in courses) else " · unfinished"
    about = f"{', '.join(dict.fromkeys(without_seed(run.experiment) for run in chosen))} · {', '.join(hosts)}{state}"
    return Drawn(request.write(evolution_figure(courses, about)), evolution_table(courses))


def _no_generation(run: Run) -> MemxError:
    """The error for runs without a generation, of which this is the last."""
    hint = "wait for the first generation" if run.status == "running" else resume_hint(run)
    return MemxError("no run here has finished a generation", hint=hint)


def _settings(run: Run) -> dict[str, Any]:
    """A run's config without what does not tell evolutions apart."""
    return {key: value for key, value in run_config(run).items() if key not in ("seed", "name", "about")}


def _host(run: Run) -> str:
    config = run_config(run)
    hosts = [config.get("host") or {}, *(config.get("more_hosts") or [])]
    return host_label(" + ".join(str(host.get("name") or host.get("preset") or "unknown model") for host in hosts))


def course_of(run: Run) -> Course | None:
    """What the metrics of a run say; None if it has had no generation and no validation."""
    lines = sorted(run.metrics(), key=lambda line: (line["stage"], line["step"]) if "stage" in line else (-1, 0))
    generations = [line for line in lines if "best" in line]
    validations = [line for line in lines if "validation" in line]
    if not generations and not validations:
        return None
    last = lines[-1]["stage"]
    of_last = [line for line in validations if line["stage"] == last]
    firsts = {line["stage"]: line["step"] for line in reversed(generations)}
    stages = [step - 1 for stage, step in sorted(firsts.items()) if stage > 0]
    chosen = max(of_last, key=lambda line: line["validation"], default=None)
    seed = int(run.info().get("seed") or 0)
    return Course(run.name, seed, generations, validations, stages, chosen, run.status == "finished")


def evolution_figure(courses: Sequence[Course], about: str) -> Figure:
    """Draw runs together: fitness of candidates, validation of the mean, step size and the share of the cache kept."""
    figure, axes = new_figure(2, 3.3, 2)
    for axis in axes[1:]:
        axis.sharex(axes[0])
    names = course_labels(courses)
    for place, (course, name) in enumerate(zip(courses, names, strict=True)):
        colour = CYCLE[place % len(CYCLE)]
        _fitness(axes[0], course, colour, banded=len(courses) <= _BANDS)
        _validation(axes[1], course, colour)
        _line(axes[2], course.generations, "sigma", colour, label=drawn(name) if len(courses) > 1 else None)
        _kept(axes[3], course, colour)
    _stages(axes, courses)
    _dress(axes)
    _entries(axes[0], courses)
    caption_below(figure, about, axes, most=_LEGEND + 8)
    return figure


def course_labels(courses: Sequence[Course]) -> list[str]:
    """What tells the runs apart: their seeds, their names, or both."""
    names = [without_seed(course.name) for course in courses]
    if len(set(names)) == 1 and len({course.seed for course in courses}) == len(courses):
        return [f"seed {course.seed}" for course in courses]
    both = [f"{name}, seed {course.seed}" for name, course in zip(names, courses, strict=True)]
    if len(set(names)) == len(names):
        return names
    return both if len(set(both)) == len(both) else [course.name for course in courses]


def evolution_table(courses: Sequence[Course]) -> Table:
    """Where each run stands, and the mean that validated best in its last stage."""
    columns = [
        "run",
        "generations",
        "stages",
        "chosen generation",
        "validation fitness",
        "cache kept %",
        "mean of candidates",
        "sigma",
    ]
    table = Table("Evolutions: chosen parameters (best validation fitness in the last stage)", columns, [], [])
    for course in courses:
        chosen, last = course.chosen or {}, course.generations[-1] if course.generations else {}
        kept = chosen.get("kept")
        fact = {
            "run": course.name,
            "finished": course.finished,
            "generations": last.get("step", 0),
            "stages": len(course.stages) + 1,
            "chosen": chosen.get("step"),
            "validation": chosen.get("validation"),
            "kept": None if kept is None else 100 * kept,
            "mean": last.get("mean"),
            "sigma": last.get("sigma"),
        }
        table.facts.append(fact)
        state = "" if course.finished else ", unfinished"
        cells = [f"{fact['generations']}{state}", str(fact["stages"]), _said(fact["chosen"], "d")]
        cells += [_said(fact["validation"], ".4f"), _said(fact["kept"], ".1f"), _said(fact["mean"], ".3f")]
        table.lines.append([course.name, *cells, _said(fact["sigma"], ".4f")])
    return table


def _said(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _line(axis: Axes, lines: Sequence[dict[str, Any]], metric: str, colour: str, scale: float = 1, **look: Any) -> None:
    """A metric by generation, of the lines that have it."""
    points = [(line["step"], scale * line[metric]) for line in lines if line.get(metric) is not None]
    settings: dict[str, Any] = dict(color=colour, linewidth=1.6, marker="." if len(points) < 3 else None) | look
    axis.plot([step for step, _ in points], [value for _, value in points], **settings)


def _fitness(axis: Axes, course: Course, colour: str, *, banded: bool) -> None:
    """The mean of candidates, within a standard deviation, and the best above it."""
    steps = [line["step"] for line in course.generations]
    if banded:
        low, high = ([line["mean"] + sign * line["std"] for line in course.generations] for sign in (-1, 1))
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    _line(axis, course.generations, "mean", colour, zorder=4)
    _line(axis, course.generations, "best", colour, linewidth=0.8, linestyle=":", zorder=3)


def _validation(axis: Axes, course: Course, colour: str) -> None:
    """The mean on validation prompts, a line for each stage, a star on the one that is the answer."""
    for stage in dict.fromkeys(line["stage"] for line in course.validations):
        of_stage = [line for line in course.validations if line["stage"] == stage]
        _line(axis, of_stage, "validation", colour, marker="o", markersize=3.5)
    if course.chosen:
        axis.plot(
            [course.chosen["step"]], [course.chosen["validation"]], "*", color=colour, markersize=14, zorder=5,
            markeredgecolor="white",
        )  # fmt: skip


def _kept(axis: Axes, course: Course, colour: str) -> None:
    """The cache that candidates keep, and that the validated means do."""
    _line(axis, course.generations, "kept", colour, scale=100)
    _line(axis, course.validations, "kept", colour, scale=100, linestyle="none", marker="o", markersize=3.5)


def _stages(axes: Sequence[Axes], courses: Sequence[Course]) -> None:
    """A thin line where a stage begins, with its number on top if all runs have the same."""
    borders = sorted({(number, border) for course in courses for number, border in enumerate(course.stages, start=2)})
    same = len({tuple(course.stages) for course in courses}) == 1
    for axis in axes:
        for number, border in borders:
            axis.axvline(border, color="0.55", linewidth=0.8, zorder=1)
            if same:
                axis.annotate(
                    f"stage {number}", (border, 1), (3, -2), xycoords=axis.get_xaxis_transform(), va="top", fontsize=8,
                    textcoords="offset points", color="0.4",
                )  # fmt: skip


def _entries(axis: Axes, courses: Sequence[Course]) -> None:
    """Legend entries of what lines mean, in grey where colours mean runs."""
    colour = CYCLE[0] if len(courses) == 1 else "0.35"
    axis.plot([], [], color=colour, linewidth=1.6, label="mean of candidates")
    if len(courses) <= _BANDS:
        axis.fill_between([], [], [], color=colour, alpha=0.2, linewidth=0, label="± one standard deviation")
    axis.plot([], [], color=colour, linewidth=0.8, linestyle=":", label="best candidate")
    axis.plot([], [], color=colour, linestyle="none", marker="o", markersize=3.5, label="validation of the search mean")
    label = " or ".join(dict.fromkeys("chosen" if course.finished else "best so far" for course in courses))
    axis.plot([], [], "*", color=colour, markersize=12, markeredgecolor="white", label=label)


def _dress(axes: Sequence[Axes]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    titles = (
        ("Candidates on training prompts", "fitness"),
        ("Search mean on validation prompts", "fitness"),
        ("Step size", "sigma (log scale)"),
        ("Cache", "share of the cache kept (%)"),
    )
    for axis, (title, label) in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_ylabel(label)
        axis.set_xlabel("generation")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes[2].set_yscale("log")
    low, high = axes[2].get_ylim()
    if high / low > 1.3:  # below, the ticks of a log axis are too few
        axes[2].yaxis.set_major_locator(LogLocator(subs=range(1, 10) if high / low < 10 else (1, 2, 5)))
    else:
        axes[2].yaxis.set_major_locator(MaxNLocator(5))
    axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes[2].yaxis.set_minor_formatter(NullFormatter())
    axes[3].set_ylim(0, 105)
