"""`memx evolve-namm`: config -> a run folder with a NAMM that was evolved on a host, and rows on what it is worth.

The state is saved after each generation; a run that goes on from it, after a kill in mid-generation too, ends
bit-identical, on the same machine and number of threads, to one that was never stopped.
"""

from __future__ import annotations

import shutil

import torch

from ...namm.evolution.files import RECORD
from ...results.store.rows import Row
from ...results.store.runs import Run, RunStore
from ..config.base import run_name, to_yaml
from ..config.eviction.evolution import EvolveConfig
from ..distributed.process_group import World, join
from ..distributed.rank_errors import LostRank
from ..runtime.events import Note, Report
from ..runtime.lifecycle import note_new_run, recorded_run
from ..runtime.malloc import keep_freed_memory
from ..runtime.options import Options
from ..runtime.signals import stop_on_signals
from ..runtime.threads import restored_threads, run_threads
from .loop import EvolutionRun, Result
from .rows import result_rows


def evolve_namm(config: EvolveConfig, options: Options, report: Report) -> list[Row]:
    """Evolve in the config's run folder, to the end; a finished run is kept when resuming.

    The processes of torchrun share out the work: all step the same evolution, rank 0 writes and reports. The trajectory
    is the same to the bit at any number of ranks of the same number of threads.

    Args:
        config: what to evolve, on what.
        options: the folder of all runs, and whether to resume or start anew.
        report: gets the events of rank 0.

    Returns:
        The rows, on every rank.

    Raises:
        MemxError: a folder exists or is in use, a base model cannot be had, and so on.
        Interrupted: on a stop.
    """
    with join(config.host.device) as world:
        report = report if world.is_first else lambda event: None
        store, name = RunStore(options.runs), run_name(config)
        with world.claimed(store, name, resume=options.resume, force=options.force) as run:
            if options.resume:
                world.on_first(lambda: note_new_run(store, name, config, report))
            finished = world.on_first(lambda: _finished(run) if options.resume else None)
            if finished is not None:
                report(Note("already finished"))
                return finished
            return _evolve(config, options, run, report, world)


def _evolve(config: EvolveConfig, options: Options, run: Run, report: Report, world: World) -> list[Row]:
    """Evolve in a claimed run folder, and record in it how that ended."""
    record = run.folder / "state" / RECORD
    began = record.is_file()
    with recorded_run(run, keeps=lambda: began or record.is_file(), plain=LostRank), restored_threads():
        torch.set_num_threads(world.on_first(lambda: _begin(config, run, report, world)))
        keep_freed_memory()
        with stop_on_signals() as stop:
            evolution = EvolutionRun(config, run, options.runs, report, stop, world)
            result = evolution.evolve()
        rows = world.on_first(lambda: _save_result(evolution, result))
    world.on_first(lambda: _finish(run, rows, result))
    return rows


def _save_result(evolution: EvolutionRun, result: Result) -> list[Row]:
    """The rows of an evolution, which the card of its NAMM shows too."""
    rows = result_rows(evolution, result)
    evolution.save_namm(result.outcome.mean, rows)
    return rows


def _finish(run: Run, rows: list[Row], result: Result) -> None:
    run.finish(rows, generations=result.generations, answer=result.outcome.generation, reason=result.outcome.reason)
    _drop_state(run)


def _finished(run: Run) -> list[Row] | None:
    """The rows of a finished run, without the state that a kill in `_finish` may have left; None of another run."""
    if run.status != "finished":
        return None
    _drop_state(run)
    return run.rows()


def _drop_state(run: Run) -> None:
    """Remove what a run resumes from: of a finished one the NAMM is what is left to keep."""
    shutil.rmtree(run.folder / "state", ignore_errors=True)


def _begin(config: EvolveConfig, run: Run, report: Report, world: World) -> int:
    """Record that a run starts or resumes; the threads of each rank: those that it began with, and so its bits."""
    threads = run_threads(config.host.threads, run.info(), torch.get_num_threads(), report)
    about = {"experiment": run.name, "seed": config.seed, "device": config.host.device}
    run.begin(to_yaml(config), {**about, "threads": threads, "ranks": world.size})
    return threads
