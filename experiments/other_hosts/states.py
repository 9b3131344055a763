"""Saved states of a small host in training: weights and moments in a folder that a kill never leaves in parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ...files import cannot_write, put_in_place
from ..checkpoints.state_tensors import check_alike, check_finite, read_tensors
from ..checkpoints.states import TrainingState, newest_good, read_state, saved_states, write_state

_NAMES, _STEPS = ("exp_avg", "exp_avg_sq"), "step"
_WEIGHTS, _MOMENTS = "model.safetensors", "optimizer.safetensors"


class Moments(NamedTuple):
    """The parameters of a model by name, and the AdamW that steps them."""

    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        """AdamW's moments by name, and how often it stepped each weight; zeros before the first step."""
        found = {}
        for name, parameter in self.parameters.items():
            state: Mapping[str, Tensor] = self.optimizer.state.get(parameter, {})
            for moment in _NAMES:
                found[f"{moment}/{name}"] = state.get(moment, torch.zeros_like(parameter))
            found[f"{_STEPS}/{name}"] = state.get(_STEPS, torch.tensor(0.0))  # fewer where a loss leaves weights out
        return found

    def put(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Take over what was saved."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
                own = {moment: moments[f"{moment}/{name}"].to(parameter) for moment in _NAMES}
                self.optimizer.state[parameter] = {_STEPS: moments[f"{_STEPS}/{name}"].cpu(), **own}


def save_state(folder: Path, moments: Moments, step: int, seconds: float, tokens: int) -> None:
    """Save a state in `step-N` of a folder, whole or not at all, and remove older ones. Raises MemxError."""
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    state = TrainingState({}, {}, seconds, tokens, "", step, folder.parent.name)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary / _WEIGHTS, {name: one.detach() for name, one in moments.parameters.items()})
        _write(temporary / _MOMENTS, moments.tensors())
        write_state(temporary, state)
        put_in_place(temporary, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise cannot_write(target, error if isinstance(error, OSError) else OSError(0, str(error))) from None
    for older in saved_states(folder)[:-1]:
        shutil.rmtree(older)


def restore_state(folder: Path, moments: Moments, note: Callable[[str], None]) -> TrainingState | None:
    """Restore the newest whole state of a folder; None if there is none.

    Args:
        folder: Of all states of a run.
        moments: What is filled, once a state is found to be whole.
        note: Gets what is wrong with a newer one.

    Raises:
        MemxError: All states are damaged, or another model's.
    """

    def load(source: Path) -> TrainingState:
        state = read_state(source)
        found: dict[str, dict[str, Any]] = {name: read_tensors(source / name) for name in (_WEIGHTS, _MOMENTS)}
        for name, own in ((_WEIGHTS, dict(moments.parameters)), (_MOMENTS, moments.tensors())):
            check_alike(found[name], own, source / name)
            check_finite(found[name], source / name)
        moments.put(found[_WEIGHTS], found[_MOMENTS])
        return state

    return newest_good(folder, load, note)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)
