"""An evaluation on another host: config -> a run folder with what each policy did with each unit, and rows.

Results of each batch of units are appended as they come, so that a stopped run goes on after the last of them and ends
with the same rows.
"""

from __future__ import annotations

from math import isfinite
from time import perf_counter
from zlib import crc32

import torch

from ...results.store.json_lines import JsonLines
from ...results.store.rows import Row
from ...results.store.runs import Run, RunStore
from ..config.base import run_name, to_yaml
from ..config.eviction.universal_eval import UniversalEvalConfig
from ..other_hosts.measured import Measured
from ..policy_eval.run import load_source
from ..runtime.events import Note, Progress, Report
from ..runtime.lifecycle import RunFailed, note_new_run, recorded_run
from ..runtime.options import Options
from ..runtime.signals import Interrupted, StopRequest, stop_on_signals
from ..runtime.threads import restored_threads, run_threads
from .load import load_policy_host
from .policies import Line, lines, policy_of
from .rows import universal_rows

RESULTS = "units.jsonl"


def evaluate_on_host(config: UniversalEvalConfig, options: Options, report: Report) -> list[Row]:
    """Evaluate NAMMs and their rivals on a host, in the config's run folder.

    Args:
        config: The evaluation.
        options: Where runs are, and whether to resume or replace one that is there. A finished one is kept if resumed.
        report: Called with the progress.

    Returns:
        The rows.

    Raises:
        MemxError: The folder exists or is in use, or the host or a NAMM is not there or has changed.
        Interrupted: A signal asked for a stop; the batches that are done are saved.
    """
    store = RunStore(options.runs)
    with store.claim(run_name(config), resume=options.resume, force=options.force) as run:
        if options.resume:
            note_new_run(store, run.name, config, report)
        if options.resume and run.status == "finished":
            report(Note("already finished"))
            return run.rows()
        return _evaluate(config, options, run, report)


def _evaluate(config: UniversalEvalConfig, options: Options, run: Run, report: Report) -> list[Row]:
    """Evaluate in a claimed run folder, and record in it how that ended."""
    threads = run_threads(config.host.threads, run.info(), torch.get_num_threads(), report)
    results = JsonLines(run.folder / RESULTS)
    with recorded_run(run, keeps=lambda: bool(results.lines())), restored_threads(), stop_on_signals() as stop:
        torch.set_num_threads(threads)
        namms = [load_source(source) for source in config.namms]
        host = load_policy_host(config.host, options.runs, config.mode)
        about = {"experiment": run.name, "seed": config.seed, "device": host.device, "threads": threads}
        run.begin(to_yaml(config), about)
        done = {(line["variant"], line["budget"], line["units"][0]["unit"]) for line in results.rewind()}
        tasks = [(line, units) for line in lines(config) for units in batches(config)]
        if done:
            report(Note(f"resumed after {len(done)} of {len(tasks)} batches"))
        for number, (line, units) in enumerate(tasks, start=1):
            if (*line.key, units[0]) in done:
                continue
            _check(stop)
            start = perf_counter()
            policy = policy_of(line, config, namms, crc32(bytes([units[0] & 255]), config.seed))
            measured = host.measure(policy, units, lambda: _check(stop))
            _check_finite(measured, line)
            results.append({"variant": line.variant, "budget": line.budget, "units": [one.line() for one in measured]})
            report(Progress(number, len(tasks), line.variant, perf_counter() - start))
        rows = universal_rows(config, results.lines(), host, run.name)
    run.finish(rows)
    return rows


def batches(config: UniversalEvalConfig) -> list[range]:
    """The numbers of the units of each batch."""
    return [range(start, min(start + config.at_once, config.units)) for start in range(0, config.units, config.at_once)]


def _check(stop: StopRequest) -> None:
    if stop.asked:
        raise Interrupted("finished batches are saved")


def _check_finite(measured: list[Measured], line: Line) -> None:
    for one in measured:
        for metric, score in one.scores.items():
            if not isfinite(score):
                raise RunFailed(f"the {metric} of unit {one.unit} under {line.variant} is not finite")
