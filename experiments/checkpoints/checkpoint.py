"""Training state on disk: weights, moments and position -> a folder that a kill never leaves in parts.

Training draws nothing at random but its initial weights, so there is no random state. Tensors are safetensors, the
rest JSON. A state is written beside the last one, renamed whole, and only then is the older one removed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...errors import MemxError
from ...files import cannot_write, put_in_place
from ..distributed.parallel import SingleProcess
from .states import TrainingState, read_state, saved_states, write_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ...memory_layers.llama import MemoryLlamaForCausalLM
    from ..distributed.parallel import Parallelism
    from ..models.slot_usage import SlotUsage
    from ..optim.optimizer import Optimizer


class Checkpointer(Protocol):
    """Saves a run's states, restores the newest, and exports the trained model. Every rank calls each method."""

    def save(self, state: TrainingState) -> None:
        """Save a state in `step-N`, whole or not at all, and remove older ones. Raises MemxError for a full disk."""
        ...

    def restore(self) -> TrainingState | None:
        """Restore the newest state into model, optimizer and usage; None if there is none.

        It may have been saved by any number of processes. Raises MemxError if it is damaged or another model's.
        """
        ...

    def export(self, target: Path, state: TrainingState) -> None:
        """Write the model as transformers reads it, whole or not at all.

        Args:
            target: the folder to write.
            state: as it is at the end of training.

        Raises:
            MemxError: the disk is full or forbids it.
        """
        ...


class WholeFiles:
    """`Checkpointer` of one process: each tensor whole, in one file of a kind.

    folder: of all states of the run.
    """

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        optimizer: Optimizer,
        usage: SlotUsage,
    ) -> None:
        self.folder, self.model, self.tokenizer, self.optimizer, self.usage = folder, model, tokenizer, optimizer, usage

    def save(self, state: TrainingState) -> None:
        """See `Checkpointer`."""
        target = self.folder / f"step-{state.step:08d}"
        temporary = self.folder / f".{target.name}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            # a parameter that several modules share has several names, of which this gives the first
            parameters = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
            _save_tensors(temporary / "model.safetensors", parameters)
            _save_tensors(temporary / "optimizer.safetensors", self.optimizer.state_tensors())
            _save_tensors(temporary / "use.safetensors", self.usage.state_tensors())
            write_state(temporary, state)
            put_in_place(temporary, target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise _disk_error(target, error) from None
        for older in saved_states(self.folder)[:-1]:
            shutil.rmtree(older)

    def restore(self) -> TrainingState | None:
        """See `Checkpointer`."""
        states = saved_states(self.folder)
        if not states:
            return None
        newest = states[-1]
        if (newest / "model").is_dir():  # several processes saved it
            from .distributed_state import load_sharded_state

            return load_sharded_state(newest, self.model, self.optimizer, self.usage, SingleProcess())
        try:
            state = read_state(newest)
            weights = load_file(newest / "model.safetensors")
            moments = load_file(newest / "optimizer.safetensors")
            used = load_file(newest / "use.safetensors")
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise MemxError(f"the checkpoint {newest} is corrupt: {error}", hint="use --force to start over") from None
        load_weights(self.model, weights, newest)
        self.optimizer.load_state_tensors(moments)
        self.usage.load_state_tensors(used)
        return state

    def export(self, target: Path, state: TrainingState) -> None:
        """See `Checkpointer`."""
        from transformers.utils import logging as hub_logging

        temporary = target.with_name(f".{target.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            hub_logging.disable_progress_bar()
            self.model.save_pretrained(temporary)
            self.tokenizer.save_pretrained(temporary)
            put_in_place(temporary, target)
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError | SafetensorError) or type(error) is Exception:  # as tokenizers raises
                raise _disk_error(target, error) from None
            raise


def make_checkpointer(
    folder: Path,
    model: MemoryLlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    optimizer: Optimizer,
    usage: SlotUsage,
    parallelism: Parallelism,
) -> Checkpointer:
    """The `Checkpointer` of a run: whole files for one process, sharded ones for several.

    Args:
        folder: of the run's states.
        model: what is saved and restored, with its tokenizer, optimizer and use statistics.
        tokenizer: goes into what is exported.
        optimizer: whose moments and master weights are saved.
        usage: statistics of the window at hand.
        parallelism: the processes that share the run.
    """
    if not parallelism.world.joined:
        return WholeFiles(folder, model, tokenizer, optimizer, usage)
    from .distributed_state import ShardedFiles  # brings torch.distributed.checkpoint

    return ShardedFiles(folder, model, tokenizer, optimizer, usage, parallelism)


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """Copy weights into a model. Raises MemxError, naming the first difference, if they are another model's."""
    own = dict(model.named_parameters())
    for name in sorted(own.keys() | weights.keys()):
        there, here = weights.get(name), own.get(name)
        if there is None or here is None or there.shape != here.shape:
            shapes = [list(tensor.shape) if tensor is not None else "nothing" for tensor in (there, here)]
            raise MemxError(
                f"{source} is from a different model: {name} is {shapes[0]} there, {shapes[1]} here",
                hint="resume with the config that it was trained with",
            )
    for name, parameter in own.items():
        parameter.copy_(weights[name])


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def _disk_error(path: Path, error: Exception) -> MemxError:
    return cannot_write(path, error if isinstance(error, OSError) else OSError(0, str(error)))
