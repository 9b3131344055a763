"""The run store: one folder per run, `<name>-<hash of the whole config>`, never overwritten, owned by one process.

A run folder holds config.yaml, run.json, metrics.jsonl (appended), rows.jsonl (at the end), checkpoint/ and, until
it is finished, state/ to resume from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ...errors import MemxError
from ...files import cannot_write, make_folder, write_atomically
from .environment import environment
from .json_lines import JsonLines
from .rows import Row, read_rows, write_rows

Status = Literal["finished", "interrupted", "running", "failed", "empty"]


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
        """How the run stands, as its run.json says; `running` only while a process owns the folder."""
        try:
            status = json.loads((self.folder / "run.json").read_text("utf-8")).get("status", "empty")
        except (OSError, json.JSONDecodeError):
            return "empty"
        return "interrupted" if status == "running" and not is_owned(self.folder) else status

    def info(self) -> dict[str, Any]:
        """What run.json says; empty if there is none."""
        try:
            return json.loads((self.folder / "run.json").read_text("utf-8"))
        except (OSError, json.JSONDecodeError):
            return {}

    @property
    def experiment(self) -> str:
        """The experiment that the run is a point of: what its rows say, or its own name."""
        return str(self.info().get("experiment") or self.name)

    def rows(self) -> list[Row]:
        """The rows found, none before the run is finished."""
        path = self.folder / "rows.jsonl"
        return read_rows(path) if path.is_file() else []

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

    def discard(self) -> None:
        """Remove what a run wrote that never began, so that the corrected one can start."""
        _empty(self.folder)

    def append_metrics(self, **metrics: Any) -> None:
        """Append one line to metrics.jsonl."""
        self._metrics.append(metrics)

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; a last line that a kill cut off is left out."""
        return self._metrics.lines()

    def rewind_metrics(self, step: int) -> None:
        """Drop the metrics after a step, which a resumed run will produce again."""
        self._metrics.write(line for line in self.metrics() if line["step"] <= step)

    def _write_info(self, info: dict[str, Any]) -> None:
        write_atomically(self.folder / "run.json", json.dumps(info, indent=2) + "\n")


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

    def rewind_metrics(self, step: int) -> None:
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
        """Return all runs, sorted by name."""
        if not self.root.is_dir():
            return []
        return [Run(path) for path in sorted(self.root.iterdir()) if (path / "run.json").is_file()]

    @contextmanager
    def claim(self, name: str, *, resume: bool = False, force: bool = False) -> Iterator[Run]:
        """Own a run's folder while the block runs; an empty one is removed at its end.

        Args:
            name: The folder's name.
            resume: Take a folder that holds a run already, as it is.
            force: Empty such a folder first.

        Yields:
            The run, which no other process can claim meanwhile.

        Raises:
            MemxError: The folder holds a run and neither is set, another process owns it, or it cannot be written.
        """
        from filelock import FileLock, Timeout

        folder = self.root / name
        make_folder(folder)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=1)  # `memx runs` may hold it for a moment
        except Timeout:
            raise MemxError(
                f"run {name} is in use by another process", hint="wait for that process to finish, or stop it"
            ) from None
        except OSError as error:
            raise cannot_write(folder, error) from None
        try:
            self.check_free(name, resume=resume, force=force)
            if force:
                _empty(folder)
            yield Run(folder)
        finally:
            lock.release()
            if not _content(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def has_content(self, name: str) -> bool:
        """Whether the folder of that name holds anything, so that a new run is refused there."""
        return bool(_content(self.root / name))

    def check_free(self, name: str, *, resume: bool = False, force: bool = False) -> None:
        """Raise MemxError if a run of that name is there and may be neither resumed nor started anew."""
        folder = self.root / name
        if self.has_content(name) and not resume and not force:
            raise MemxError(
                f"run folder {folder} exists",
                hint="use --resume to continue (or keep) it, --force to delete it and start over",
            )


def is_owned(folder: Path) -> bool:
    """Whether a process owns a run folder now."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").exists():
        return False
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def run_config(run: Run) -> dict[str, Any]:
    """The config of a run; empty if it cannot be read."""
    import yaml

    try:
        config = yaml.safe_load((run.folder / "config.yaml").read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != ".lock"] if folder.is_dir() else []


def _empty(folder: Path) -> None:
    for path in _content(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
