"""The sets of questions of an evaluation: `--task`, `--file` and `--train` -> files with digests -> questions.

A set is nq or tqa, from its published files or the hub, or questions of the user's own under any name. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import MemxError, nearest
from ..config.question_answering import SHOTS, TASKS, QaConfig, QaFiles, QaTask, check_set_name, is_own, title_of
from ..data.long_context.rows import HubData, hub_records
from ..metrics.registry import check_metric
from .model_source import digest
from .prompt import not_asked, sample
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
_OWN_ASKED = tuple(f"{split}{end}" for split in ("test", "validation", "dev") for end in (".jsonl", ".json", ".csv"))
_OWN_ASKED += ("**/test-*.parquet", "**/validation-*.parquet")
_OWN_EXAMPLES = ("train.jsonl", "train.json", "train.csv", "**/train-*.parquet")
_HUB = {"nq": ("google-research-datasets/nq_open", None), "tqa": ("mandarjoshi/trivia_qa", "rc.nocontext")}
_SPLITS = {"asked": "validation", "examples": "train"}


class Sets(NamedTuple):
    """The questions of a set that are asked, those that examples are drawn from, and all of its accepted answers."""

    task: QaTask
    questions: list[QaQuestion]
    examples: list[QaQuestion]
    classes: tuple[str, ...] = ()


def set_names(tasks: Sequence[str] | None, questions: Sequence[str], *, harness: bool) -> list[str]:
    """Find which sets are evaluated.

    Args:
        tasks: From `--task`; None if none is named.
        questions: From `--file`, each NAME=PATH.
        harness: Whether tasks of lm-eval are evaluated.

    Returns:
        The named sets with the user's own; without names those of `--file` if some are own, or else nq and tqa, or
        none next to lm-eval.

    Raises:
        MemxError: A name is no set.
    """
    given = [*_by_name(questions, "--file")]
    own = [name for name in given if is_own(name)]
    for name in tasks or ():
        if name not in (*TASKS, *own):
            use = f"use {', '.join(TASKS)}, --file {name}=PATH for your own questions, or --harness for lm-eval's tasks"
            raise MemxError(f"--task: no question set {name!r}", hint=nearest(name, (*TASKS, *own)) or use)
    if tasks is not None:
        return [*dict.fromkeys([*tasks, *own])]
    return given if own else [] if harness else [*TASKS]


def qa_tasks(
    names: Sequence[str], questions: Sequence[str], examples: Sequence[str], shots: int | None
) -> tuple[QaTask, ...]:
    """Find the files of sets of questions.

    Args:
        names: The sets, from `set_names`.
        questions: From `--file`, each NAME=PATH; a folder is searched for files by their published names.
        examples: From `--train`, in the same form.
        shots: Examples in a prompt; without any, no files of examples are needed. None: the usual number, of own
            questions where there are files of examples.

    Returns:
        The sets; one without files comes from the hub.

    Raises:
        MemxError: A name is unknown, a path is not there, a folder has no questions, or files of examples are missing.
    """
    given, drawn = _by_name(questions, "--file"), _by_name(examples, "--train")
    for name in (*given, *drawn):
        if name not in names:
            add = f"--file {name}=PATH" if is_own(name) else f"--task {name}"
            raise MemxError(f"--file or --train names {name}, which is not evaluated", hint=f"add {add}")
    wanted, tasks = SHOTS if shots is None else shots, []
    for name in dict.fromkeys(names):
        files = [path for place in given.get(name, []) for path in _files_of(place, _ASKED.get(name, _OWN_ASKED), name)]
        folders = drawn.get(name) or [place for place in given.get(name, []) if place.is_dir()]
        patterns, optional = _EXAMPLES.get(name, _OWN_EXAMPLES), is_own(name) and shots is None and name not in drawn
        more = (
            [path for place in folders for path in _files_of(place, patterns, name, optional=optional)]
            if wanted
            else []
        )
        if files and wanted and not more and not (is_own(name) and shots is None):
            raise MemxError(
                f"{title_of(name)}: no file of training questions to take {wanted} few-shot examples from",
                hint=f"give one with --train {name}=PATH, or use --shots 0",
            )
        tasks.append(QaTask(name=name, asked=_files(files), examples=_files(more)))
    return tuple(tasks)


def read_sets(config: QaConfig, notes: Callable[[str], None] = lambda text: None) -> list[Sets]:
    """Read the questions of all sets.

    Args:
        config: The evaluation.
        notes: Called with what was noticed.

    Returns:
        The sets, each with its questions that are evaluated and those that examples are drawn from.

    Raises:
        MemxError: Files are not as published, the hub is out of reach, there are fewer examples than shots, or a metric
            cannot score the answers.
    """
    return [read_set(config, task, notes) for task in config.tasks]


def read_set(config: QaConfig, task: QaTask, notes: Callable[[str], None] = lambda text: None) -> Sets:
    """Read the questions of a set. Raises MemxError as `read_sets` does."""

    def load(what: str) -> list[QaQuestion]:
        return load_questions(task, what, skip_bad_rows=config.skip_bad_rows, notes=notes)

    everything, shots = load("asked"), config.shots_of(task)
    examples = not_asked(load("examples"), everything) if shots else []
    if len(examples) < shots:
        raise MemxError(
            f"{title_of(task.name)}: only {len(examples)} training questions for {shots} few-shot examples "
            "(evaluated questions are excluded)",
            hint=f"give more with --train {task.name}=PATH, or lower --shots",
        )
    asked = sample(everything, config.limit, config.seed)
    accepted = (answer for question in everything for answer in question.answers)
    classes = tuple(dict.fromkeys(accepted)) if is_own(task.name) else ()
    for metric in config.metrics.get(task.name, ()):
        for question in asked:
            check_metric(metric, question.answers)
    return Sets(task, asked, examples, classes)


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
        paths, own = [Path(path) for path in files.files], is_own(task.name)
        return read_questions(paths, contexts=own, skip_bad_rows=skip_bad_rows, notes=notes)
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
            raise MemxError(f"{flag} {text!r} is not NAME=PATH", hint=_named(flag, text))
        try:
            check_set_name(name)
        except ValueError as error:
            reason, _, hint = str(error).partition("; ")
            raise MemxError(f"{flag}: {reason}", hint=hint) from None
        place = Path(path).expanduser()
        if not place.exists():
            raise MemxError(f"{flag}: no file or folder {path}", hint="check the path")
        if name in paths and is_own(name):
            raise MemxError(f"{flag} names {name} twice", hint="give each file a name that no other has")
        paths.setdefault(name, []).append(place)
    return paths


def _named(flag: str, text: str) -> str:
    """The hint for a file without a name, or a name without a file."""
    if text in TASKS:
        return f"for example {flag} {text}=PATH"
    return f"give the file a name: {flag} mine={text if Path(text).suffix else 'questions.jsonl'}"


def _files_of(place: Path, patterns: Sequence[str], name: str, *, optional: bool = False) -> list[Path]:
    """A file itself; of a folder, the files that fit the first pattern that any fits, or none if they are optional."""
    if place.is_file():
        return [place]
    for pattern in patterns:
        if files := sorted(path for path in place.glob(pattern) if path.is_file()):
            return files
    if optional:
        return []
    raise MemxError(f"the folder {place} has no files of {title_of(name)}", hint=f"expected {' or '.join(patterns)}")


def _files(paths: Sequence[Path]) -> QaFiles:
    return QaFiles(files=tuple(str(path.resolve()) for path in paths), sha256=digest(paths)) if paths else QaFiles()
