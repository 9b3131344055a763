"""A pretrained start: a host model -> the same model with memory layers in it, and with the chosen part trainable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from ...errors import MemxError
from ...memory_layers.config import MemoryConfig
from ...memory_layers.llama import MemoryLlamaForCausalLM, draw_memory_weights, memory_layers_of, tables_of
from ...memory_layers.llama_config import MemoryLlamaConfig
from ...memory_layers.model_config import memories_of
from ...transformers_compat import copy_buffers
from ..base_models.load import host_config, load_host
from ..config.training import TrainConfig
from ..runtime.devices import use_bfloat16
from .build import memory_settings, prepare_tables

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


ShardTables = Callable[[MemoryLlamaForCausalLM], None]


class Pretrained(NamedTuple):
    """A loaded model, its tokenizer, and whether its memory is new to it."""

    model: MemoryLlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    new_memory: bool


def load_pretrained(config: TrainConfig, device: torch.device, shard_tables: ShardTables | None = None) -> Pretrained:
    """Load `finetune.source`, put the memory of the config into it, and make trainable what is to be trained.

    A model that already has memory layers keeps them, and the config's memory does not count. A memory that stands
    beside the feed-forward changes no output at first; one that replaces it loses what that knew. Raises MemxError as
    `load_host` does, and if the memory does not fit or cannot learn. shard_tables: as in `insert_memory`.
    """
    source = config.finetune.source
    assert source is not None
    has_memory = _check_fits(config, host_config(source))
    _check_precision(config, device)
    frozen = getattr(torch, config.finetune.dtype)
    # a memory that is there is read as it was written, and only then is the rest rounded
    host, tokenizer = load_host(source, dtype=torch.float32 if has_memory else frozen)
    model = host if has_memory else insert_memory(host, config.memory, config.seed, shard_tables, dtype=torch.float32)
    assert isinstance(model, MemoryLlamaForCausalLM)
    if not has_memory:
        model.set_token_classes(tokenizer)
    if has_memory and shard_tables is not None:
        shard_tables(model)
    model.config.use_cache = True
    _round_base(model, frozen)
    prepare_tables(model, config)
    nn.Module.to(model, device)
    choose_trainable(model, config.finetune.train)
    return Pretrained(model, tokenizer, not has_memory and bool(model.config.memory_layers))


def check_start(config: TrainConfig) -> None:
    """Raise MemxError, before any weight is read, if `finetune.source` is not there or cannot be trained as asked."""
    if config.finetune.source is not None:
        _check_fits(config, host_config(config.finetune.source))


def _check_precision(config: TrainConfig, device: torch.device) -> None:
    if config.finetune.dtype == "bfloat16" and not use_bfloat16(config.training.precision, device):
        raise MemxError(
            f"finetune.dtype bfloat16 needs bfloat16 computation, but training.precision "
            f"{config.training.precision} on {device.type} is float32",
            hint="use --set training.precision=bfloat16",
        )


def _round_base(model: nn.Module, dtype: torch.dtype) -> None:
    """Round every weight but those of a memory, and no buffer."""
    kept = {id(weight) for layer in memory_layers_of(model) for weight in layer.parameters()}
    kept |= {id(table) for tables in tables_of(model) for table in tables.parameters()}
    for weight in model.parameters():
        if id(weight) not in kept:
            weight.data = weight.data.to(dtype)


def _check_fits(config: TrainConfig, host: PretrainedConfig) -> bool:
    """Whether the host has a memory; raises MemxError for what its shape or its lack of a memory forbids."""
    has_memory = bool(getattr(host, "memory_layers", None))
    context: Any = host.max_position_embeddings
    longest = max(config.data.sequence, config.text.block if config.text.source else 0)
    if longest > context:
        raise MemxError(
            f"data.sequence or text.block is {longest}, above the context of {context} of {config.finetune.source}",
            hint=f"set data.sequence and text.block to {context} or less",
        )
    if config.finetune.train == "slots" and not has_memory and config.memory.insertion == "beside":
        raise MemxError(
            f"finetune.train slots needs a trained memory, and {config.finetune.source} has none",
            hint="give a run with a trained memory: --init-from RUN (from `memx train facts`, or with --train memory)",
        )
    return has_memory


def with_memory(host: PretrainedConfig, memory: MemoryConfig) -> MemoryLlamaConfig:
    """The config of a host with memory layers in it. Raises MemxError if they do not fit it."""
    fields: Any = host.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "torch_dtype", "dtype"):
        fields.pop(key, None)
    if memory.slots and memory.key_width is None and fields["hidden_size"] % 4:
        raise MemxError(
            f"memory.key_width has no default for width {fields['hidden_size']}",
            hint="set memory.key_width to an even number",
        )
    return MemoryLlamaConfig(**{**fields, **memory_settings(memory, fields["num_hidden_layers"], silent=True)})


@torch.no_grad()
def insert_memory(
    host: PreTrainedModel,
    memory: MemoryConfig,
    seed: int,
    shard_tables: ShardTables | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> MemoryLlamaForCausalLM:
    """Put memory layers into a pretrained Llama-family model; all other weights are shared with it, not copied.

    Source: Berges et al. 2024, "Memory Layers at Scale" (arXiv 2412.09764), for the layers; the insertion is memx's.

    Args:
        host: The pretrained model.
        memory: Which memory, and in which blocks. With `insertion="beside"` the memory is added to the feed-forward
            and changes no output until it is trained; with "replace" the feed-forward is lost.
        seed: Random seed of the memory's initial weights.
        shard_tables: Function of the model that cuts its value tables for several processes. It is called before
            the tables take memory. None: whole tables.
        dtype: Dtype of the memory's weights. None: the dtype of `host`.

    Returns:
        The model with memory layers.

    Raises:
        MemxError: The memory does not fit the model, or the model has a memory already.

    Example:
        ```python
        import memx
        from memx.experiments.models.pretrained import insert_memory
        from memx.memory_layers.config import MemoryConfig

        base, tokenizer = memx.load_model("smollm2")
        memory = MemoryConfig(kind="memory+", slots=1024, layers=(1,), insertion="beside")
        model = insert_memory(base, memory, seed=0)
        model.save_pretrained("with-memory")
        ```
    """
    if isinstance(host, MemoryLlamaForCausalLM) and memories_of(host.config):
        raise MemxError("the model has a memory already", hint="train that one, or give the model without memory")
    config = with_memory(host.config, memory)
    with torch.device("meta"):
        model = MemoryLlamaForCausalLM(config)
    if shard_tables is not None:
        shard_tables(model)
    weights = dict(host.named_parameters(remove_duplicate=False))
    for place in sorted(memories_of(config), key=lambda one: one.insertion != "replace"):
        for index in place.layers if place.kind != "engram" else ():
            _move_feed_forward(weights, f"model.layers.{index}.mlp.", keep=place.insertion == "beside")
    model.load_state_dict(weights, strict=False, assign=True)
    draw_memory_weights(model, seed, dtype=dtype or host.dtype)
    copy_buffers(model, host)
    if model.model.token_classes is not None:
        model.model.token_classes.reset()
    model.tie_weights()
    left = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    assert not left, f"no weights for {left[:3]}"
    if host.generation_config is not None:
        model.generation_config = host.generation_config
    return model.train(host.training)


def _move_feed_forward(weights: dict[str, nn.Parameter], prefix: str, *, keep: bool) -> None:
    """Rename the feed-forward of a block that gets a memory beside it, or drop it."""
    for name in [name for name in weights if name.startswith(prefix)]:
        weight = weights.pop(name)
        if keep:
            weights[f"{prefix}feed_forward.{name.removeprefix(prefix)}"] = weight


def choose_trainable(model: nn.Module, train: str) -> None:
    """Freeze everything but what `finetune.train` names; for lora, everything. Raises MemxError without a memory."""
    layers = memory_layers_of(model)
    if train in ("memory", "slots") and not layers:
        raise MemxError(
            f"finetune.train {train}: the model has no memory layers",
            hint="set memory.slots to add some, or finetune.train=all",
        )
    model.requires_grad_(train == "all")
    if train == "memory":
        for layer in layers:
            layer.requires_grad_(True)
    if train in ("memory", "slots"):
        for table in tables_of(model):
            table.requires_grad_(True)


def add_lora(model: nn.Module, config: TrainConfig) -> Any:
    """Put LoRA adapters into the model in place; the returned tuner merges them at the end.

    Raises MemxError if peft is missing, or no module has a name that was asked for; of the default ones some may lack.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise MemxError("finetune.train lora needs the package peft", hint="pip install 'memx[lora]'") from None
    finetune = config.finetune
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    targets = [target for target in finetune.targets if target in names]
    missing = [target for target in finetune.targets if target not in names]
    if not targets or (missing and finetune.targets != type(finetune).model_fields["targets"].default):
        raise MemxError(
            f"finetune.targets: the model has no layers named {', '.join(missing)}",
            hint=f"choose from {', '.join(sorted(names))}",
        )
    torch.manual_seed(config.seed)
    lora: Any = LoraConfig(r=finetune.rank, lora_alpha=2 * finetune.rank, target_modules=targets, lora_dropout=0.0)
    return LoraModel(model, lora, "default")
