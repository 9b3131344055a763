"""Rows of a published benchmark: a local JSONL file or folder, or the Hugging Face hub -> dictionaries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ....errors import MemxError, nearest
from ....files import line_not_utf8
from ...runtime.hub import gated, quick_hub
from .example import Example


@dataclass(frozen=True)
class HubData:
    """Where rows are on the hub, and what to do where it cannot be reached."""

    repository: str
    path: str  # with `arguments`, what `datasets.load_dataset` is called with
    arguments: Mapping[str, Any]
    offline: str


def read_rows(
    source: str | None, name: str, hub: HubData, *, limit: int | None = None, columns: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The first `limit` rows of a task: of `source`, a .jsonl file or a folder that holds `<name>.jsonl`, or the hub.

    Raises MemxError if they are not there, cannot be reached, are malformed, or lack one of the columns.
    """
    rows = _hub_rows(hub) if source is None else _local_rows(_file(Path(source).expanduser(), name))
    found: list[dict[str, Any]] = []
    for number, row in enumerate(islice(rows, limit), start=1):
        if missing := [column for column in columns if column not in row]:
            raise MemxError(
                f"{source or hub.repository} row {number} has no {', '.join(missing)}",
                hint=f"give rows with {', '.join(columns)}",
            )
        found.append(row)
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
    task: str, entry: Mapping[str, Any], values: Mapping[str, Any], answers: Iterable[Any], **more
) -> Example:
    """An example of a prompt with {context} and other columns; what follows the context is the question."""
    before, after = entry["prompt"].split("{context}")
    before, after = before.format(**values), after.format(**values)
    text = before + str(values["context"])
    # tokenizers part words at the end of the text; blanks there belong to the question
    kept = text.rstrip() if after[:1].isspace() else text
    return Example(
        task,
        kept,
        text[len(kept) :] + after,
        tuple(str(answer) for answer in answers),
        entry["metric"],
        lead=entry.get("lead", " "),
        max_new_tokens=entry["max_new_tokens"],
        stop=tuple(entry.get("stop", ())),
        **more,
    )


def _file(path: Path, name: str) -> Path:
    if path.is_dir():
        for candidate in (path / f"{name}.jsonl", path / "data" / f"{name}.jsonl", path / name / "validation.jsonl"):
            if candidate.is_file():
                return candidate
        raise MemxError(f"the folder {path} has no {name}.jsonl", hint="give the folder of the benchmark's files")
    if not path.is_file():
        raise MemxError(f"no file or folder {path}", hint="give an existing .jsonl file, or a folder of them")
    return path


def _local_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise MemxError(
                            f"{path} line {number} is not a JSON object", hint='write one {"…": …} per line'
                        )
                    yield row
    except json.JSONDecodeError as error:
        raise MemxError(f"{path}: a line is not JSON ({error.msg})", hint='write one {"…": …} per line') from None
    except UnicodeDecodeError:
        raise MemxError(f"{path} line {line_not_utf8(path)} is not UTF-8", hint="save the file as UTF-8") from None
    except OSError as error:
        raise MemxError(
            f"cannot read {path}: {error.strerror or error}", hint="check the path and its permissions"
        ) from None


def _hub_rows(hub: HubData) -> Iterator[dict[str, Any]]:
    with _explained(hub):
        datasets: Any = import_module("datasets")
        with quick_hub():
            rows: Any = datasets.load_dataset(hub.path, **hub.arguments)
        yield from map(dict, rows)


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
