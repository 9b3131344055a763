"""Training state on disk: weights, moments and position -> a folder that a kill never leaves in parts.

Training draws nothing at random but its initial weights, so there is no random state. Tensors are safetensors, the
rest JSON. A state is written beside the last one, renamed whole, and only then is the older one removed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...errors import MemxError
from ...files import cannot_write, put_in_place
from .states import saved_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..distributed.parallel import Parallelism
    from ..models.slot_usage import SlotUsage
    from ..optim.optimizer import Optimizer


def save_state(
    folder: Path, step: int, model: nn.Module, optimizer: Optimizer, use: SlotUsage, rest: dict[str, Any]
) -> None:
    """Save the state after `step` steps in folder/step-N and remove older ones."""
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _save_tensors(temporary / "model.safetensors", own_parameters(model))
        _save_tensors(temporary / "optimizer.safetensors", optimizer.state_tensors())
        _save_tensors(temporary / "use.safetensors", use.state_tensors())
        (temporary / "state.json").write_text(json.dumps({**rest, "step": step}, indent=2))
        put_in_place(temporary, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _disk_error(target, error) from None
    for older in saved_states(folder)[:-1]:
        shutil.rmtree(older)


def load_state(
    folder: Path, model: nn.Module, optimizer: Optimizer, use: SlotUsage, layout: Parallelism | None = None
) -> dict[str, Any] | None:
    """Restore the newest state of a folder into model, optimizer and use statistics; None if there is none.

    It may be of one process or of several, whatever their number is now.

    Raises MemxError for a state that is truncated or belongs to another model.
    """
    states = saved_states(folder)
    if not states:
        return None
    newest = states[-1]
    if layout is not None or (newest / "model").is_dir():
        from .distributed_state import load_shared_state

        return load_shared_state(newest, model, optimizer, use, layout)
    try:
        rest = json.loads((newest / "state.json").read_text("utf-8"))
        weights = load_file(newest / "model.safetensors")
        moments = load_file(newest / "optimizer.safetensors")
        used = load_file(newest / "use.safetensors")
        rest = {key: rest[key] for key in ("step", "seconds", "tokens", "position", "before")}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MemxError(f"the state {newest} is damaged: {error}", hint="--force starts the run anew") from None
    load_weights(model, weights, newest)
    optimizer.load_state_tensors(moments)
    use.load_state_tensors(used)
    return rest


def own_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Each parameter once, under its first name (tied and shared ones have several)."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """Copy weights into a model. Raises MemxError, naming the first difference, if they are another model's."""
    own = dict(model.named_parameters())
    for name in sorted(own.keys() | weights.keys()):
        there, here = weights.get(name), own.get(name)
        if there is None or here is None or there.shape != here.shape:
            shapes = [list(tensor.shape) if tensor is not None else "nothing" for tensor in (there, here)]
            raise MemxError(
                f"{source} is another model's: {name} is {shapes[0]} there, {shapes[1]} here",
                hint="resume with the config that it was trained with",
            )
    for name, parameter in own.items():
        parameter.copy_(weights[name])


def save_checkpoint(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Save model and tokenizer as transformers reads them, whole or not at all."""
    from transformers.utils import logging as hub_logging

    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        hub_logging.disable_progress_bar()
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        put_in_place(temporary, folder)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError) or type(error) is Exception:  # as tokenizers raises
            raise _disk_error(folder, error) from None
        raise


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def _disk_error(path: Path, error: Exception) -> MemxError:
    return cannot_write(path, error if isinstance(error, OSError) else OSError(0, str(error)))
