"""The arguments of `memx eval` -> a config for each model, with the files of questions and examples and their digests.

No torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import MemxError, nearest
from ...namm.plugins import short_name
from ..config.base import from_options
from ..config.question_answering import SHOTS, TASKS, TITLES, HarnessConfig, QaConfig, QaEviction, QaFiles, QaTask
from ..data.long_context.rows import HubData, hub_records
from .model_source import digest, find_model, weights_digest
from .questions import QaQuestion, questions_of, read_questions

# by their published names, the questions that results are reported on, and those that examples come from
_ASKED = {
    "nq": ("NQ-open.dev.jsonl", "**/validation-*.parquet", "validation.jsonl"),
    "tqa": ("**/unfiltered-web-dev.json", "**/rc.nocontext/validation-*.parquet", "**/validation-*.parquet",
            "validation.jsonl"),
}  # fmt: skip
_EXAMPLES = {
    "nq": ("NQ-open.train.jsonl", "**/train-*.parquet", "train.jsonl"),
    "tqa": ("**/unfiltered-web-train.json", "**/rc.nocontext/train-*.parquet", "**/train-*.parquet", "train.jsonl"),
}
_HUB = {"nq": ("google-research-datasets/nq_open", None), "tqa": ("mandarjoshi/trivia_qa", "rc.nocontext")}
_SPLITS = {"asked": "validation", "examples": "train"}


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
    evictions: Sequence[QaEviction | None] = (None,),
) -> list[QaConfig]:
    """Make the config of each model's evaluation; weights are read for their digest alone.

    Args:
        models: Names of models, as `find_model` takes them.
        runs: The folder of runs.
        tasks: The sets of questions; None for all, or for none if there are tasks of lm-eval.
        questions: Files or folders of questions, each NAME=PATH.
        examples: Files or folders of training questions, each NAME=PATH.
        harness: Tasks of lm-eval, with commas between them.
        harness_folder: A folder with more of those.
        shots: Examples in a prompt; None for the usual number.
        name: The evaluation's name; None for one after the model's.
        settings: Further fields of `QaConfig`.
        evictions: The policies that each model is evaluated with; None for the model itself.

    Returns:
        A config for each model and policy.

    Raises:
        MemxError: Something is not there, or does not fit the rest.
    """
    chosen = _harness(harness, harness_folder, shots)
    names = tasks if tasks is not None else () if chosen.tasks else TASKS
    sets = qa_tasks(names, questions, examples, SHOTS if shots is None else shots)
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
            "shots": SHOTS if shots is None else shots,
            "harness": chosen,
        }
        for eviction in evictions:
            label = _slug(place.label)
            usual = f"eval-{label}" if eviction is None else f"eval-{label[:40]}-{_policy_slug(eviction)}"
            configs.append(from_options(QaConfig, name=name or usual, eviction=eviction, **about, **settings))
    return configs


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
    return name if budget is None else f"{name}-{budget if budget > 1 else 100 * budget:g}{'t' * (budget > 1)}"


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


def qa_tasks(names: Sequence[str], questions: Sequence[str], examples: Sequence[str], shots: int) -> tuple[QaTask, ...]:
    """Find the files of sets of questions.

    Args:
        names: The sets, from `--task`.
        questions: From `--file`, each NAME=PATH; a folder is searched for files by their published names.
        examples: From `--train`, in the same form.
        shots: Examples in a prompt; without any, no files of examples are needed.

    Returns:
        The sets; one without files comes from the hub.

    Raises:
        MemxError: A name is unknown, a path is not there, a folder has no questions, or files of examples are missing.
    """
    given, drawn = _by_name(questions, "--file"), _by_name(examples, "--train")
    for name in names:
        _check_name(name, "--task")
    for name in (*given, *drawn):
        if name not in names:
            raise MemxError(f"--file or --train names {name}, which is not evaluated", hint=f"add --task {name}")
    tasks = []
    for name in dict.fromkeys(names):
        files = [path for place in given.get(name, []) for path in _question_files(place, _ASKED[name], TITLES[name])]
        folders = drawn.get(name) or [place for place in given.get(name, []) if place.is_dir()]
        more = (
            [path for place in folders for path in _question_files(place, _EXAMPLES[name], TITLES[name])]
            if shots
            else []
        )
        if files and shots and not more:
            raise MemxError(
                f"{TITLES[name]}: no file of training questions to take {shots} few-shot examples from",
                hint=f"give one with --train {name}=PATH, or use --shots 0",
            )
        tasks.append(QaTask(name=_name(name), asked=_files(files), examples=_files(more)))
    return tuple(tasks)


def load_questions(
    task: QaTask, what: str, *, skip_bad_rows: bool = False, notes: Callable[[str], None] = lambda text: None
) -> list[QaQuestion]:
    """Read the questions of a set from its files or the hub.

    Args:
        task: The set.
        what: "asked" for those that are evaluated, "examples" for those that examples are drawn from.
        skip_bad_rows: Whether to skip rows that are no answered questions, with a note.
        notes: Called with what was noticed.

    Returns:
        The questions.

    Raises:
        MemxError: A file is not as published, or the hub cannot be reached.
    """
    files: QaFiles = getattr(task, what)
    if files.files:
        return read_questions([Path(path) for path in files.files], skip_bad_rows=skip_bad_rows, notes=notes)
    repository, part = _HUB[task.name]
    arguments: Mapping[str, str] = {"split": _SPLITS[what]} | ({"name": part} if part else {})
    only = f" --include '{part}/*'" if part else ""
    place = repository.rpartition("/")[2]
    offline = (
        f"on a machine with internet, run: hf download {repository} --repo-type dataset{only} --local-dir {place}; "
    )
    hub = HubData(repository, repository, arguments, f"{offline}then use --file {task.name}={place}")
    return questions_of(hub_records(hub), repository, skip_bad_rows=skip_bad_rows, notes=notes)


def _by_name(given: Sequence[str], flag: str) -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise MemxError(f"{flag} {text!r} is not NAME=PATH", hint=_own_questions(flag, text))
        _check_name(name, flag, path)
        place = Path(path).expanduser()
        if not place.exists():
            raise MemxError(f"{flag}: no file or folder {path}", hint="check the path")
        paths.setdefault(name, []).append(place)
    return paths


def _own_questions(flag: str, path: str) -> str:
    """The hint for a file that has not the name of a set of questions."""
    return f"give a file of your own questions as nq: {flag} nq={path if Path(path).suffix else 'NQ-open.dev.jsonl'}"


def _check_name(name: str, flag: str, path: str = "") -> None:
    if name not in TASKS:
        other = _own_questions(flag, path) if path else f"use {', '.join(TASKS)}, or --harness for the tasks of lm-eval"
        hint = nearest(name, TASKS) or other
        raise MemxError(f"{flag}: no question set {name!r}", hint=hint)


def _name(name: str):
    return "nq" if name == "nq" else "tqa"


def _question_files(place: Path, patterns: Sequence[str], title: str) -> list[Path]:
    """A file itself; of a folder, the files that fit the first pattern that any fits."""
    if place.is_file():
        return [place]
    for pattern in patterns:
        if files := sorted(path for path in place.glob(pattern) if path.is_file()):
            return files
    raise MemxError(f"the folder {place} has no files of {title}", hint=f"expected {' or '.join(patterns)}")


def _files(paths: Sequence[Path]) -> QaFiles:
    return QaFiles(files=tuple(str(path.resolve()) for path in paths), sha256=digest(paths)) if paths else QaFiles()
