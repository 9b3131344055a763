"""Training state of a run over several processes, on disk: each rank writes its parts, any number of them reads.

A state folder holds model/ and optimizer/ (safetensors of torch.distributed.checkpoint: no pickle), use.safetensors,
state.json, and transformers/ (config and tokenizer), which is all that `convert` needs.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...errors import MemxError
from ...files import put_in_place
from ...memory_layers.llama import MemoryLlamaForCausalLM
from ...memory_layers.tables.values import MemoryValues
from .states import saved_states
from .tensor_files import disk_errors, read_parts, readable, whole_tensors, write_parts

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..distributed.parallel import Parallelism
    from ..models.slot_usage import SlotUsage
    from ..optim.optimizer import Optimizer


def save_shared_state(
    folder: Path,
    step: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    optimizer: Optimizer,
    use: SlotUsage,
    rest: dict[str, Any],
    layout: Parallelism,
) -> None:
    """Save the state after `step` steps in folder/step-N and remove older ones; every rank calls this.

    Raises MemxError for a full disk.
    """
    target = folder / f"step-{step:08d}"
    temporary = target.with_name(f".{target.name}.tmp")

    def begin() -> None:
        for left in folder.glob(".step-*"):  # by a kill or a full disk
            shutil.rmtree(left, ignore_errors=True)
        for part in ("model", "optimizer", "transformers"):
            (temporary / part).mkdir(parents=True)

    def end() -> None:
        save_file({name: tensor.cpu().contiguous() for name, tensor in used.items()}, temporary / "use.safetensors")
        _save_config(model, temporary / "transformers")
        tokenizer.save_pretrained(temporary / "transformers")
        (temporary / "state.json").write_text(json.dumps({**rest, "step": step}, indent=2))
        put_in_place(temporary, target)
        for older in saved_states(folder)[:-1]:
            shutil.rmtree(older)

    layout.world.on_first(lambda: disk_errors(target, begin))
    tensors = {"model": _weights(model, layout), "optimizer": _moments(model, optimizer, layout)}
    for part, held in tensors.items():
        layout.world.together(
            lambda part=part, held=held: disk_errors(target, lambda: write_parts(temporary / part, held))
        )
    used = use.gathered(layout)
    layout.world.on_first(lambda: disk_errors(target, end))


def load_shared_state(
    source: Path, model: nn.Module, optimizer: Optimizer, use: SlotUsage, layout: Parallelism | None
) -> dict[str, Any]:
    """Restore a state folder, of any number of processes or of one alone, into what any number of them holds.

    Raises MemxError for one that is damaged or another model's.
    """
    own, moments = _weights(model, layout), _moments(model, optimizer, layout, empty=True)
    with readable(source):
        rest = json.loads((source / "state.json").read_text("utf-8"))
        used = load_file(source / "use.safetensors")
        for part, held in (("model", own), ("optimizer", moments)):
            folder = source / part if (source / part).is_dir() else source
            _check(folder, held, only=part == "model")
            read_parts(folder, held)
    optimizer.load_state_tensors({name: _local(tensor, name) for name, tensor in moments.items()})
    if layout is None or layout.world.is_first:
        use.load_state_tensors(used)
    return rest


def _save_config(model: PreTrainedModel, folder: Path) -> None:
    """What `save_pretrained` writes beside the weights."""
    config = copy.deepcopy(model.config)
    config.architectures = [MemoryLlamaForCausalLM.__name__]  # FSDP gives the class another name
    config.dtype = next(iter(model.parameters())).dtype
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def _weights(model: nn.Module, layout: Parallelism | None) -> dict[str, Tensor]:
    tables = _tables(model)
    return {
        name: _saved(parameter.detach(), tables.get(name.removesuffix(".weight")), layout)
        for name, parameter in model.named_parameters()
    }


def _moments(
    model: nn.Module, optimizer: Optimizer, layout: Parallelism | None, *, empty: bool = False
) -> dict[str, Tensor]:
    tables = _tables(model)
    tensors = optimizer.empty_state_tensors() if empty else optimizer.state_tensors()
    return {
        name: _saved(tensor, tables.get(name.removeprefix("tables/").rpartition("/")[0]), layout)
        if name.startswith("tables/")
        else tensor
        for name, tensor in tensors.items()
    }


def _tables(model: nn.Module) -> dict[str, MemoryValues]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MemoryValues)}


def _saved(tensor: Tensor, table: MemoryValues | None, layout: Parallelism | None) -> Tensor:
    return tensor if layout is None else layout.as_saved(tensor, table)


def _local(tensor: Tensor, name: str) -> Tensor:
    """Of a table this rank's part; of weights that FSDP shards what the optimiser holds."""
    return tensor.to_local() if name.startswith("tables/") and isinstance(tensor, DTensor) else tensor


def _check(folder: Path, own: Mapping[str, Tensor], *, only: bool) -> None:
    """Raise MemxError naming the first tensor that differs; only: nothing else may be there."""
    if not own:
        return
    there = {name: whole.shape for name, whole in whole_tensors(folder).items()}
    names = own.keys() | there.keys() if only and folder.name == "model" else own.keys()
    for name in sorted(names):
        here = tuple(own[name].shape) if name in own else None
        if there.get(name) != here:
            shapes = [list(shape) if shape is not None else "nothing" for shape in (there.get(name), here)]
            raise MemxError(
                f"{folder.parent} is another model's: {name} is {shapes[0]} there, {shapes[1]} here",
                hint="resume with the config that it was trained with",
            )
