"""The run store: one folder per run, `<name>-<hash of the whole config>`, never overwritten, owned by one process.

A run folder holds config.yaml, run.json, metrics.jsonl (appended), rows.jsonl (at the end), checkpoint/ and, until
it is finished, state/ to resume from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ...files import write_atomically
from .claims import content, empty, has_replaced, is_owned, owned, replacing, settle
from .environment import environment
from .json_lines import JsonLines, without_null
from .row_checks import wrong_metrics
from .rows import Row, read_rows, write_rows
from .run_info import Status, damaged, is_run, read_config, read_file, read_info
from .saved import is_worth_keeping, saved_step


class Run:
    """The folder of one run.

    Args:
        folder: Path of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metrics = JsonLines(folder / "metrics.jsonl")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def status(self) -> Status:
        """How the run stands, as its run.json says; `running` only while a process owns the folder.

        Raises MemxError if run.json is damaged.
        """
        status = self.info().get("status", "empty")
        return "interrupted" if status == "running" and not is_owned(self.folder) else status

    def info(self) -> dict[str, Any]:
        """What run.json says; empty if there is none. Raises MemxError if it is damaged."""
        return read_info(self.folder)

    def check(self) -> None:
        """Raise MemxError naming the first file of the run that is damaged or cannot be read."""
        self.info()
        read_config(self.folder)
        self.metrics()
        self.rows()

    def step(self) -> int:
        """The step at which the run stands: where it ended, was last saved or, while it runs, was last logged.

        Raises MemxError if a file of the run is damaged.
        """
        info, status = self.info(), self.status
        logged = max((line["step"] for line in self.metrics()), default=0)
        if status == "finished":
            return int(info.get("steps") or info.get("generations") or logged)
        saved = saved_step(self.folder / "state")
        return logged if saved is None else max(saved, logged) if status == "running" else saved

    @property
    def experiment(self) -> str:
        """The experiment that the run is a point of: what its rows say, or its own name."""
        return str(self.info().get("experiment") or self.name)

    def rows(self) -> list[Row]:
        """The rows found, none before the run is finished. Raises MemxError for a damaged row, which it names."""
        path = self.folder / "rows.jsonl"
        return [] if read_file(path, read=False) is None else read_rows(path)

    def begin(self, config_yaml: str, info: dict[str, Any]) -> None:
        """Write config.yaml and run.json of a run that starts or goes on."""
        write_atomically(self.folder / "config.yaml", config_yaml)
        previous = self.info()
        started = previous.get("started", _now())
        self._write_info({**environment(), **info, "started": started, "status": "running"})

    def end(self, status: Status, **info: Any) -> None:
        """Record how the run ended; info is added to run.json."""
        self._write_info({**self.info(), **info, "ended": _now(), "status": status})

    def finish(self, rows: list[Row], **info: Any) -> None:
        """Write the rows and mark the run finished; info is added to run.json."""
        write_rows(self.folder / "rows.jsonl", rows)
        self.end("finished", **info)
        self._let_go()

    def discard(self) -> None:
        """Remove what a run wrote that never began, so that the corrected one can start."""
        empty(self.folder)

    def append_metrics(self, **metrics: Any) -> None:
        """Append one line to metrics.jsonl; a number that is not finite becomes null."""
        self._metrics.append(metrics)
        self._let_go()

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl, less what is null; a last line that a kill cut off is left out.

        Raises MemxError naming a line that is damaged.
        """
        lines = []
        for number, line in self._metrics.numbered():
            lines.append(without_null(line))
            if wrong := wrong_metrics(lines[-1]):
                raise damaged(self._metrics.path, f"line {number} is damaged: {wrong}")
        return lines

    def keep_answers(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write answers.jsonl, one answer a line, whole or not at all."""
        JsonLines(self.folder / "answers.jsonl").write(lines)

    def rewind_metrics(self, step: int, validations: int | None = None) -> None:
        """Drop the metrics after a step, which a resumed run will produce again.

        Args:
            step: The last step that stays.
            validations: How many of the lines with a validation stay, the first ones. None: all up to the step.
        """
        kept: list[dict[str, Any]] = []
        for line in self.metrics():
            if "validation" in line and validations is not None:
                validations -= 1
                if validations < 0:
                    break
            if line["step"] <= step:
                kept.append(line)
        self._metrics.write(kept)

    def _write_info(self, info: dict[str, Any]) -> None:
        write_atomically(self.folder / "run.json", json.dumps(info, indent=2, allow_nan=False) + "\n")

    def _let_go(self) -> None:
        """Remove the run that this one replaces, once this one is worth more."""
        if has_replaced(self.folder) and is_worth_keeping(self.folder):
            settle(self.folder, is_worth_keeping)


class WatchedRun(Run):
    """The same folder as another process sees it that takes part in the run and writes nothing."""

    def begin(self, config_yaml: str, info: dict[str, Any]) -> None:
        """Nothing: the owner writes."""

    def end(self, status: Status, **info: Any) -> None:
        """Nothing: the owner writes."""

    def finish(self, rows: list[Row], **info: Any) -> None:
        """Nothing: the owner writes."""

    def discard(self) -> None:
        """Nothing: the owner writes."""

    def append_metrics(self, **metrics: Any) -> None:
        """Nothing: the owner writes."""

    def keep_answers(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Nothing: the owner writes."""

    def rewind_metrics(self, step: int, validations: int | None = None) -> None:
        """Nothing: the owner writes."""


class RunStore:
    """The runs in a folder, such as `results/runs`.

    Args:
        root: Path of the folder.

    Example:
        ```python
        from pathlib import Path

        from memx.results import RunStore

        for run in RunStore(Path("results/runs")).runs():
            print(run.name, run.status, len(run.rows()))
        ```
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, name: str) -> Run:
        """Return the run of this folder name, which need not exist.

        Args:
            name: Name of the folder.

        Returns:
            The run.
        """
        return Run(self.root / name)

    def runs(self) -> list[Run]:
        """Return all runs, sorted by name; a damaged one too, which raises MemxError when it is read.

        Raises:
            MemxError: The folder cannot be read.
        """
        if self.root.is_file():
            raise MemxError(f"{self.root} is a file", hint="give a folder of runs")
        return [Run(path) for path in sorted(content(self.root)) if is_run(path)]

    @contextmanager
    def claim(self, name: str, *, resume: bool = False, force: bool = False) -> Iterator[Run]:
        """Own a run's folder while the block runs; an empty one is removed at its end.

        Args:
            name: The folder's name.
            resume: Take a folder that holds a run already, as it is.
            force: Replace such a run. It is kept until the new one has something to resume from, and comes back if
                the new one ends before, also by a kill.

        Yields:
            The run, which no other process can claim meanwhile.

        Raises:
            MemxError: The folder holds a run and neither is set, another process owns it, or it cannot be written.
        """
        folder = self.root / name
        busy = MemxError(f"run {name} is in use by another process", hint="wait for that process to finish, or stop it")
        with owned(folder, busy):
            settle(folder, is_worth_keeping)
            self.check_free(name, resume=resume, force=force)
            with replacing(folder, is_worth_keeping, force=force):
                yield Run(folder)

    def has_content(self, name: str) -> bool:
        """Whether the folder of that name holds anything, so that a new run is refused there."""
        return bool(content(self.root / name))

    def check_free(self, name: str, *, resume: bool = False, force: bool = False) -> None:
        """Raise MemxError if a run of that name is there and may be neither resumed nor started anew."""
        folder = self.root / name
        if self.has_content(name) and not resume and not force:
            raise MemxError(
                f"run folder {folder} exists",
                hint="use --resume to continue (or keep) it, --force to delete it and start over",
            )


def run_config(run: Run) -> dict[str, Any]:
    """The config of a run; empty if there is none. Raises MemxError if it is damaged."""
    return read_config(run.folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
