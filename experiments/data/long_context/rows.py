"""Rows of a published benchmark: a local file or folder, or the Hugging Face hub -> dictionaries of checked texts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import Any

import yaml

from ....errors import MemxError, nearest
from ....hub import gated, quick_hub
from ...metrics.registry import misfit
from ..records.read import ENDINGS, read_records
from ..records.record import BadRecord, BadRecords, Record
from ..records.values import NotText, text_of
from .example import Example

_TEXTS = {"context", "input", "question", "answer_prefix", *(f"choice_{letter}" for letter in "ABCD")}
_UNANSWERED = "no answers"
_ANSWERS = frozenset({"answers", "answer", "outputs", "output"})


@dataclass(frozen=True)
class HubData:
    """Where rows are on the hub, and what to do where it cannot be reached."""

    repository: str
    path: str  # with `arguments`, what `datasets.load_dataset` is called with
    arguments: Mapping[str, Any]
    offline: str


@dataclass(frozen=True)
class RowFormat:
    """Where the rows of a benchmark's tasks are in a folder, and what each must have.

    Attributes:
        benchmark: The subfolder that is searched first, however it is spelt, such as zero_scrolls for zeroscrolls.
        columns: Columns that no row may lack.
        answers: Columns of which one must have answers.
        metric: What scores the answers, by its name in `METRICS`; empty if it scores any.
        files: The files of a task, without their ending; the first that is there is read.
        unanswered: What helps where rows have no answers.
    """

    benchmark: str
    columns: Sequence[str] = ()
    answers: Collection[str] = _ANSWERS
    metric: str = ""
    files: Sequence[str] = ("{}", "data/{}", "{}/validation")
    unanswered: str = ""


def read_rows(
    source: str | None, name: str, hub: HubData, form: RowFormat, *, limit: int | None = None
) -> list[dict[str, Any]]:
    """The first `limit` rows of a task: of `source`, a file or a folder that holds `<name>.jsonl`, or of the hub.

    Raises MemxError if they are not there, cannot be reached, are malformed, lack one of the columns, hold what is
    neither text nor a number where text belongs, or have answers that the metric cannot score.
    """
    path = None if source is None else _file(Path(source).expanduser(), name, form)
    records = hub_records(hub) if path is None else read_records(path)
    bad = BadRecords(path or hub.repository)
    found: list[dict[str, Any]] = []
    for record in bad.good(islice(records, limit)):
        row = _checked(record, form)
        if isinstance(row, BadRecord) and row.reason.startswith(_UNANSWERED):
            bad.advice = form.unanswered
        bad.add(row) if isinstance(row, BadRecord) else found.append(row)
    bad.notes(skip=False)
    if not found:
        raise MemxError(f"{source or hub.repository} has no rows of {name}", hint="check the file or folder")
    return found


@cache
def task_table(file: str) -> dict[str, dict[str, Any]]:
    """The tasks of a benchmark, from the YAML file beside this one."""
    return yaml.safe_load(Path(__file__).with_name(file).read_text("utf-8"))


def entry_of(benchmark: str, task: str, table: Mapping[str, Any]) -> Any:
    """The entry of a task. Raises MemxError, with the nearest name, if there is none."""
    if task not in table:
        raise MemxError(f"{benchmark} has no task {task!r}", hint=nearest(task, table) or f"use {', '.join(table)}")
    return table[task]


def from_prompt(
    task: str, entry: Mapping[str, Any], values: Mapping[str, Any], answers: Iterable[str], **more
) -> Example:
    """An example of a prompt with {context} and other columns; what follows the context is the question."""
    before, after = entry["prompt"].split("{context}")
    before, after = before.format(**values), after.format(**values)
    text = before + str(values["context"])
    # tokenizers part words at the end of the text; blanks there belong to the question
    kept = text.rstrip() if after[:1].isspace() else text
    if not kept.strip():
        raise MemxError(f"{task}: a row has an empty context", hint="remove the row")
    return Example(
        task,
        kept,
        text[len(kept) :] + after,
        tuple(answers),
        entry["metric"],
        lead=entry.get("lead", " "),
        max_new_tokens=entry["max_new_tokens"],
        stop=tuple(entry.get("stop", ())),
        **more,
    )


def _file(path: Path, name: str, form: RowFormat) -> Path:
    if path.is_dir():
        own = sorted(one for one in path.iterdir() if one.is_dir() and _letters(one.name) == _letters(form.benchmark))
        for folder, file, ending in product((*own, path), form.files, (".jsonl", *ENDINGS)):
            if (found := folder / f"{file.format(name)}{ending}").is_file():
                return found
        raise MemxError(f"the folder {path} has no {name}.jsonl", hint="give the folder of the benchmark's files")
    if not path.is_file():
        raise MemxError(f"no file or folder {path}", hint="give an existing .jsonl file, or a folder of them")
    return path


def _letters(name: str) -> str:
    """A folder's name as it is compared: in lower case, without what parts words."""
    return name.lower().replace("_", "").replace("-", "")


def _checked(record: Record, form: RowFormat) -> dict[str, Any] | BadRecord:
    """The row of a record, its texts as text and its answers as a list of texts."""
    row, column = dict(record.values), ""
    if missing := [name for name in form.columns if row.get(name) is None]:
        return BadRecord(record.place, f"no {', '.join(missing)}")
    try:
        for column in _TEXTS & row.keys():
            row[column] = _text(row[column]) or ""
        for column in _ANSWERS & row.keys():
            row[column] = [text for one in _listed(row[column]) if (text := _text(one)) is not None]
    except NotText as error:
        return BadRecord(record.place, f"{column} is not text: {error}")
    found = [row[column] for column in form.answers if row.get(column)]
    if not found:
        where = f" in the column {next(iter(form.answers))}" if len(form.answers) == 1 else ""
        return BadRecord(record.place, _UNANSWERED + where)
    if form.metric and (answer := _misfit(form.metric, found[0])) is not None:
        return BadRecord(record.place, f"the metric {form.metric} cannot score the answer {answer[:40]!r}")
    return row


def _misfit(metric: str, answers: Sequence[str]) -> str | None:
    """An answer that the metric cannot score. A metric whose package is missing is not tried: it says so when used."""
    try:
        return misfit(metric, answers)
    except MemxError:
        return None


def _text(value: Any) -> str | None:
    """Text as it is, a number as a person would write it, None where there is neither. Raises NotText for the rest."""
    return value if isinstance(value, str) else text_of(value, most=None)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def hub_records(hub: HubData) -> Iterator[Record]:
    """The rows of a data set on the hub. Raises MemxError if it cannot be reached."""
    with _explained(hub):
        datasets: Any = import_module("datasets")
        with quick_hub():
            rows: Any = datasets.load_dataset(hub.path, **hub.arguments)
        for number, row in enumerate(rows, start=1):
            yield Record(f"row {number}", dict(row))


@contextmanager
def _explained(hub: HubData) -> Iterator[None]:
    """Turn what `datasets` raises into one line that says what to run."""
    try:
        yield
    except ImportError:
        raise MemxError(
            f"reading {hub.repository} needs the package datasets", hint="pip install 'memx[data]'"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if "gated" in said.lower():
            raise gated(f"data set {hub.repository}", f"datasets/{hub.repository}") from None
        raise MemxError(
            f"cannot load {hub.repository} from the Hugging Face hub: {said[:120]}",
            hint=hub.offline,
        ) from None
