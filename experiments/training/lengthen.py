"""A run of another number of steps -> the start of a longer one: what `--steps 200 --resume` does after 100 steps.

A run's folder is named by its whole config, so that more steps are another run. It starts from the last state of the
run that differs in nothing else. Where the learning rates so far are the same in both, it ends bit-identical to a run
that took all its steps in one go; a schedule that depends on the number of steps is said to have changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MemxError
from ...files import cannot_write, put_in_place
from ...results.store.run_info import read_config
from ...results.store.runs import Run, RunStore
from ..checkpoints.states import read_state, saved_states, state_step, write_state
from ..config.base import assign, to_tree, to_yaml, validate
from ..config.points import Point
from ..config.training import TrainConfig
from ..optim.schedule import learning_rate_share, value_rate_share
from ..runtime.events import Note, Report

KEPT_BYTES = 500_000_000  # of a finished run's state, unless training.keep_state says otherwise
# keys that change neither the model nor the data nor a step of training
_OTHER = ("experiment", "about", "parallel", "evaluation", "training.steps", "training.accumulate")
_OTHER += ("training.keep_state", "training.checkpoint_every", "training.log_every", "training.device")


class Start(NamedTuple):
    """Where a run can start from: another run, its newest state there, and whether the learning rates were the same."""

    run: Run
    config: TrainConfig
    state: Path
    step: int
    exact: bool


def find_start(config: TrainConfig, run: Run) -> Start | None:
    """Find the run of another number of steps that a run which has not begun can start from.

    Args:
        config: Of the run.
        run: Its folder; other runs lie next to it.

    Returns:
        The one that has the same learning rates, or else has most steps; None if there is none, or the run has begun.

    Raises:
        MemxError: A finished run of fewer steps has kept no state.
    """
    if saved_states(run.folder / "state") or run.status == "finished":
        return None
    if config.finetune.parts:
        return None  # with another number of steps every part ends elsewhere
    starts, without = [], []
    for other, of in _alike(config, run):
        states = saved_states(other.folder / "state")
        step = state_step(states[-1]) if states else 0
        if states and 0 < step <= config.training.steps and other.status != "running":
            starts.append(Start(other, of, states[-1], step, _same_rates(of, config, step)))
        elif other.status == "finished" and of.training.steps < config.training.steps:
            without.append(other)
    if starts:
        return max(starts, key=lambda start: (start.exact, start.step))
    if without:
        raise MemxError(
            f"{without[-1].name} finished its {without[-1].info().get('steps', 'last')} steps and kept no state "
            f"to continue to {config.training.steps}",
            hint=f"start from its weights with --init-from {without[-1].folder}, or without --resume from step 0; "
            "training.keep_state=true keeps the state of later runs",
        )
    return None


def starts_of(points: Sequence[Point], runs: Path) -> list[str]:
    """For each point that would start from a run of other steps, a line that says so.

    Args:
        points: The points.
        runs: The folder of all runs.

    Raises:
        MemxError: A shorter run is finished and has kept no state to start from.
    """
    store, lines = RunStore(runs), []
    for point in points:
        if start := find_start(point.config, store.run(point.name)):
            lines.append(f"{point.name} would start from step {start.step} of {start.run.name}")
    return lines


def start_from_shorter(config: TrainConfig, run: Run, report: Report) -> None:
    """Put the state, tokenizer and metrics of a run of other steps into a run that has not begun, if there is one.

    Args:
        config: Of the run.
        run: Its claimed folder.
        report: Gets a note of where it starts.

    Raises:
        MemxError: A finished run of fewer steps has kept no state, the other run is in use, or the disk is full.
    """
    start = find_start(config, run)
    if start is None:
        return
    with RunStore(run.folder.parent).claim(start.run.name, resume=True):
        info = start.run.info()
        about: dict[str, Any] = {key: info[key] for key in ("threads", "facts") if key in info}
        about |= {"experiment": config.experiment, "seed": config.seed, "device": config.training.device}
        about["continued_from"] = {"run": start.run.name, "step": start.step, "same_schedule": start.exact}
        run.begin(to_yaml(config), about)
        try:
            _copy(start, run)
        except OSError as error:
            raise cannot_write(run.folder, error) from None
    text = f"continues {start.run.name} from its step {start.step}"
    if not start.exact:
        text += (
            f"; the learning rates of {start.config.training.steps} steps up to there are not those of "
            f"{config.training.steps}, so a run from step 0 would end otherwise"
        )
    report(Note(text))


def keeps_state(config: TrainConfig, size: int) -> bool:
    """Whether a finished run keeps its last state, which takes so many bytes."""
    kept = config.training.keep_state
    return size <= KEPT_BYTES if kept is None else kept


def remove_state(config: TrainConfig, folder: Path) -> None:
    """Remove the states of a finished run, but for the last one if the config keeps it."""
    states = saved_states(folder)
    last = bool(states) and state_step(states[-1]) == config.training.steps
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if not last or not keeps_state(config, size):
        shutil.rmtree(folder, ignore_errors=True)


def _alike(config: TrainConfig, run: Run) -> list[tuple[Run, TrainConfig]]:
    """The other runs in the folder whose config differs in the number of steps, and in nothing that counts."""
    found, wanted = [], _compared(config)
    for folder in sorted(run.folder.parent.glob(f"{config.name}-*")):
        try:
            tree = read_config(folder) if folder != run.folder else {}
            of = validate(tree, TrainConfig) if tree and tree.get("command", "train") == "train" else None
            other = Run(folder)
            if of is not None and _compared(of) == wanted and "diverged" not in other.info():
                found.append((other, of))
        except MemxError:
            continue  # of another version, or damaged: then it is no start
    return found


def _compared(config: TrainConfig) -> dict[str, Any]:
    tree = to_tree(config)
    for key in _OTHER:
        tree = assign(tree, key, None)
    return tree


def _same_rates(one: TrainConfig, other: TrainConfig, steps: int) -> bool:
    shares = (
        share(step, one.training) == share(step, other.training)
        for step in range(steps)
        for share in (learning_rate_share, value_rate_share)
    )
    return all(shares)


def _copy(start: Start, run: Run) -> None:
    for name in ("tokenizer.json", "tokenizer"):
        source, target = start.run.folder / name, run.folder / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        elif source.is_file():
            shutil.copyfile(source, target)
    run.rewind_metrics(-1)
    for line in start.run.metrics():
        if line["step"] <= start.step:
            run.append_metrics(**line)
    # last: with a state in it the run has begun
    target = run.folder / "state" / start.state.name
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(start.state, temporary)
    write_state(temporary, replace(read_state(start.state), run=run.name))
    put_in_place(temporary, target)
