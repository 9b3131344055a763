"""Whether a run still computes with finite numbers: loss, gradients, weights, moments, scores -> one error if not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from ..config.training import TrainConfig
from ..runtime.lifecycle import RunFailed

if TYPE_CHECKING:
    from torch import Tensor

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


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite; None if all are finite.

    Args:
        tensors: by name; of a DTensor the part of this rank is read. Whole numbers are finite.
    """
    for name, tensor in tensors.items():
        own: Any = tensor
        own = own.to_local() if hasattr(own, "to_local") else own
        # one pass that allocates nothing; a NaN is both the least and the largest
        extremes = own.detach().aminmax() if own.numel() and own.is_floating_point() else ()
        if not all(isfinite(float(extreme)) for extreme in extremes):
            return name
    return None


def check_rows(rows: Iterable[Row]) -> str | None:
    """What is not finite in the first row with such a number, as "seen nll is nan"; None if all are finite."""
    for row in rows:
        for value in (row.value, row.stderr, row.low, row.high):
            if value is not None and not isfinite(value):
                return f"{row.metric} of {row.dataset} is {value}"
    return None
