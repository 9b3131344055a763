"""One run whole: what it is, how it stands, its settings, counts, scores, time, files, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...json_text import BadJson, parse_json
from ...results.labels import in_bytes
from ...results.store.resuming import resume_command
from ...results.store.rows import Row
from ...results.store.run_info import damaged, read_text
from ...results.store.runs import Run, run_config
from .answers import ANSWERS, NAMES, Answered, read_answers, wrong_answers
from .scores import Score, main_scores, worst_relations
from .settings import changed_settings

_FILES = {
    "config.yaml": "the whole config",
    "run.json": "status, versions, command, time",
    "rows.jsonl": "the scores",
    "environment.json": "device, versions, date",
    "metrics.jsonl": "values during the run",
    ANSWERS: "every question with the model's answer",
    "prompts.jsonl": "every prompt: what each policy kept and answered",
    "harness.jsonl": "results of lm-eval tasks",
    "samples.jsonl": "every answer of lm-eval tasks",
    "known.jsonl": "questions that the model answered before training",
    "checkpoint": "the trained model",
    "namm": "the evolved NAMM",
    "state": "what --resume continues from",
    "tokenizer.json": "the tokenizer",
    "tokenizer": "the tokenizer",
    "leaderboard": "answers to RULER's tasks",
}


class File(NamedTuple):
    """A file or folder of a run: its bytes, and what it is."""

    name: str
    size: int
    about: str


class RunView(NamedTuple):
    """What `memx show` shows of a run.

    Attributes:
        run: The run.
        command: The command that made it, such as train.
        facts: What it is, how it stands, time and hardware, by name.
        preset: The preset that its settings are compared with; empty if there is none.
        settings: Key, value of the preset and value of the run, where they differ.
        counts: What was trained, held out and asked.
        scores: Of whole sets.
        relations: The relations with the lowest scores.
        wrong: Some wrong answers.
        files: Of the folder.
        resume: The command that continues it; empty if it is finished.
        next: Commands that make sense now.
    """

    run: Run
    command: str
    facts: dict[str, str]
    preset: str
    settings: list[tuple[str, Any, Any]]
    counts: dict[str, int]
    scores: list[Score]
    relations: list[Score]
    wrong: list[Answered]
    files: list[File]
    resume: str
    next: list[str]


def view_run(run: Run, *, wrong: int = 5, relations: int = 10) -> RunView:
    """Read everything that is shown of a run.

    Args:
        run: The run.
        wrong: How many wrong answers.
        relations: How many relations.

    Raises:
        MemxError: A file of it is damaged.
    """
    config, rows, info = run_config(run), run.rows(), run.info()
    command = str(config.get("command") or "train") if info else "bench"
    info = info or _benchmark(run.folder)
    answers = read_answers(run.folder)
    preset, settings = changed_settings(run)
    resume = resume_command(run) if run.status in ("interrupted", "failed") else ""
    return RunView(
        run=run,
        command=command,
        facts=_facts(run, config, rows, info),
        preset=preset,
        settings=settings,
        counts=_counts(info, rows),
        scores=main_scores(rows),
        relations=worst_relations(rows, relations),
        wrong=wrong_answers(answers, wrong),
        files=_files(run.folder),
        resume=resume,
        next=_next(run, command, bool(rows), str(config.get("trains") or ""), answers),
    )


def as_json(view: RunView) -> dict[str, Any]:
    """The view as plain data.

    Args:
        view: The view.
    """
    info = view.run.info()
    return {
        "run": view.run.name,
        "folder": str(view.run.folder),
        "command": view.command,
        "status": view.run.status,
        "step": view.run.step(),
        "info": info,
        "preset": view.preset,
        "settings": [{"key": key, "preset": old, "run": new} for key, old, new in view.settings],
        "counts": view.counts,
        "scores": [score.row.model_dump() for score in view.scores],
        "worst_relations": [score.row.model_dump() for score in view.relations],
        "wrong_answers": [answer._asdict() for answer in view.wrong],
        "files": [file._asdict() for file in view.files],
        "resume": view.resume,
        "next": view.next,
    }


def _facts(run: Run, config: Mapping[str, Any], rows: list[Row], info: Mapping[str, Any]) -> dict[str, str]:
    first = rows[0] if rows else None
    facts = {"about": str(config.get("about") or ""), "command": str(info.get("command") or "")}
    facts["status"] = "saved benchmark" if run.status == "empty" else _status(run, config, info)
    if first is not None and run.status != "empty":
        parts = [first.model, "" if first.kind in ("eviction", "namm") else first.variant or first.kind]
        parts += [f"{first.memory_slots:,} slots"] if first.memory_slots else []
        parts += [f"{first.parameters_total:,} parameters"] if first.parameters_total else []
        facts["model"] = ", ".join(part for part in parts if part)
    facts["experiment"] = run.experiment if run.experiment != run.name else ""
    facts["seed"] = str(info.get("seed", config.get("seed", "")))
    facts["time"] = _time(info)
    hardware = [
        str(info.get("device") or ""),
        f"{info['threads']} thread{'s' * (info['threads'] > 1)}" if info.get("threads") else "",
    ]
    hardware += [f"peak memory {in_bytes(info['peak_bytes'])}"] if info.get("peak_bytes") else []
    facts["hardware"] = ", ".join(part for part in hardware if part)
    packages = ", ".join(f"{name} {found}" for name, found in (info.get("packages") or {}).items() if found)
    memx = f"memx {info['memx']} ({info.get('commit') or 'no commit'})" if info.get("memx") else ""
    facts["versions"] = ", ".join(part for part in (memx, packages) if part)
    return {name: text for name, text in facts.items() if text}


def _status(run: Run, config: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    status, step = run.status, run.step()
    steps = (config.get("training") or {}).get("steps") if isinstance(config.get("training"), Mapping) else None
    of = f" of {steps:,}" if isinstance(steps, int) and status != "finished" else ""
    text = f"{status}, step {step:,}{of}" if step else status
    return f"{text}: {info['error']}" if info.get("error") else text


def _benchmark(folder: Path) -> dict[str, Any]:
    """What environment.json of `memx bench --save` says, by the names of run.json; empty if there is none."""
    text = read_text(folder / "environment.json")
    if text is None:
        return {}
    try:
        found = parse_json(text)
    except BadJson as error:
        raise damaged(folder / "environment.json", error.reason) from None
    return {**found, "device": f"{found.get('device')}, {found.get('processor')}", "started": found.get("date")}


def _time(info: Mapping[str, Any]) -> str:
    parts = []
    if info.get("seconds"):
        parts.append(f"{info['seconds']:,.0f} s")
        parts += [f"{info['tokens'] / info['seconds']:,.0f} tokens/s"] if info.get("tokens") else []
    parts += [f"started {str(info['started'])[:16].replace('T', ' ')} UTC"] if info.get("started") else []
    return ", ".join(parts)


def _counts(info: Mapping[str, Any], rows: list[Row]) -> dict[str, int]:
    """What was trained and held out, if the run says so, and how many questions of each set were asked."""
    counts = {}
    for key, words in (("facts_trained", "facts trained"), ("facts_held_out", "facts held out")):
        if isinstance(info.get(key), int):
            counts[words] = info[key]
    for row in rows:
        if row.metric == "exact_match" and not row.labels.relation and "/" not in row.dataset:
            counts[f"{NAMES.get(row.dataset, row.dataset)} questions"] = row.n
    return counts


def _files(folder: Path) -> list[File]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        size = (
            sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
            if path.is_dir()
            else path.stat().st_size
        )
        found.append(File(path.name + ("/" if path.is_dir() else ""), size, _FILES.get(path.name, "")))
    return found


def _next(run: Run, command: str, finished: bool, trains: str, answers: Sequence[Answered]) -> list[str]:
    folder = run.folder
    if not finished:
        return [f"memx plot loss {folder}"] if command == "train" and run.metrics() else []
    if command == "bench":
        return [f"memx plot ops {folder}", f"memx bench compare {folder} OTHER"]
    if command == "evolve-namm":
        return [f"memx plot evolution {folder}", f"memx eval-namm {folder}"]
    if command == "eval-namm":
        return [f"memx plot namm {folder}"]
    if command == "eval":
        return [f"memx plot qa {folder}"]
    if trains:
        return [f"memx eval-namm --host {trains}:{folder}"]
    question = next((one.question for one in answers), "")
    asked = [f"memx ask {folder} {shlex.quote(question)}"] if question else []
    return [*asked, f"memx plot loss {folder}", f"memx eval {folder} --file nq=nq_open"]
