"""Published benchmarks -> the same examples as memx's own tasks, with their prompts and metrics.

LongBench, LongBench v2, InfiniteBench, RULER and ZeroSCROLLS. Rows come from a local file or folder in the benchmark's
published format, or from the hub through `datasets`. Prompts stand in the .yaml files beside this one, as published
with the evaluation scripts; the rows of RULER and ZeroSCROLLS hold whole prompts. Where the rows stand on the hub
could not be tried while this was written: give a folder if that has changed.
"""

from __future__ import annotations

import re
from typing import Any

from ....errors import MemxError
from .example import Example
from .rows import HubData, RowFormat, entry_of, from_prompt, read_rows, task_table

LONGBENCH, INFINITEBENCH, RULER = "zai-org/LongBench", "xinrongzhang2022/InfiniteBench", "simonjegou/ruler"
LONGBENCH_V2, ZEROSCROLLS = "THUDM/LongBench-v2", "tau/zero_scrolls"
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
_V2 = _FETCH.format(LONGBENCH_V2, "longbench-v2", "use the folder longbench-v2")
_ZIPS = _FETCH.format(ZEROSCROLLS, "zero_scrolls", "unzip its .zip files there, and use the folder zero_scrolls")
_LABELLED = "use the rows of the split validation: those of the split test may lack answers"
_INDICES = ("document_start_index", "document_end_index", "query_start_index", "query_end_index")
_WRITE = "generate the files with the scripts of github.com/NVIDIA/RULER and use their folder"
_REREAD = f"download the data again from {ZEROSCROLLS}"
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
    form = RowFormat("longbench", ("context", "input", "answers"), {"answers"}, entry["metric"])
    rows = read_rows(source, task, hub, form, limit=limit)
    return [
        from_prompt(f"longbench/{task}", entry, row, row["answers"], classes=tuple(row.get("all_classes") or ()))
        for row in rows
    ]


def infinitebench(task: str, source: str | None = None, *, limit: int | None = None) -> list[Example]:
    """The examples of an InfiniteBench task. Raises MemxError for an unknown task or rows that cannot be had."""
    entry = entry_of("InfiniteBench", task, task_table("infinitebench.yaml"))
    file = f"hf://datasets/{INFINITEBENCH}/{task}.jsonl"
    hub = HubData(INFINITEBENCH, "json", {"data_files": file, "split": "train"}, _DOWNLOAD)
    entry = {**entry, "metric": f"{task}_score"}
    form = RowFormat("infinitebench", ("context", "input", "answer"), {"answer"}, entry["metric"])
    rows = read_rows(source, task, hub, form, limit=limit)
    return [_of_infinitebench(task, entry, row) for row in rows]


def ruler(task: str, source: str | None = None, *, length: int = 4096, limit: int | None = None) -> list[Example]:
    """The examples of a RULER task, of files that its scripts write (`input`, `outputs`) or of rows already split.

    length: tokens of the prompts, for the hub. Raises MemxError for an unknown task or rows that cannot be had.
    """
    entry_of("RULER", task, dict.fromkeys(RULER_TASKS))
    entry = task_table("ruler.yaml")[task.partition("_")[0]]
    hub = HubData(RULER, RULER, {"name": str(length), "split": "test"}, _WRITE)
    rows = read_rows(source, task, hub, RowFormat("ruler"))
    chosen = [row for row in rows if row.get("task", task) == task][:limit]
    if not chosen:
        raise MemxError(f"{source or RULER} has no rows of task {task}", hint=_WRITE)
    return [_of_ruler(task, entry, row) for row in chosen]


def longbench_v2(task: str, source: str | None = None, *, limit: int | None = None) -> list[Example]:
    """The examples of LongBench v2: all of them, or those of a difficulty, length or domain.

    Raises MemxError for an unknown task or rows that cannot be had.
    """
    entry = task_table("longbench_v2.yaml")
    wanted = entry_of("LongBench v2", task, entry["tasks"])
    hub = HubData(LONGBENCH_V2, LONGBENCH_V2, {"split": "train"}, _V2)
    choices = [f"choice_{letter}" for letter in _LETTERS]
    columns = ("context", "question", *choices, "answer", *wanted)
    rows = read_rows(source, "data", hub, RowFormat("longbench-v2", columns, {"answer"}))
    chosen = [row for row in rows if all(row[column] == value for column, value in wanted.items())][:limit]
    if not chosen:
        raise MemxError(f"{source or LONGBENCH_V2} has no rows of task {task}", hint="check the file or folder")
    return [_of_longbench_v2(task, entry, row) for row in chosen]


def zeroscrolls(task: str, source: str | None = None, *, limit: int | None = None) -> list[Example]:
    """The examples of a ZeroSCROLLS task; rows with the same input are one example with several answers.

    Raises MemxError for an unknown task or rows that cannot be had.
    """
    entry = entry_of("ZeroSCROLLS", task, task_table("zeroscrolls.yaml"))
    file = f"zip://{task}/validation.jsonl::hf://datasets/{ZEROSCROLLS}/{task}.zip"
    hub = HubData(ZEROSCROLLS, "json", {"data_files": file, "split": "train"}, _ZIPS)
    form = RowFormat(
        "zeroscrolls",
        ("input", *_INDICES),
        {"output"},
        entry["metric"],
        files=("{}/validation", "{}"),
        unanswered=_LABELLED,
    )
    rows = read_rows(source, task, hub, form)
    answers: dict[str, list[str]] = {}
    for row in rows:
        answers.setdefault(row["input"], []).extend(row["output"])
    first = {row["input"]: row for row in reversed(rows)}
    return [_of_zeroscrolls(task, entry, first[text], answers[text]) for text in [*answers][:limit]]


def _of_longbench_v2(task: str, entry: dict[str, Any], row: dict[str, Any]) -> Example:
    letter = row["answer"][0].strip()
    if letter not in tuple(_LETTERS):
        raise MemxError(f"LongBench v2: the answer {letter[:20]!r} is not one of A, B, C and D", hint="correct the row")
    values = {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}
    return from_prompt(f"longbench-v2/{task}", entry, values, [f"The correct answer is ({letter})"])


def _of_zeroscrolls(task: str, entry: dict[str, Any], row: dict[str, Any], answers: list[str]) -> Example:
    text, places = row["input"], [row[name] for name in _INDICES]
    start, end = places[:2]
    if not all(type(one) is int and 0 <= one <= len(text) for one in places) or start >= end:
        raise MemxError(f"ZeroSCROLLS {task}: the indices of a row are not places of its input", hint=_REREAD)
    context, question = text[:end], text[end:]
    prompt = {**entry, "prompt": "{context}{rest}", "lead": "" if question[-1:].isspace() else " "}
    return from_prompt(f"zeroscrolls/{task}", prompt, {"context": context, "rest": question}, answers)


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
