"""The saved states of a run, of one process or several: a folder -> step-N folders, oldest first. No torch here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ...json_text import BadJson, parse_json


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands, but for its tensors: what `state.json` holds.

    position: of the stream of batches. before: what a pretrained model knew before training. seconds: of training so
    far. value_step: how value tables are stepped, sparse or dense; empty if none is trained. run: its name; empty in
    states of older versions. parts: what was measured after each part of the facts that is learned.
    """

    position: dict[str, Any]
    before: dict[str, Any]
    seconds: float
    tokens: int
    value_step: str
    step: int
    run: str = ""
    parts: Sequence[dict[str, Any]] = ()


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _known(before: Any) -> bool:
    """Whether it is what `Evaluator.before_training` measures: five figures of each tier, and of text."""
    if not isinstance(before, dict) or not isinstance(answers := before.get("answers", {}), dict):
        return False
    measured = [*answers.values(), *([before["text"]] if "text" in before else [])]
    return all(map(_estimate, measured)) and _scores(before.get("known", {}))


def _parts(parts: Any) -> bool:
    """Whether it is a list of what `PartEvaluator.measure` gives."""
    return isinstance(parts, list | tuple) and all(
        isinstance(scores, dict) and all(map(_scores, scores.values())) for scores in parts
    )


def _scores(scores: Any) -> bool:
    return isinstance(scores, dict) and all(map(_estimate, scores.values()))


def _estimate(one: Any) -> bool:
    return isinstance(one, list | tuple) and len(one) == 5 and all(map(_figure, one))


def _figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "position": (lambda value: isinstance(value, dict), "an object"),
    "before": (_known, "an object of figures"),
    "seconds": (lambda value: _count(value) or (isinstance(value, float) and 0 <= value < float("inf")), "a number"),
    "tokens": (_count, "a whole number"),
    "step": (_count, "a whole number"),
    "value_step": (lambda value: value in ("", "sparse", "dense"), "sparse, dense or empty"),
    "run": (lambda value: isinstance(value, str), "text"),
    "parts": (_parts, "a list of figures"),
}


def read_state(folder: Path) -> TrainingState:
    """Read `state.json` of a saved state, `…/RUN/state/step-N`.

    Raises:
        MemxError: It is damaged, or of another run; the message names the file and the key.
    """
    path = folder / "state.json"
    try:
        saved = parse_json(path.read_bytes())
    except BadJson as error:
        raise damaged(path, error.reason) from None
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    if not isinstance(saved, dict):
        raise damaged(path, "it must be a JSON object")
    saved = {"value_step": "", "run": "", "parts": [], **saved}
    for key, (right, kind) in _KINDS.items():
        if key not in saved:
            raise damaged(path, f"{key} is missing")
        if not right(saved[key]):
            raise damaged(path, f"{key} must be {kind}, not {str(saved[key])[:40]!r}")
    state = TrainingState(**{key: saved[key] for key in _KINDS})
    if state_step(folder) not in (0, state.step):
        raise damaged(path, f"step is {state.step}, not that of its folder")
    if state.run not in ("", folder.parent.parent.name):
        raise damaged(path, f"it is a state of the run {state.run}")
    return state


def write_state(folder: Path, state: TrainingState) -> None:
    """Write `state.json`."""
    (folder / "state.json").write_text(json.dumps(vars(state), indent=2))


def state_step(folder: Path) -> int:
    """The step of a state's folder, `step-00000100`; 0 for another name."""
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else 0


def begun_value_step(folder: Path) -> str:
    """How the run of the newest readable state steps its tables, sparse or dense; empty without a state or tables."""
    for state in reversed(saved_states(folder)):
        try:
            return read_state(state).value_step
        except MemxError:
            continue  # `Checkpointer.restore` says what is wrong with it
    return ""


def saved_states(folder: Path) -> list[Path]:
    """The whole states in a folder, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def drop_older_states(folder: Path, step: int) -> None:
    """Remove the states before a step, which a kill left beside a newer one.

    Args:
        folder: Of all states of a run.
        step: That of the state that the run goes on from.
    """
    for state in saved_states(folder):
        if state_step(state) < step:
            shutil.rmtree(state, ignore_errors=True)


def newest_good(
    folder: Path, load: Callable[[Path], TrainingState], note: Callable[[str], None]
) -> TrainingState | None:
    """Load the newest state that is whole: after a damaged one an older one, if there is one.

    Args:
        folder: Of all states of a run.
        load: Loads a state into model and optimizer, or raises MemxError.
        note: Gets what is wrong with a state that was passed over.

    Returns:
        The state; None if the folder has none at all.

    Raises:
        MemxError: No state is whole; the error of the newest.
    """
    first: MemxError | None = None
    for place in reversed(saved_states(folder)):
        try:
            state = load(place)
        except MemxError as error:
            first = first or error
            continue
        if first is not None:
            note(f"{first.message}; using the older state of step {state.step}")
        return state
    if first is not None:
        raise first
    return None


def damaged(path: Path, what: str) -> MemxError:
    """The error for a file of a state that cannot be resumed from."""
    return MemxError(
        f"the state cannot be read: {path}: {what}", hint="use --force to start over, or copy the file again"
    )
