"""What `memx eval` is told -> where the model, the questions and the examples are: files with digests, or the hub.

No torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MemxError, nearest
from ..config.question_answering import SHOTS, TASKS, TITLES, HarnessConfig, QaConfig, QaFiles, QaTask
from ..data.long_context.rows import HubData, read_rows
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
_WEIGHTS = ("*.safetensors", "*.json")


class ModelSource(NamedTuple):
    """What `load_host` is to load, what tables call it, and the run folder of memx train that it is of."""

    source: str
    label: str
    run: Path | None = None


def find_model(name: str, runs: Path) -> ModelSource:
    """Where a model is: a run of memx train (its folder, or its name below `runs`), a checkpoint, or another name.

    Raises MemxError for a run without a checkpoint. Whether another name is a model, `load_host` says.
    """
    path = Path(name).expanduser()
    folder = path if path.is_dir() else runs / name
    if (folder / "run.json").is_file():
        if not (folder / "checkpoint" / "config.json").is_file():
            raise MemxError(f"the run {folder} has no checkpoint", hint="`memx train` ends with one; --resume goes on")
        return ModelSource(str(folder / "checkpoint"), folder.resolve().name, folder)
    whole = path.resolve()
    if path.is_dir() and whole.name == "checkpoint" and (whole.parent / "run.json").is_file():
        return ModelSource(str(path), whole.parent.name, whole.parent)
    return ModelSource(name, whole.name if path.is_dir() else name)


def eval_configs(
    models: Sequence[str],
    runs: Path,
    *,
    tasks: Sequence[str] | None,
    asked: Sequence[str],
    examples: Sequence[str],
    harness: str | None,
    harness_folder: Path | None,
    shots: int | None,
    name: str | None,
    settings: Mapping[str, Any],
) -> list[QaConfig]:
    """A config for each model, from what the command line says; settings: fields of `QaConfig` as they are.

    Raises MemxError for what is not there or does not fit together; weights are read for their digest alone.
    """
    chosen = _harness(harness, harness_folder, shots)
    names = tasks if tasks is not None else () if chosen.tasks else TASKS
    sets = qa_tasks(names, asked, examples, SHOTS if shots is None else shots)
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}", name):
        raise MemxError(f"--name {name!r} is no name for a folder", hint="use letters, digits, and ._+- between them")
    configs = []
    for model in dict.fromkeys(models):
        found = find_model(model, runs)
        configs.append(
            QaConfig(
                name=name or f"eval-{_slug(found.label)}",
                model=found.source,
                sha256=weights_digest(found.source),
                run=None if found.run is None else str(found.run),
                tasks=sets,
                shots=SHOTS if shots is None else shots,
                harness=chosen,
                **settings,
            )
        )
    return configs


def _harness(names: str | None, folder: Path | None, shots: int | None) -> HarnessConfig:
    tasks = tuple(dict.fromkeys(part.strip() for part in (names or "").split(",") if part.strip()))
    if names is not None and not tasks:
        raise MemxError("--harness names no task", hint="for example --harness piqa,hellaswag")
    if folder is None:
        return HarnessConfig(tasks=tasks, shots=shots if tasks else None)
    if not tasks:
        raise MemxError("--harness-tasks needs --harness, which says what of it is run")
    if not folder.is_dir():
        raise MemxError(f"--harness-tasks: there is no folder {folder}", hint="give a folder of YAML files")
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return HarnessConfig(tasks=tasks, folder=str(folder.resolve()), sha256=digest(files), shots=shots)


def _slug(label: str) -> str:
    """A model's name as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+]+", "-", label).strip("-")[:60] or "model"


def weights_digest(source: str) -> str:
    """The digest of a folder's weights and config; empty for a name that is no folder."""
    folder = Path(source).expanduser()
    return digest(path for kind in _WEIGHTS for path in folder.glob(kind)) if folder.is_dir() else ""


def digest(paths: Iterable[Path]) -> str:
    """The SHA-256 of files, by their names. Raises MemxError for one that cannot be read."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        try:
            with path.open("rb") as file:
                whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise MemxError(
                f"cannot read {path}: {error.strerror or error}", hint="give a file that is there"
            ) from None
    return whole.hexdigest()


def qa_tasks(names: Sequence[str], asked: Sequence[str], examples: Sequence[str], shots: int) -> tuple[QaTask, ...]:
    """The sets of questions that `--task`, `--file` and `--train` say.

    asked, examples: NAME=PATH, where a folder is searched for files by their published names. Raises MemxError for an
    unknown name, a path that is not there, a folder without questions, and for shots from files that are not given.
    """
    given, drawn = _by_name(asked, "--file"), _by_name(examples, "--train")
    for name in names:
        _check_name(name, "--task")
    for name in (*given, *drawn):
        if name not in names:
            raise MemxError(f"--file and --train speak of {name}, which is not asked", hint=f"add --task {name}")
    tasks = []
    for name in dict.fromkeys(names):
        files = [path for place in given.get(name, []) for path in _found(place, _ASKED[name], TITLES[name])]
        folders = drawn.get(name) or [place for place in given.get(name, []) if place.is_dir()]
        more = [path for place in folders for path in _found(place, _EXAMPLES[name], TITLES[name])] if shots else []
        if files and shots and not more:
            raise MemxError(
                f"{shots} shots of {TITLES[name]} are drawn from training questions, and no file of them is given",
                hint=f"--train {name}=PATH, or --shots 0",
            )
        tasks.append(QaTask(name=_name(name), asked=_files(files), examples=_files(more)))
    return tuple(tasks)


def load_questions(task: QaTask, what: str) -> list[QaQuestion]:
    """The questions of a set, from its files or the hub. what: asked or examples."""
    files: QaFiles = getattr(task, what)
    if files.files:
        return read_questions([Path(path) for path in files.files])
    repository, part = _HUB[task.name]
    arguments: Mapping[str, str] = {"split": _SPLITS[what]} | ({"name": part} if part else {})
    only = f" --include '{part}/*'" if part else ""
    place = repository.rpartition("/")[2]
    offline = f"where it can be, run: hf download {repository} --repo-type dataset{only} --local-dir {place}; "
    hub = HubData(repository, repository, arguments, f"{offline}then --file {task.name}={place}")
    return questions_of(read_rows(None, TITLES[task.name], hub), repository)


def _by_name(given: Sequence[str], flag: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise MemxError(f"{flag} {text!r} is not NAME=PATH", hint=f"for example {flag} nq=NQ-open.dev.jsonl")
        _check_name(name, flag)
        place = Path(path).expanduser()
        if not place.exists():
            raise MemxError(f"{flag}: there is no file or folder {path}", hint="check the path")
        found.setdefault(name, []).append(place)
    return found


def _check_name(name: str, flag: str) -> None:
    if name not in TASKS:
        hint = nearest(name, TASKS) or f"use {', '.join(TASKS)}; --harness runs the tasks of lm-eval"
        raise MemxError(f"{flag}: no questions {name!r}", hint=hint)


def _name(name: str):
    return "nq" if name == "nq" else "tqa"


def _found(place: Path, patterns: Sequence[str], title: str) -> list[Path]:
    """A file itself; of a folder, the files that fit the first pattern that any fits."""
    if place.is_file():
        return [place]
    for pattern in patterns:
        if files := sorted(path for path in place.glob(pattern) if path.is_file()):
            return files
    raise MemxError(f"the folder {place} holds no {title}", hint=f"it would be {' or '.join(patterns)}")


def _files(paths: Sequence[Path]) -> QaFiles:
    return QaFiles(files=tuple(str(path.resolve()) for path in paths), sha256=digest(paths)) if paths else QaFiles()
