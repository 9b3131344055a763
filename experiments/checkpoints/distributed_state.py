"""Training state of a run over several processes, on disk: each rank writes its parts, any number of them reads.

A state folder holds model/ and optimizer/ (safetensors of torch.distributed.checkpoint: no pickle), use.safetensors,
state.json, and transformers/ (config and tokenizer), which is all that `convert` needs.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...files import put_in_place
from ...memory_layers.llama import MemoryLlamaForCausalLM
from ...memory_layers.tables.values import MemoryValues
from .convert import convert_state
from .state_tensors import check_alike, check_finite, check_use, read_tensors
from .states import TrainingState, newest_good, read_state, saved_states, write_state
from .tensor_files import BUFFERS, disk_errors, read_parts, readable, whole_tensors, write_parts

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..distributed.parallel import Parallelism
    from ..models.slot_usage import SlotUsage
    from ..optim.optimizer import Optimizer


class ShardedFiles:
    """`Checkpointer` of one of several processes: each rank writes its parts of the tensors.

    folder: of all states of the run.
    """

    def __init__(
        self,
        folder: Path,
        model: MemoryLlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        optimizer: Optimizer,
        usage: SlotUsage,
        parallelism: Parallelism,
    ) -> None:
        self.folder, self.model, self.tokenizer, self.optimizer, self.usage = folder, model, tokenizer, optimizer, usage
        self.parallelism, self._saved_step = parallelism, 0

    def save(self, state: TrainingState) -> None:
        """See `Checkpointer`."""
        target = self.folder / f"step-{state.step:08d}"
        temporary = target.with_name(f".{target.name}.tmp")
        world = self.parallelism.world
        world.on_first(lambda: disk_errors(target, lambda: self._begin(temporary)))
        tensors = {
            "model": _weights(self.model, self.parallelism),
            "optimizer": _moments(self.model, self.optimizer.state_tensors(), self.parallelism),
        }
        for kind, own in tensors.items():
            # a rank whose disk is full must not leave the others waiting in the next collective
            world.together(lambda kind=kind, own=own: disk_errors(target, lambda: write_parts(temporary / kind, own)))
        used = self.usage.gathered(self.parallelism)
        world.on_first(lambda: disk_errors(target, lambda: self._end(temporary, target, used, state)))
        self._saved_step = state.step

    def restore(self, note: Callable[[str], None]) -> TrainingState | None:
        """See `Checkpointer`."""

        def load(source: Path) -> TrainingState:
            return load_sharded_state(source, self.model, self.optimizer, self.usage, self.parallelism)

        state = newest_good(self.folder, load, note)
        if state is not None:
            self._saved_step = state.step
        return state

    def export(self, target: Path, state: TrainingState) -> None:
        """See `Checkpointer`. No rank holds the whole model, so that rank 0 makes it of the saved state."""
        if self._saved_step != state.step:
            self.save(state)
        self.parallelism.world.on_first(lambda: convert_state(self.folder, target))

    def _begin(self, temporary: Path) -> None:
        for left in self.folder.glob(".step-*"):  # by a kill or a full disk
            shutil.rmtree(left, ignore_errors=True)
        for kind in ("model", "optimizer", "transformers"):
            (temporary / kind).mkdir(parents=True)

    def _end(self, temporary: Path, target: Path, used: Mapping[str, Tensor], state: TrainingState) -> None:
        save_file({name: tensor.cpu().contiguous() for name, tensor in used.items()}, temporary / "use.safetensors")
        _save_config(self.model, temporary / "transformers")
        if self.model.model.token_classes is not None:
            save_file({"model.token_classes.ids": self.model.model.token_classes.ids.cpu()}, temporary / BUFFERS)
        self.tokenizer.save_pretrained(temporary / "transformers")
        write_state(temporary, state)
        put_in_place(temporary, target)
        for older in saved_states(self.folder)[:-1]:
            shutil.rmtree(older)


def load_sharded_state(
    source: Path, model: nn.Module, optimizer: Optimizer, usage: SlotUsage, parallelism: Parallelism
) -> TrainingState:
    """Restore a state, saved by any number of processes, into what any number of them hold.

    Args:
        source: the folder `step-N`.
        model: gets the weights; of each tensor a rank reads its own part alone.
        optimizer: gets the moments.
        usage: gets the statistics, on the first rank.
        parallelism: the processes that read.

    Raises:
        MemxError: the state is damaged or another model's.
    """
    own = _weights(model, parallelism)
    moments = _moments(model, optimizer.empty_state_tensors(), parallelism)
    folders = {
        # one process saves all in one folder
        kind: (source / kind if (source / kind).is_dir() else source, tensors)
        for kind, tensors in (("model", own), ("optimizer", moments))
    }
    world = parallelism.world

    def check() -> tuple[TrainingState, dict[str, Tensor]]:
        state, used = read_state(source), read_tensors(source / "use.safetensors")
        check_finite(used, source / "use.safetensors")
        check_use(used, usage, source / "use.safetensors")
        with readable(source):
            for kind, (folder, tensors) in folders.items():
                _check(folder, kind, tensors, beside={*own, *moments, *used} - tensors.keys())
        return state, used

    # together: a rank that finds a state damaged must not leave the others waiting in the next collective
    state, used = world.together(check)
    for folder, tensors in folders.values():
        with readable(source):
            read_parts(folder, tensors)
        world.together(partial(check_finite, tensors, folder))
    optimizer.load_state_tensors({name: _local(tensor, name) for name, tensor in moments.items()})
    if parallelism.world.is_first:
        usage.load_state_tensors(used)
    return state


def _save_config(model: PreTrainedModel, folder: Path) -> None:
    """What `save_pretrained` writes beside the weights."""
    config = copy.deepcopy(model.config)
    config.architectures = [MemoryLlamaForCausalLM.__name__]  # FSDP gives the class another name
    config.dtype = next(iter(model.parameters())).dtype
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def _weights(model: nn.Module, parallelism: Parallelism) -> dict[str, Tensor]:
    tables = _tables(model)
    return {
        name: parallelism.as_saved(parameter.detach(), tables.get(name.removesuffix(".weight")))
        for name, parameter in model.named_parameters()
    }


def _moments(model: nn.Module, state: Mapping[str, Tensor], parallelism: Parallelism) -> dict[str, Tensor]:
    """The optimizer's tensors as a checkpoint takes them: those of a table, `tables/NAME/MOMENT`, are cut as it is."""
    tables = _tables(model)
    return {
        name: parallelism.as_saved(tensor, tables.get(name.removeprefix("tables/").rpartition("/")[0]))
        if name.startswith("tables/")
        else tensor
        for name, tensor in state.items()
    }


def _tables(model: nn.Module) -> dict[str, MemoryValues]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MemoryValues)}


def _local(tensor: Tensor, name: str) -> Tensor:
    """Of a table this rank's part; of weights that FSDP shards what the optimiser holds."""
    return tensor.to_local() if name.startswith("tables/") and isinstance(tensor, DTensor) else tensor


def _check(folder: Path, kind: str, own: Mapping[str, Tensor], beside: Set[str]) -> None:
    """Raise MemxError naming the first tensor that differs from those that lie in a folder.

    beside: names of the state's other tensors, which lie in the same folder if one process saved them.
    """
    saved = whole_tensors(folder) if own else {}
    if folder.name != kind:
        saved = {name: whole for name, whole in saved.items() if name not in beside}
    if own:
        check_alike(saved, own, folder)
