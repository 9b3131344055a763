"""Whether a run still computes with finite numbers: loss, gradients, weights, moments, scores -> one error if not."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import TYPE_CHECKING

from ..config.training import TrainConfig
from ..runtime.lifecycle import RunFailed

if TYPE_CHECKING:
    from ...results.store.rows import Row
    from ...results.store.runs import Run


def diverged(config: TrainConfig, run: str, step: int, what: str, loss: float | None = None) -> RunFailed:
    """The error of a run whose numbers are no longer finite.

    Args:
        config: of the run.
        run: its name.
        step: how many steps were finished.
        what: which number it is, as "the loss is nan".
        loss: of the last step, if it is known.
    """
    last = "" if loss is None else f" (loss {loss:.4g})"
    training = config.training
    rates = f"training.lr (now {training.lr:g})"
    if config.memory.slots:
        rates += f" or training.value_lr (now {training.value_lr:g})"
    return RunFailed(f"{run} diverged at step {step}: {what}{last}; lower {rates}", diverged=step)


def check_not_diverged(run: Run) -> None:
    """Raise RunFailed if a run that is to be resumed has diverged before: the same steps would end the same."""
    before = run.info()
    if "diverged" in before:
        raise RunFailed(
            f"{run.name} diverged at step {before['diverged']} and would diverge again; "
            "train with a lower learning rate, or use --force to start over",
            diverged=before["diverged"],
        )


def check_rows(rows: Iterable[Row]) -> str | None:
    """What is not finite in the first row with such a number, as "seen nll is nan"; None if all are finite."""
    for row in rows:
        for value in (row.value, row.stderr, row.low, row.high):
            if value is not None and not isfinite(value):
                return f"{row.metric} of {row.dataset} is {value}"
    return None
