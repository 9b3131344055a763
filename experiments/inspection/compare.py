"""Several runs side by side: those that differ in their seed alone are one group; settings and scores by group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from ...errors import MemxError
from ...results.labels import with_interval
from ...results.store.rows import Row
from ...results.store.runs import Run, run_config
from ...results.summary import without_seed
from .answers import Answered, by_question, read_answers
from .differences import Difference, difference, group_interval
from .scores import METRICS, Score, digits_of, main_scores
from .settings import differing

_SEEDS = ("seed", "data.seed", "text.seed")
_ASIDE = ("majority_exact_match", "chance_exact_match", "slots_used", "usage_kl")  # no scores of the model's answers


class Group:
    """Runs of one config, of one or several seeds.

    Args:
        runs: The runs.
        name: What the group is called.
    """

    def __init__(self, runs: Sequence[Run], name: str) -> None:
        self.runs, self.name = list(runs), name

    @property
    def seeds(self) -> list[Any]:
        """The seed of each run."""
        return [run.info().get("seed") for run in self.runs]

    @cached_property
    def scores(self) -> dict[tuple[Any, ...], list[Score]]:
        """Every score of a whole set: that of each run which has it."""
        found: dict[tuple[Any, ...], list[Score]] = {}
        for run in self.runs:
            for score in main_scores(run.rows()):
                found.setdefault(score.key, []).append(score)
        return found

    @cached_property
    def answers(self) -> list[Answered]:
        """The answers that the only run kept; empty for several runs."""
        return read_answers(self.runs[0].folder) if len(self.runs) == 1 else []

    def rows(self, key: tuple[Any, ...]) -> list[Row]:
        """The row of each run for a score."""
        return [score.row for score in self.scores.get(key, [])]

    def text(self, key: tuple[Any, ...]) -> str:
        """A score and its interval; empty if the group has none."""
        rows = self.rows(key)
        return with_interval(*group_interval(rows), digits_of(rows[0].metric)) if rows else ""


class Line(NamedTuple):
    """One score of all groups.

    Attributes:
        where: The set.
        metric: The metric's name in rows.
        words: The metric in words.
        key: What is equal of the score in all groups.
        texts: Value and interval of each group.
        differences: Of each group but the first from the first; None where one of both has no such score.
    """

    where: str
    metric: str
    words: str
    key: tuple[Any, ...]
    texts: list[str]
    differences: list[Difference | None]


class Comparison(NamedTuple):
    """Groups, the settings in which they differ, and the scores of each.

    Attributes:
        groups: In the order in which they were given; the first is what the others are compared with.
        settings: Key, and the value of each group.
        lines: The scores.
    """

    groups: list[Group]
    settings: list[tuple[str, list[Any]]]
    lines: list[Line]


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare finished runs.

    Args:
        runs: At least two. Unfinished ones have no scores.

    Raises:
        MemxError: There are fewer than two, none has scores, or a file of one is damaged.
    """
    if len(runs) < 2:
        raise MemxError("give at least two runs to compare", hint="memx compare A B; `memx runs` lists the runs")
    comparison = compare_groups(group_runs(runs))
    if not any(group.scores for group in comparison.groups):
        raise MemxError("none of these runs has scores", hint="only finished runs have; see `memx runs`")
    return comparison


def compare_groups(groups: Sequence[Group]) -> Comparison:
    """Compare groups of runs with the first of them.

    Args:
        groups: At least one; unfinished runs have no scores.

    Raises:
        MemxError: A file of a run is damaged.
    """
    keys = list(dict.fromkeys(key for group in groups for key in group.scores))
    found = differing([run_config(group.runs[0]) for group in groups])
    settings = [(key, values) for key, values in found if key not in _SEEDS]
    return Comparison(list(groups), settings, [_line(groups, key) for key in keys if key[1] not in _ASIDE])


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs whose configs differ in their seeds alone, in the order in which they come.

    Args:
        runs: The runs.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_without_seeds(run), []).append(run)
    names = [_name(group) for group in found.values()]
    if len(set(names)) < len(names):  # the hash tells them apart
        names = [group[0].name for group in found.values()]
    return [Group(group, name) for name, group in zip(names, found.values(), strict=True)]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain data.

    Args:
        comparison: The comparison.
    """
    names = [group.name for group in comparison.groups]
    scores = []
    for line in comparison.lines:
        values = [group_interval(rows) if (rows := group.rows(line.key)) else None for group in comparison.groups]
        found = [None if one is None else dict(zip(("value", "low", "high"), one, strict=True)) for one in values]
        less = [None if one is None else one._asdict() | {"interval_excludes_0": one.shown} for one in line.differences]
        names_of = dict(zip(names[1:], less, strict=True))
        scores.append(
            {"set": line.where, "metric": line.metric, "values": dict(zip(names, found, strict=True)),
             "minus_first": names_of}
        )  # fmt: skip
    return {
        "groups": [
            {"name": group.name, "seeds": group.seeds, "runs": [str(run.folder) for run in group.runs]}
            for group in comparison.groups
        ],
        "settings": {key: dict(zip(names, values, strict=True)) for key, values in comparison.settings},
        "scores": scores,
    }


def _line(groups: Sequence[Group], key: tuple[Any, ...]) -> Line:
    first = next(group.scores[key][0] for group in groups if key in group.scores)
    base = groups[0]
    differences: list[Difference | None] = []
    for group in groups[1:]:
        both = group.rows(key), base.rows(key)
        if not all(both):
            differences.append(None)
            continue
        pairs = [by_question(one.answers, first.row.dataset) for one in (group, base)]
        differences.append(difference(*both, *pairs))
    words = METRICS.get(first.row.metric, first.row.metric)
    return Line(first.where, first.row.metric, words, key, [group.text(key) for group in groups], differences)


def _without_seeds(run: Run) -> str:
    config = {key: value for key, value in run_config(run).items() if key not in ("name", "experiment", "seed")}
    for section in ("data", "text"):
        if isinstance(config.get(section), dict):
            config[section] = {key: value for key, value in config[section].items() if f"{section}.{key}" not in _SEEDS}
    return json.dumps(config, sort_keys=True, default=str)


def _name(runs: Sequence[Run]) -> str:
    return without_seed(runs[0].name)
