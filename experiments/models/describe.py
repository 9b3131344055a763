"""The shape and the memory of a run's model, as `memory_layers/sizes.py` counts them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...memory_layers.config import MemoryConfig, ModelConfig
from ...memory_layers.model_config import MemorySettings, memories_of
from ..config.training import TrainConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def host_model_config(config: PretrainedConfig, name: str) -> ModelConfig:
    """The shape of a loaded model as `sizes.py` counts it."""
    values: Any = config
    return ModelConfig(
        name=name,
        layers=values.num_hidden_layers,
        width=values.hidden_size,
        heads=values.num_attention_heads,
        kv_heads=values.num_key_value_heads,
        feed_forward=values.intermediate_size,
        rope_theta=values.rope_parameters["rope_theta"],
        tie_embeddings=values.tie_word_embeddings,
        context=values.max_position_embeddings,
    )


def host_memory_config(config: PretrainedConfig) -> MemoryConfig:
    """The memory of a loaded model as `sizes.py` counts it; dense for a plain Llama."""
    parts = [_memory_keys(memory) for memory in memories_of(config)]
    if not parts:
        return MemoryConfig(kind="dense")
    return MemoryConfig.model_validate({**parts[0], "also": parts[1:]})


def _memory_keys(memory: MemorySettings) -> dict[str, Any]:
    values: dict[str, Any] = memory._asdict()
    values["kind"] = "memory+" if memory.kind == "memory" and memory.gating else memory.kind
    return {**values, "layers": tuple(memory.layers), "ngrams": tuple(memory.ngrams)}


def model_and_memory(config: TrainConfig, model: PreTrainedModel) -> tuple[ModelConfig, MemoryConfig]:
    """Shape and memory of a run's model: the config's, or those that a pretrained start brought."""
    if config.finetune.source is None:
        return config.model, config.memory
    return host_model_config(model.config, _name_of(config.finetune.source)), host_memory_config(model.config)


def _name_of(source: str) -> str:
    """The last part of a hub name or folder; of a run's checkpoint, the run's name."""
    path = Path(source)
    parts = path.resolve().parts if path.exists() else ("", *source.rstrip("/").split("/"))
    return parts[-2] if parts[-1] == "checkpoint" and parts[-2] else parts[-1]
