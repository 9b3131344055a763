"""A config -> the transformers config and the model that it describes, with its initial weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ...memory_layers.config import MemoryConfig, OneMemory
from ...memory_layers.llama import MemoryLlamaForCausalLM, keep_on_host, make_weights, tables_of
from ...memory_layers.llama_config import MemoryLlamaConfig
from ...memory_layers.model_config import MemorySettings
from ..config.training import TrainConfig
from ..distributed.parallel import SingleProcess

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..distributed.parallel import Parallelism


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


def memory_settings(memory: MemoryConfig, blocks: int, *, silent: bool = False) -> dict[str, Any]:
    """The memory_* fields of `MemoryLlamaConfig` for `blocks` blocks, with what the kind decides filled in.

    silent: for a pretrained model, whose outputs a memory that is added to a feed-forward must not change.
    """
    first, *others = (_settings(part, blocks, silent and part.insertion == "beside") for part in memory.parts)
    also = {"memory_also": [one._asdict() for one in others]} if others else {}
    return {f"memory_{name}": value for name, value in first._asdict().items()} | also


def _settings(memory: OneMemory, blocks: int, silent: bool) -> MemorySettings:
    return MemorySettings(
        layers=memory.placed_layers(blocks),
        kind="memory" if memory.kind in ("dense", "memory+") else memory.kind,
        slots=memory.slots,
        heads=memory.query_heads,
        top_k=memory.kept,
        key_width=memory.key_width,
        value_width=memory.value_width,
        qk_norm=memory.normed,
        gating=memory.gated,
        output_gate=memory.output_gate,
        shared=memory.shared,
        insertion=memory.insertion,
        experts=memory.experts,
        experts_per_token=memory.experts_per_token,
        expert_width=memory.expert_width,
        ngrams=memory.ngrams,
        hash_seed=memory.hash_seed,
        signed_root=memory.signed_root,
        convolution=memory.convolution,
        scores=memory.weights,
        output_init="matched" if memory.matched and not silent else "published",
        rank=memory.rank,
        expansion=memory.virtual_tables if memory.kind == "ultramem" else 4,
        units=memory.units,
    )


def build_model(
    config: TrainConfig,
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device,
    parallelism: Parallelism | None = None,
) -> MemoryLlamaForCausalLM:
    """Build a model with its initial weights, whose base has the same numbers for every memory of the same seed.

    Args:
        config: of the run.
        tokenizer: whose vocabulary the model reads.
        device: where the value tables go, and all other weights with `Parallelism.shard_dense`.
        parallelism: the processes that share the run; none for this one alone.

    Returns:
        The model; no process ever holds more of a value table than its part.
    """
    parallelism = parallelism or SingleProcess()
    with torch.device("meta"):  # takes no memory before the tables are cut
        model = MemoryLlamaForCausalLM(tokenizer_config(config, tokenizer))
    parallelism.shard_tables(model)
    make_weights(model, config.seed)
    model.set_token_classes(tokenizer)
    prepare_tables(model, config)
    for table in tables_of(model):
        table.to(device)
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
