"""Rows and runs of files, run folders and folders of them; what is damaged in a folder is named and left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import MemxError
from .store.rows import Row, extra, read_rows
from .store.run_info import is_run
from .store.runs import Run, RunStore

_OF_POLICIES = ("eviction", "decision", "video")  # kinds of rows that are about policies at sizes of the cache
T = TypeVar("T")
U = TypeVar("U")


def collect_rows(sources: Sequence[Path], log: Callable[[str], None] = lambda text: None) -> list[Row]:
    """The rows of files (`*rows.jsonl`) and of finished runs below folders, each once, the last started run last.

    Args:
        sources: Files, run folders and folders of either.
        log: Gets a line for each damaged run or file of a folder, which is left out.

    Raises:
        MemxError: A source is not there, or one that is itself a file or a run is damaged.
    """
    rows: list[Row] = []
    for source in sources:
        if source.is_file():
            rows += read_rows(source)
        elif files := [] if is_run(source) else sorted(source.glob("*rows.jsonl")):
            rows += [row for one in _sound(files, read_rows, log) for row in one]
        else:
            for run in collect_runs([source], log):
                if not (found := run.rows()) and run.status == "finished":
                    log(f"left out: {run.folder} is finished, but has no rows.jsonl")
                rows += found
    return list({_identity(row): row for row in rows}.values())


def _identity(row: Row) -> tuple[object, ...]:
    """What a row is about, and by which run."""
    names = (
        ("budget", "size", "mode", "question", "length", "layer", "token_kind", "rival", "beside")
        if row.kind in _OF_POLICIES
        else ()
    )
    point = (row.run, row.model, row.kind, row.memory_slots, row.dataset, row.metric, row.variant)
    return (*point, row.seed, extra(row, "after_part"), *(extra(row, name) for name in names))


def collect_runs(sources: Sequence[Path], log: Callable[[str], None] = lambda text: None) -> list[Run]:
    """The runs that folders are or hold, by the time they started.

    Args:
        sources: Run folders and folders of runs.
        log: Gets a line for each damaged run of a folder, which is left out.

    Raises:
        MemxError: A source is not there, or is itself a damaged run.
    """
    runs: list[Run] = []
    for source in sources:
        if is_run(source):
            runs.append(_checked(Run(source)))
        elif not source.exists():
            raise MemxError(f"nothing at {source}", hint="give a run folder, a folder of runs or a file of rows")
        elif not source.is_file():  # a file of rows has no runs
            found = RunStore(source).runs()
            runs += _sound(found, _checked, log)
    return sorted(runs, key=lambda run: (str(run.info().get("started")), run.name))


def _checked(run: Run) -> Run:
    run.check()
    return run


def _sound(items: Sequence[T], read: Callable[[T], U], log: Callable[[str], None]) -> list[U]:
    """What is read of each item that is not damaged. Raises MemxError if it is the only one."""
    if len(items) == 1:
        return [read(items[0])]
    found = []
    for item in items:
        try:
            found.append(read(item))
        except MemxError as error:
            log(f"left out: {error.message}")
    return found
