"""Runs -> one HTML page: figures, scores, settings, environment and how to repeat them. It loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ...files import make_folder, write_atomically
from ...results.store.runs import Run, run_config
from ..config.presets import command_of
from .answers import Answered
from .compare import Comparison, compare_groups, group_runs
from .differences import Difference
from .pictures import Drawing, drawings
from .scores import Score, digits_of
from .settings import shown_value
from .show import RunView, view_run

_LINES = 120  # scores in a table; evaluations of many policies have more
_TITLES = {"train": "Trained models", "eval": "Question answering", "evolve-namm": "Evolved NAMMs",
           "eval-namm": "Eviction policies"}  # fmt: skip


class Part(NamedTuple):
    """What a page says of the runs of one command.

    Attributes:
        title: The heading.
        command: The command.
        comparison: Groups, settings and scores.
        figures: The pictures that fit.
        views: Each run whole.
        relations: Name of a group with its worst relations.
        wrong: Name of a group with some wrong answers.
    """

    title: str
    command: str
    comparison: Comparison
    figures: list[Drawing]
    views: list[RunView]
    relations: list[tuple[str, list[Score]]]
    wrong: list[tuple[str, list[Answered]]]

    @property
    def score_lines(self) -> list[tuple[str, str, list[str], list[list[str]]]]:
        """Set, score, value of each group; of each group but the first its name, difference, and what that is over."""
        names = [group.name for group in self.comparison.groups[1:]]
        lines = []
        for line in self.comparison.lines[:_LINES]:
            less = zip(names, line.differences, strict=True)
            cells = [[name, *less_text(line.metric, one)] for name, one in less if one is not None]
            lines.append((line.where, line.words, line.texts, cells))
        return lines

    @property
    def left_out(self) -> int:
        """Scores that are not in the table."""
        return max(len(self.comparison.lines) - _LINES, 0)


def report_page(runs: Sequence[Run], title: str, progress: Callable[[str], None] = lambda text: None) -> str:
    """Make the page of runs.

    Args:
        runs: The runs, finished or not.
        title: Its heading.
        progress: Gets a line before what takes seconds.

    Returns:
        HTML; names and texts of users are escaped.

    Raises:
        MemxError: A file of a run is damaged.
    """
    by_command: dict[str, list[Run]] = {}
    for run in runs:
        by_command.setdefault(command_of(run_config(run)), []).append(run)
    parts = [_part(command, found, progress) for command, found in by_command.items()]
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                            lstrip_blocks=True)  # fmt: skip
    templates.filters["shown"] = shown_value
    views = [view for part in parts for view in part.views]
    return templates.get_template("report.html").render(
        title=title, parts=parts, environments=_environments(views), commands=_commands(views), views=views,
        svg=Markup,
    )  # fmt: skip


def write_report(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        page: HTML.

    Raises:
        MemxError: The disk is full or forbids it.
    """
    make_folder(path.parent)
    write_atomically(path, page)


def less_text(metric: str, less: Difference) -> list[str]:
    """A difference as text, and what its interval is over.

    Args:
        metric: Of which it is.
        less: The difference.
    """
    digits = digits_of(metric)
    text = f"{less.value:+.{digits}f}"
    if less.low is not None and less.high is not None:
        text += f" [{less.low:+.{digits}f}, {less.high:+.{digits}f}]{'*' if less.shown else ''}"
    return [text, f"{less.how}, n {less.n:,}" if less.n else less.how]


def _part(command: str, runs: Sequence[Run], progress: Callable[[str], None]) -> Part:
    comparison = compare_groups(group_runs(runs))
    views = [view_run(run) for run in runs]
    by_folder = {view.run.folder: view for view in views}
    firsts = [(group.name, by_folder[group.runs[0].folder]) for group in comparison.groups]
    return Part(
        title=_TITLES.get(command, f"Runs of memx {command}"),
        command=command,
        comparison=comparison,
        figures=drawings(runs, command, lambda name: progress(f"drawing {name}")),
        views=views,
        relations=[(name, view.relations) for name, view in firsts if view.relations],
        wrong=[(name, view.wrong) for name, view in firsts if view.wrong],
    )


def _environments(views: Sequence[RunView]) -> list[tuple[dict[str, str], list[str]]]:
    """Each environment that is not like another, and the runs that ran in it."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for view in views:
        found.setdefault(tuple(_environment(view.run.info()).items()), []).append(view.run.name)
    return [(dict(facts), names) for facts, names in found.items()]


def _environment(info: dict[str, Any]) -> dict[str, str]:
    packages = info.get("packages") or {}
    facts = {
        "memx": f"{info.get('memx') or ''} {info.get('commit') or ''}".strip(),
        "Python": str(info.get("python") or ""),
        "platform": str(info.get("platform") or ""),
        "device": str(info.get("device") or ""),
        "threads": str(info.get("threads") or ""),
        "processes": str(info.get("ranks") or ""),
        "packages": ", ".join(f"{name} {found}" for name, found in packages.items() if found),
    }
    return {name: text for name, text in facts.items() if text}


def _commands(views: Sequence[RunView]) -> list[str]:
    """The command lines that made the runs, each once."""
    return list(dict.fromkeys(command for view in views if (command := str(view.run.info().get("command") or ""))))
