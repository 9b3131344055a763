"""From a config to what it describes: the model, the tokenizer, the device, the facts split into tiers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError
from ...memory_layers.config import MemoryConfig
from ...memory_layers.llama import MemoryLlamaConfig, MemoryLlamaForCausalLM, draw_weights, tables_of
from ...memory_layers.tables.host_rows import keep_on_host
from ..config.training import TrainConfig
from ..data.facts.load import load_facts
from ..data.facts.questions import FactSplit, documents_of, split_entities
from ..data.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def build_split(config: TrainConfig) -> tuple[FactSplit, list[str]]:
    """Load the facts of a config and set the unseen entities aside; also what was noticed on the way."""
    found = load_facts(config.data)
    split = split_entities(found.facts, config.data.unseen, config.data.seed)
    if not split.trained:
        raise MemxError("no facts are left to train on", hint="lower data.unseen or give more facts")
    return split, found.notes


def build_tokenizer(config: TrainConfig, split: FactSplit) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the training documents."""
    texts = (document.text for fact in split.trained for document in documents_of(fact, split.seed))
    return train_tokenizer(texts, config.data.vocabulary)


def llama_config(config: TrainConfig, vocabulary: int, *, pad: int = 0, end: int = 1) -> MemoryLlamaConfig:
    """The transformers config of a run's model; pad and end: the entries of its vocabulary that do so."""
    model = config.model
    return MemoryLlamaConfig(
        **memory_settings(config.memory, model.layers),
        vocab_size=vocabulary,
        hidden_size=model.width,
        intermediate_size=model.feed_forward_width,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads or model.heads,
        max_position_embeddings=model.context,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        initializer_range=model.initializer_range or model.width**-0.5,
        tie_word_embeddings=model.tie_embeddings,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=end,
    )


def tokenizer_config(config: TrainConfig, tokenizer: PreTrainedTokenizerFast) -> MemoryLlamaConfig:
    """`llama_config` for the vocabulary of a tokenizer; one that cannot pad pads with its end."""
    end: Any = tokenizer.eos_token_id
    pad: Any = tokenizer.pad_token_id
    return llama_config(config, len(tokenizer), pad=end if pad is None else pad, end=end)


def memory_settings(memory: MemoryConfig, blocks: int) -> dict[str, Any]:
    """The memory_* fields of `MemoryLlamaConfig` for `blocks` blocks, with what the kind decides filled in."""
    return dict(
        memory_layers=memory.placed_layers(blocks),
        memory_kind="memory" if memory.kind in ("dense", "memory+") else memory.kind,
        memory_slots=memory.slots,
        memory_heads=memory.query_heads,
        memory_top_k=memory.kept,
        memory_key_width=memory.key_width,
        memory_value_width=memory.value_width,
        memory_qk_norm=memory.normed,
        memory_gating=memory.gated,
        memory_output_gate=memory.output_gate,
        memory_shared=memory.shared,
        memory_insertion=memory.insertion,
        memory_experts=memory.experts,
        memory_experts_per_token=memory.experts_per_token,
        memory_expert_width=memory.expert_width,
    )


def build_model(
    config: TrainConfig, tokenizer: PreTrainedTokenizerFast, device: torch.device
) -> MemoryLlamaForCausalLM:
    """Build the model with its initial weights: the base is the same numbers for every memory of the same seed."""
    model = MemoryLlamaForCausalLM(tokenizer_config(config, tokenizer))
    draw_weights(model, config.seed)
    prepare_tables(model, config)
    torch.nn.Module.to(model, device)  # transformers types its own .to too narrowly
    return model


def prepare_tables(model: MemoryLlamaForCausalLM, config: TrainConfig) -> None:
    """Give value tables the dtype and the place that a config asks for; before the model moves to its device.

    Raises MemxError for tables that cannot be kept in host memory, or a model without any.
    """
    for table in tables_of(model):
        if config.training.value_dtype == "bfloat16":
            table.to(torch.bfloat16)
    if config.parallel.host_values and config.memory.kind != "dense":
        keep_on_host(model)


def pick_device(name: str, said: str = "training.device") -> torch.device:
    """Resolve a device that was said as `said`. Raises MemxError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise MemxError(f"{said}: no device {name!r}", hint="use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise MemxError(f"{said}: memx runs on cpu and cuda, not {name!r}", hint="use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MemxError(f"{said}: {name} is not there", hint="use auto, or cpu on a machine without CUDA")
    return device


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast: where asked for, or on a CUDA device by default; on CPU float32 is faster."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def autocast_for(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Inside, what can be is computed in bfloat16, if `use_bfloat16` says so."""
    return torch.autocast(device.type, torch.bfloat16) if use_bfloat16(precision, device) else nullcontext()
