"""`memx train decision` and `memx train video`: configs -> a run folder each, with a trained host and its rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from ...results.store.rows import Row
from ...results.store.runs import Run, RunStore
from ..checkpoints.states import saved_states
from ..config.base import to_yaml
from ..config.hosts.kinds import KINDS, HostPoint
from ..runtime.events import Phase, Report, SweepReport
from ..runtime.lifecycle import RunFailed, note_new_run, recorded_run
from ..runtime.options import Options
from ..runtime.processes import run_pool
from ..runtime.signals import Interrupted, StopRequest, stop_on_signals


class TrainHost(Protocol):
    """What the module `run` of a kind's folder has under the name `train_host`."""

    def __call__(self, config: Any, run: Run, options: Options, report: Report, stop: StopRequest) -> list[Row]:
        """Train in a claimed run folder, from its newest state on, and export to `checkpoint/`.

        Args:
            config: The kind's config.
            run: The run, which has begun.
            options: Where runs are; data that several runs share lies beside them.
            report: Called with the progress.
            stop: Whether somebody asked to stop.

        Returns:
            The rows.
        """
        ...


def train_hosts(points: Sequence[HostPoint], options: Options, report: SweepReport) -> dict[str, list[Row]]:
    """Train every run that is not finished.

    Args:
        points: The runs.
        options: Where runs go; how many are trained at once.
        report: Gets (index of the run, event).

    Returns:
        The rows by run.

    Raises:
        MemxError: A folder exists or is in use, or an extra is missing; before anything is trained.
        Interrupted: On a stop.
    """
    store = RunStore(options.runs)
    for point in points:
        store.check_free(point.name, resume=options.resume, force=options.force)
        _module(point, "cost").check_environment(point.config)
    jobs = min(options.jobs, len(points))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tasks = [partial(train_point, point, options, max(1, cores // jobs)) for point in points]
    if jobs > 1:
        run_pool(tasks, jobs, report)
    else:
        _one_by_one(points, tasks, report)
    return {point.name: store.run(point.name).rows() for point in points}


def train_point(point: HostPoint, options: Options, threads: int, report: Report, stop: StopRequest) -> None:
    """Train one run in its folder; a finished one is kept when resuming."""
    import torch

    from ..runtime.threads import restored_threads, run_threads

    store = RunStore(options.runs)
    with store.claim(point.name, resume=options.resume, force=options.force) as run:
        if options.resume and run.status == "finished":
            report(Phase("already finished"))
            return
        if options.resume:
            note_new_run(store, point.name, point.config, report)
        training = point.config.training
        threads = run_threads(training.threads, run.info(), threads, report)
        state = run.folder / "state"
        with recorded_run(run, keeps=lambda: bool(saved_states(state))), restored_threads():
            torch.set_num_threads(threads)
            about = {"experiment": point.name, "seed": point.config.seed, "device": training.device}
            run.begin(to_yaml(point.config), {**about, "threads": threads})
            train: TrainHost = _module(point, "run").train_host
            rows = train(point.config, run, options, report, stop)
        run.finish(rows, steps=training.steps)
        report(Phase("finished"))


def cost_of(point: HostPoint, options: Options) -> dict[str, Any]:
    """What a run would be, for a dry run: names and numbers in the order in which they are shown."""
    return _module(point, "cost").cost_of(point.config, options)


def _module(point: HostPoint, name: str) -> Any:
    """`run` or `cost` of the folder of a kind."""
    return import_module(f"...{KINDS[point.config.trains].folder}.{name}", __name__)


def _one_by_one(points: Sequence[HostPoint], tasks: Sequence[partial[None]], report: SweepReport) -> None:
    failed: list[RunFailed] = []
    with stop_on_signals() as stop:
        for index, task in enumerate(tasks):
            if stop.asked:
                raise Interrupted(f"stopped before {points[index].name}")
            try:
                task(partial(report, index), stop)
            except RunFailed as error:  # of this run alone: the others are trained all the same
                failed.append(error)
    if failed:
        raise failed[0]
