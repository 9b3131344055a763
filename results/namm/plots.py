"""What `memx plot` draws of NAMMs: rows of evaluations and evolutions, metrics of evolutions -> figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import MemxError
from ..labels import host_label
from ..plots import PlotRequest, collect_rows, collect_runs
from ..store.rows import Row
from ..store.runs import Run, run_config
from .rows import DATASETS, EVICTION, SCORES, is_namm, prepared, without_seed

if TYPE_CHECKING:
    from ..labels import Table

T = TypeVar("T", Row, Run)

METRICS = ("relative_log_likelihood", "exact")
_EVALUATE = "`memx eval-namm RUN` makes them, for the RUN of a `memx evolve-namm`"


def plot_namm(order: PlotRequest, metrics: Sequence[str] = METRICS) -> tuple[list[Path], Table]:
    """Draw scores of policies by the share of the cache held; returns the files and the table of all sizes."""
    from .scores_figure import namm_figure
    from .scores_table import namm_table

    unknown = [metric for metric in metrics if metric not in SCORES]
    if unknown or not metrics:
        raise MemxError(f"--metrics: no metric {', '.join(unknown) or 'given'}", hint=f"use {', '.join(SCORES)}")
    wanted = {*SCORES, "held", "kept", "log_likelihood_over_best_rival"}
    rows = _evaluated(order, lambda row: row.metric in wanted and row.dataset in DATASETS, "policies' scores")
    drawn = prepared(rows)
    there = [metric for metric in SCORES if any(row.metric == metric and row.variant != "full" for row in drawn)]
    shown = [metric for metric in metrics if metric in there]
    if not shown:
        raise MemxError(f"no policy here has {' or '.join(metrics)}", hint=f"--metrics {','.join(there) or 'exact'}")
    if missing := [metric for metric in metrics if metric not in there]:
        order.tell(f"left out: no policy here has {', '.join(missing)}")
    if not any(is_namm(row.variant) for row in drawn):
        order.tell("there is no NAMM among these policies")
    return order.write(namm_figure(drawn, shown), rows), namm_table(drawn, shown)


def plot_layers(order: PlotRequest) -> tuple[list[Path], Table]:
    """Draw what each layer keeps of the cache, of policies that tell layers apart; returns the files and the table."""
    from .layers import by_layer, layers_figure, layers_table

    rows = _evaluated(order, lambda row: row.metric == "kept_layer", "layers' caches")
    drawn = prepared(rows)
    found = by_layer(drawn)
    return order.write(layers_figure(drawn, found), rows), layers_table(found)


def plot_dropped(order: PlotRequest, budget: float | None = None) -> tuple[list[Path], Table]:
    """Draw what kinds of token a NAMM drops, at a budget or at its own size; returns the files and the table."""
    from .dropped import METRICS as DROPPED
    from .dropped import choose_size, dropped_table, texts_of
    from .dropped_figure import dropped_figure

    rows = _evaluated(order, lambda row: row.metric in DROPPED and row.dataset.startswith("kinds/"), "dropped tokens")
    drawn = choose_size(prepared(rows), budget, order.tell)
    texts = texts_of(drawn)
    return order.write(dropped_figure(drawn, texts), rows), dropped_table(texts)


def plot_evolution(order: PlotRequest) -> tuple[list[Path], Table]:
    """Draw how evolutions went, finished or not; returns the files and where each run stands.

    Of a folder of runs the last and those that differ from it in their seed alone are drawn.
    """
    from .evolution import course_of, evolution_figure, evolution_table, is_evolution

    runs = [run for run in collect_runs(order.sources) if is_evolution(run)]
    if not runs:
        raise MemxError("no run here is of `memx evolve-namm`", hint="name its run folder, or the folder it is in")
    chosen = _together(order, runs, lambda run: run.experiment, _settings)
    courses = [course for run in chosen if (course := course_of(run))]
    hosts = dict.fromkeys(_host(run) for run in chosen)
    state = "" if all(course.finished for course in courses) else " · unfinished"
    about = f"{', '.join(dict.fromkeys(without_seed(run.experiment) for run in chosen))} · {', '.join(hosts)}{state}"
    return order.write(evolution_figure(courses, about)), evolution_table(courses)


def plot_front(order: PlotRequest) -> tuple[list[Path], Table]:
    """Draw answers of evolutions by the cache they keep and what they score, and the front; returns files and table.

    Of a folder of runs all are drawn that are of the last one's host, mode, kind of fitness and prompts.
    """
    from .pareto import alike, answers_of, front_table, is_answer
    from .pareto_figure import front_figure

    rows = [row for row in collect_rows(order.sources) if is_answer(row)]
    if not rows:
        hint = "`memx evolve-namm` writes them once it is finished; an unfinished one: --what evolution"
        raise MemxError("there are no answers of evolutions here", hint=hint)
    facts = alike(rows)
    rows = _together(order, rows, lambda row: row.experiment, lambda row: facts[row.run])
    answers, split = answers_of(rows, order.tell)
    return order.write(front_figure(answers, split, rows), rows), front_table(answers, split)


def _evaluated(order: PlotRequest, wanted: Callable[[Row], bool], what: str) -> list[Row]:
    """The wanted rows of an evaluation."""
    return order.rows(
        lambda row: row.kind == EVICTION and wanted(row),
        check=list,
        missing=f"there are no {what} here",
        hint=_EVALUATE,
    )


def _together(order: PlotRequest, found: list[T], name: Callable[[T], str], alike: Callable[[T], Any]) -> list[T]:
    """Those of the experiment that is asked for, with or without its hash; else what is named, or like the last."""
    if order.experiment is not None:
        chosen = [one for one in found if order.experiment in (name(one), without_seed(name(one)))]
        if not chosen:
            raise MemxError(
                f"no experiment {order.experiment!r}", hint=f"there are: {', '.join(dict.fromkeys(map(name, found)))}"
            )
    elif order.named:
        return found
    else:
        chosen = [one for one in found if alike(one) == alike(found[-1])]
    names = {name(one) for one in chosen}
    if others := sorted({name(one) for one in found} - names):
        order.tell(f"drawn: {', '.join(sorted(names))}; left out: {', '.join(others)} (--experiment chooses)")
    return chosen


def _settings(run: Run) -> dict[str, Any]:
    """A run's config without what does not tell evolutions apart."""
    return {key: value for key, value in run_config(run).items() if key not in ("seed", "name", "about")}


def _host(run: Run) -> str:
    host = run_config(run).get("host") or {}
    return host_label(str(host.get("name") or host.get("preset") or "an unknown host"))
