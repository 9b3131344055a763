"""LongBench, InfiniteBench and RULER -> the same examples as memx's own tasks, with their prompts and metrics.

Rows come from a local .jsonl file or folder in the benchmark's published format, or from the hub through `datasets`.
The prompts stand in longbench.yaml and infinitebench.yaml, as published with their evaluation scripts; RULER's files
hold whole prompts. Where the rows stand on the hub could not be tried while this was written: give a folder if that
has changed.
"""

from __future__ import annotations

import re
from typing import Any

from ....errors import MemxError
from .example import Example
from .rows import HubData, entry_of, from_prompt, read_rows, task_table

LONGBENCH, INFINITEBENCH, RULER = "zai-org/LongBench", "xinrongzhang2022/InfiniteBench", "simonjegou/ruler"
RULER_TASKS = (
    *(f"niah_single_{i}" for i in (1, 2, 3)),
    *(f"niah_multikey_{i}" for i in (1, 2, 3)),
    *("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
)
_FETCH = "on a machine with internet, run: hf download {} --repo-type dataset --local-dir {}; then {}"
_UNPACK = _FETCH.format(
    f"{LONGBENCH} data.zip", "longbench", "unzip longbench/data.zip -d longbench, and use the folder longbench"
)
_DOWNLOAD = _FETCH.format(INFINITEBENCH, "infinitebench", "use the folder infinitebench")
_WRITE = "generate the files with the scripts of github.com/NVIDIA/RULER and use their folder"
_REPLACE = f"download the data again from {INFINITEBENCH}"
_CALL = re.compile(r"func_[0-9]+\(-?[0-9]+\)")
_LETTERS = "ABCD"


def longbench(task: str, source: str | None = None, *, limit: int | None = None) -> list[Example]:
    """The examples of a LongBench task; a name that ends in `_e` is of LongBench-E.

    Raises MemxError for an unknown task or rows that cannot be had.
    """
    entry = entry_of("LongBench", task.removesuffix("_e"), task_table("longbench.yaml"))
    archive = f"zip://data/{task}.jsonl::hf://datasets/{LONGBENCH}/data.zip"
    hub = HubData(LONGBENCH, "json", {"data_files": archive, "split": "train"}, _UNPACK)
    rows = read_rows(source, task, hub, limit=limit, columns=("context", "input", "answers"))
    return [
        from_prompt(f"longbench/{task}", entry, row, row["answers"], classes=tuple(row.get("all_classes") or ()))
        for row in rows
    ]


def infinitebench(task: str, source: str | None = None, *, limit: int | None = None) -> list[Example]:
    """The examples of an InfiniteBench task. Raises MemxError for an unknown task or rows that cannot be had."""
    entry = entry_of("InfiniteBench", task, task_table("infinitebench.yaml"))
    file = f"hf://datasets/{INFINITEBENCH}/{task}.jsonl"
    hub = HubData(INFINITEBENCH, "json", {"data_files": file, "split": "train"}, _DOWNLOAD)
    rows = read_rows(source, task, hub, limit=limit, columns=("context", "input", "answer"))
    entry = {**entry, "metric": f"{task}_score"}
    return [_of_infinitebench(task, entry, row) for row in rows]


def ruler(task: str, source: str | None = None, *, length: int = 4096, limit: int | None = None) -> list[Example]:
    """The examples of a RULER task, of files that its scripts write (`input`, `outputs`) or of rows already split.

    length: tokens of the prompts, for the hub. Raises MemxError for an unknown task or rows that cannot be had.
    """
    entry_of("RULER", task, dict.fromkeys(RULER_TASKS))
    entry = task_table("ruler.yaml")[task.partition("_")[0]]
    hub = HubData(RULER, RULER, {"name": str(length), "split": "test"}, _WRITE)
    rows = read_rows(source, task, hub)
    chosen = [row for row in rows if row.get("task", task) == task][:limit]
    if not chosen:
        raise MemxError(f"{source or RULER} has no rows of task {task}", hint=_WRITE)
    return [_of_ruler(task, entry, row) for row in chosen]


def _of_infinitebench(task: str, entry: dict[str, Any], row: dict[str, Any]) -> Example:
    answers = row["answer"]
    options = row.get("options") or []
    values = {**row, **dict(zip(_LETTERS, options, strict=False))}
    if task in ("longbook_choice_eng", "code_debug"):
        if answers[0] not in options:
            raise MemxError(f"InfiniteBench {task}: the answer {answers[0]!r} is not an option", hint=_REPLACE)
        answers = [_LETTERS[options.index(answers[0])], answers[0]]
    if task == "code_run":
        calls = _CALL.findall(row["input"])
        if not calls:
            raise MemxError("InfiniteBench code_run: a row has no call such as func_1(2)", hint=_REPLACE)
        values |= {"func_call": calls[0], "func": calls[0].partition("(")[0]}
    return from_prompt(f"infinitebench/{task}", entry, values, answers)


def _of_ruler(task: str, entry: dict[str, Any], row: dict[str, Any]) -> Example:
    lead = row.get("answer_prefix") or ""
    if "context" in row:
        context, question, answers = row["context"], row.get("question", ""), row.get("answer") or row.get("outputs")
    else:
        text, answers = row.get("input", ""), row.get("outputs")
        place = text.rfind(entry["question"])
        if place < 0:
            raise MemxError(
                f"RULER {task}: a row has no question that starts with {entry['question'].strip()!r}", hint=_WRITE
            )
        context, question = text[:place], text[place:]
    if not answers:
        raise MemxError(f"RULER {task}: a row has no answers", hint=_WRITE)
    prompt = {**entry, "prompt": "{context}{rest}", "lead": "" if (question + lead)[-1:].isspace() else " "}
    return from_prompt(f"ruler/{task}", prompt, {"context": context, "rest": question + lead}, answers, prefix=lead)
