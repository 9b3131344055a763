"""A sweep: a config's points, each a run of its own folder, one after another or several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import queue
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import MemxError
from ..results.rows import Row
from ..results.store import RunStore
from .config import TrainConfig
from .settings import config_hash, points
from .stop import Interrupted, StopRequest, stop_on_signals

Report = Callable[[int, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Options:
    """Where runs go, and what to do with those that are there."""

    runs: Path
    resume: bool = False
    force: bool = False
    jobs: int = 1


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its folder's name and its config."""

    name: str
    config: TrainConfig


def plan(config: TrainConfig) -> list[Point]:
    """The points of a config with the names of their folders, `<name>-<hash of the whole config>`."""
    return [Point(f"{point.name}-{config_hash(point)}", point) for point in points(config)]


def train_all(config: TrainConfig, options: Options, report: Report) -> dict[str, list[Row]]:
    """Train every point that is not finished; returns the rows by run. report gets (index of the point, event).

    Raises MemxError (a folder exists, is in use, …) before anything is trained, and Interrupted on a stop.
    """
    planned = plan(config)
    store = RunStore(options.runs)
    for point in planned:
        _check(store, point, options)
    if options.jobs == 1 or len(planned) == 1:
        _one_by_one(planned, store, options, report)
    else:
        _several(planned, options, report)
    return {point.name: store.run(point.name).rows() for point in planned}


def train_point(
    point: Point, options: Options, report: Callable[[Mapping], None], stop: StopRequest, threads: int
) -> None:
    """Train one point in its folder; a finished one is kept when resuming."""
    store = RunStore(options.runs)
    with store.claim(point.name, resume=options.resume, force=options.force) as run:
        if options.resume and run.status == "finished":
            report({"phase": "finished before", "done": True})
            return
        from .train import train  # brings torch

        train(point.config, run, report, stop, threads)
        report({"phase": "finished", "done": True})


def _check(store: RunStore, point: Point, options: Options) -> None:
    folder = store.root / point.name
    if not (options.resume or options.force) and folder.is_dir() and any(p.name != ".lock" for p in folder.iterdir()):
        raise MemxError(f"run folder {folder} exists", hint="--resume continues or keeps it, --force starts it anew")


def _one_by_one(planned: list[Point], store: RunStore, options: Options, report: Report) -> None:
    with stop_on_signals() as stop:
        for index, point in enumerate(planned):
            if stop.asked:
                raise Interrupted(f"stopped before {point.name}")
            train_point(point, options, lambda event, index=index: report(index, event), stop, _cores())


def _several(planned: list[Point], options: Options, report: Report) -> None:
    """Run points in processes of their own, `jobs` at a time; the first failure stops the rest."""
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    waiting = list(enumerate(planned))
    running: dict[int, Any] = {}
    failure: BaseException | None = None
    threads = max(1, _cores() // options.jobs)
    with stop_on_signals() as stop:
        while running or (waiting and failure is None and not stop.asked):
            while waiting and len(running) < options.jobs and failure is None and not stop.asked:
                index, point = waiting.pop(0)
                running[index] = context.Process(target=_work, args=(index, point, options, threads, events))
                running[index].start()
            try:
                index, kind, event = events.get(timeout=0.2)
            except queue.Empty:
                failure = _reap(running, planned) or failure
                continue
            if kind == "event":
                report(index, event)
            else:
                running.pop(index).join()
                failure = failure or event
                if failure:
                    _stop(running)
        if stop.asked:
            raise Interrupted("stopped, states saved")
    if failure is not None:
        raise failure


def _work(index: int, point: Point, options: Options, threads: int, events: Any) -> None:
    """A worker process: trains a point and sends what happens."""

    def send(kind: Literal["event", "end"], event: Any) -> None:
        events.put((index, kind, event))

    with stop_on_signals() as stop:
        failure: BaseException | None = None
        try:
            train_point(point, options, lambda event: send("event", dict(event)), stop, threads)
        except (MemxError, Interrupted) as error:
            failure = error
        except KeyboardInterrupt:
            failure = Interrupted("stopped at once")
        except Exception as error:
            failure = RuntimeError(f"{point.name}: {type(error).__name__}: {error}\n{traceback.format_exc()}")
        send("end", failure)


def _reap(running: dict[int, Any], planned: list[Point]) -> RuntimeError | None:
    """Drop workers that died without a word, as by `kill -9`."""
    for index, process in list(running.items()):
        if process.exitcode not in (None, 0):
            running.pop(index)
            _stop(running)
            return RuntimeError(f"{planned[index].name}: its process died (exit {process.exitcode}); --resume goes on")
    return None


def _stop(running: dict[int, Any]) -> None:
    for process in running.values():
        process.terminate()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
