"""A sweep: a config's points, each a run of its own folder, one after another or several processes at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...errors import MemxError
from ...results.store.rows import Row
from ...results.store.runs import RunStore
from ..config.points import Point
from ..config.training import TrainConfig
from ..distributed.process_group import World, join, launched
from ..distributed.refusals import check_parallelism
from ..runtime.events import Phase, Report, SweepReport
from ..runtime.lifecycle import RunFailed, note_new_run
from ..runtime.options import Options
from ..runtime.processes import run_pool
from ..runtime.signals import Interrupted, StopRequest, stop_on_signals
from .lengthen import find_start, start_from_shorter

Build = Callable[..., Any]  # as `build.build_trainer`, which brings torch


def train_points(
    planned: Sequence[Point], options: Options, report: SweepReport, build: Build | None = None
) -> dict[str, list[Row]]:
    """Train every point that is not finished.

    Args:
        planned: The points, as `config.points.plan` gives them.
        options: Where runs go; how many points are trained at once.
        report: Gets (index of the point, event). Of torchrun's processes each reports; what the first need not know
            too is a note marked `own`.
        build: Puts together what a run trains with, in place of `build.build_trainer`.

    Returns:
        The rows by run.

    Raises:
        MemxError: A folder exists, is in use, and so on; before anything is trained.
        Interrupted: On a stop.
    """
    if any(point.config.finetune.source for point in planned):
        from ..models.pretrained import check_start  # brings torch

        for point in planned:
            check_start(point.config)
    world = launched()
    if world.size > 1:
        _shared(planned, options, report, build)
    else:
        _alone(planned, options, report, build)
    store = RunStore(options.runs)
    return {point.name: store.run(point.name).rows() for point in planned}


def _check(planned: Sequence[Point], options: Options, check: Callable[[TrainConfig], None]) -> None:
    """Raise MemxError for the first point that must not begin."""
    for point in planned:
        check(point.config)
        store = RunStore(options.runs)
        store.check_free(point.name, resume=options.resume, force=options.force)
        if options.resume and options.lengthen:
            find_start(point.config, store.run(point.name))


def _alone(planned: Sequence[Point], options: Options, report: SweepReport, build: Build | None) -> None:
    _check(planned, options, lambda config: None)
    jobs = min(options.jobs, len(planned))
    threads = max(1, _cores() // jobs)
    tasks = [partial(train_point, point, options, threads, build=build) for point in planned]
    if jobs == 1:
        _one_by_one(planned, tasks, report, World())
    else:
        run_pool(tasks, jobs, report)


def _shared(planned: Sequence[Point], options: Options, report: SweepReport, build: Build | None) -> None:
    """Train the points one after another, each over all processes that torchrun started."""
    if options.jobs > 1:
        raise MemxError(
            "--jobs and torchrun exclude each other", hint="remove --jobs: torchrun's processes share every run"
        )
    with join(planned[0].config.training.device) as world:
        world.on_first(lambda: _check(planned, options, partial(check_parallelism, ranks=world.size)))
        threads = max(1, _cores() // world.local_size)
        tasks = [partial(train_point, point, options, threads, build=build, world=world) for point in planned]
        _one_by_one(planned, tasks, report, world)


def train_point(
    point: Point,
    options: Options,
    threads: int,
    report: Report,
    stop: StopRequest,
    world: World | None = None,
    build: Build | None = None,
) -> None:
    """Train one point in its folder; a finished one is kept when resuming, if its facts are still the same."""
    from .build import build_trainer  # brings torch
    from .run import check_facts, train

    world = world or World()
    store = RunStore(options.runs)
    with world.claimed(store, point.name, resume=options.resume, force=options.force) as run:
        if options.resume and world.on_first(lambda: run.status) == "finished":
            world.on_first(lambda: check_facts(point.config, run))
            report(Phase("already finished"))
            return
        if options.resume and options.lengthen:
            world.on_first(lambda: start_from_shorter(point.config, run, report))
            world.on_first(lambda: note_new_run(store, point.name, point.config, report))
        train(point.config, run, report, stop, threads, world, build or build_trainer)
        report(Phase("finished"))


def _one_by_one(planned: Sequence[Point], tasks: list[partial[None]], report: SweepReport, world: World) -> None:
    failed: list[RunFailed] = []
    with stop_on_signals() as stop:
        for index, task in enumerate(tasks):
            if world.any(stop.asked):
                raise Interrupted(f"stopped before {planned[index].name}")
            try:
                task(partial(report, index), stop)
            except RunFailed as error:  # of this run alone: the others are trained all the same
                failed.append(error)
    if failed:
        raise failed[0]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
