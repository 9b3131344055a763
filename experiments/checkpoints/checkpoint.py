"""Training state on disk: weights, moments and position -> a folder that a kill never leaves in parts.

Training draws nothing at random but its initial weights, so there is no random state. Tensors are safetensors, the
rest JSON. A state is written beside the last one, renamed whole, and only then is the older one removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ...errors import MemxError
from ...files import cannot_write, put_in_place
from ..distributed.parallel import SingleProcess
from .state_tensors import check_alike, check_finite, check_use, copy_weights, read_tensors
from .states import TrainingState, newest_good, read_state, saved_states, write_state

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

    def restore(self, note: Callable[[str], None]) -> TrainingState | None:
        """Restore the newest whole state into model, optimizer and usage; None if there is none.

        It may have been saved by any number of processes. note: gets what is wrong with a newer one. Raises MemxError
        if all are damaged or another model's.
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

    def restore(self, note: Callable[[str], None]) -> TrainingState | None:
        """See `Checkpointer`."""
        return newest_good(self.folder, self._load, note)

    def _load(self, source: Path) -> TrainingState:
        """Load a state, all of which is checked before anything of it is taken."""
        if (source / "model").is_dir():  # several processes saved it
            from .distributed_state import load_sharded_state

            return load_sharded_state(source, self.model, self.optimizer, self.usage, SingleProcess())
        state = read_state(source)
        moments = self.optimizer.empty_state_tensors(device="meta")
        wanted = {
            "model.safetensors": dict(self.model.named_parameters()),
            "optimizer.safetensors": moments,
        }
        found = {name: read_tensors(source / name) for name in (*wanted, "use.safetensors")}
        for name, own in wanted.items():
            check_alike(found[name], own, source / name)
        for name, tensors in found.items():
            check_finite(tensors, source / name)
        weights, moments, used = found.values()
        check_use(used, self.usage, source / "use.safetensors")
        copy_weights(self.model, weights)
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


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def _disk_error(path: Path, error: Exception) -> MemxError:
    return cannot_write(path, error if isinstance(error, OSError) else OSError(0, str(error)))
