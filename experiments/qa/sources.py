"""The arguments of `memx eval` -> a config for each model and policy. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import MemxError, nearest
from ...namm.plugins import short_name
from ..config.base import from_options
from ..config.question_answering import METRICS, SHOTS, TASKS, HarnessConfig, QaConfig, QaEviction, is_own
from ..metrics.registry import metric_name
from .model_source import digest, find_model, weights_digest
from .sets import qa_tasks, set_names


def eval_configs(
    models: Sequence[str],
    runs: Path,
    *,
    tasks: Sequence[str] | None,
    questions: Sequence[str],
    examples: Sequence[str],
    harness: str | None,
    harness_folder: Path | None,
    shots: int | None,
    name: str | None,
    settings: Mapping[str, Any],
    metrics: Sequence[str] = (),
    evictions: Sequence[QaEviction | None] = (None,),
) -> list[QaConfig]:
    """Make the config of each model's evaluation; weights are read for their digest alone.

    Args:
        models: Names of models, as `find_model` takes them.
        runs: The folder of runs.
        tasks: The sets of questions; None for the user's own, for those of memx without any, or for none if there are
            tasks of lm-eval.
        questions: Files or folders of questions, each NAME=PATH.
        examples: Files or folders of training questions, each NAME=PATH.
        harness: Tasks of lm-eval, with commas between them.
        harness_folder: A folder with more of those.
        shots: Examples in a prompt; None for the usual number, of own questions if there are training questions.
        name: The evaluation's name; None for one after the model's.
        settings: Further fields of `QaConfig`.
        metrics: Metrics of own questions, each METRIC for all or NAME=METRIC for one set.
        evictions: The policies that each model is evaluated with; None for the model itself.

    Returns:
        A config for each model and policy.

    Raises:
        MemxError: Something is not there, or does not fit the rest.
    """
    chosen = _harness(harness, harness_folder, shots)
    sets = qa_tasks(set_names(tasks, questions, harness=bool(chosen.tasks)), questions, examples, shots)
    for name_of_set in (task.name for task in sets if is_own(task.name)):
        if name_of_set in chosen.tasks:
            raise MemxError(f"--file and --harness both name {name_of_set}", hint="give the file another name")
    if shots is None:  # none of own questions have examples
        shots = SHOTS if not sets or any(task.examples.files or not is_own(task.name) for task in sets) else 0
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}", name):
        raise MemxError(
            f"--name {name!r} is not a valid folder name", hint="use letters and digits, and . _ + - after the first"
        )
    configs = []
    for model in dict.fromkeys(models):
        place = find_model(model, runs)
        about = {
            "model": place.source,
            "sha256": weights_digest(place.source),
            "run": None if place.run is None else str(place.run),
            "tasks": sets,
            "shots": shots,
            "metrics": own_metrics(metrics, [task.name for task in sets if is_own(task.name)]),
            "harness": chosen,
        }
        for eviction in evictions:
            label = _slug(place.label)
            usual = f"eval-{label}" if eviction is None else f"eval-{label[:40]}-{_policy_slug(eviction)}"
            configs.append(from_options(QaConfig, name=name or usual, eviction=eviction, **about, **settings))
    return configs


def own_metrics(given: Sequence[str], own: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Find the metrics of the user's own sets.

    Args:
        given: From `--metric`, each METRIC for all own sets or NAME=METRIC for one.
        own: Their names.

    Returns:
        The metrics by set, without sets that have the usual ones.

    Raises:
        MemxError: There is no such metric or set.
    """
    if given and not own:
        raise MemxError(
            "--metric is for your own questions: the metrics of other sets are fixed",
            hint="name a file of your own: --file mine=questions.jsonl",
        )
    found: dict[str, list[str]] = {name: [] for name in own}
    for text in given:
        name, equals, metric = text.rpartition("=")
        if equals and name not in own:
            fixed = f"the metrics of {name} are fixed" if name in TASKS else f"no question file {name!r}"
            raise MemxError(f"--metric {text}: {fixed}", hint=nearest(name, own) or f"use {', '.join(own)}")
        for one in [name] if equals else own:
            found[one].append(metric_name(metric))
    chosen = {name: tuple(dict.fromkeys(metrics)) for name, metrics in found.items()}
    return {name: metrics for name, metrics in chosen.items() if metrics and metrics != METRICS}


def label_of(config: QaConfig) -> str:
    """The name of the evaluated model in tables: that of the evaluation, without its policy.

    Args:
        config: The evaluation.
    """
    label = config.name.removeprefix("eval-")
    return label if config.eviction is None else label.removesuffix(f"-{_policy_slug(config.eviction)}")


def _policy_slug(eviction: QaEviction) -> str:
    """A policy and its budget as a part of a folder's name."""
    name = _slug(Path(eviction.namm).name if eviction.namm else short_name(str(eviction.policy)))[-24:].lstrip("-.")
    budget = eviction.budget
    return name if budget is None else name + (f"-{budget:.0f}t" if budget > 1 else f"-{100 * budget:g}")


def _harness(names: str | None, folder: Path | None, shots: int | None) -> HarnessConfig:
    tasks = tuple(dict.fromkeys(part.strip() for part in (names or "").split(",") if part.strip()))
    if names is not None and not tasks:
        raise MemxError("--harness has no task names", hint="for example --harness piqa,hellaswag")
    if folder is None:
        return from_options(HarnessConfig, {"tasks": "--harness"}, tasks=tasks, shots=shots if tasks else None)
    if not tasks:
        raise MemxError("--harness-tasks needs --harness", hint="name the tasks to run: --harness TASK,TASK")
    if not folder.is_dir():
        raise MemxError(f"--harness-tasks: no folder {folder}", hint="give a folder of YAML task files")
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    settings = {"tasks": tasks, "folder": str(folder.resolve()), "sha256": digest(files), "shots": shots}
    return from_options(HarnessConfig, {"tasks": "--harness", "folder": "--harness-tasks"}, **settings)


def _slug(label: str) -> str:
    """A model's name as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+]+", "-", label).strip("-")[:60] or "model"
