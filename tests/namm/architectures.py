"""A tiny model with random weights of any architecture of transformers, made from its config class alone."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

WINDOW, ORIGINAL = 24, 64  # thresholds that a test's prompts cross
LARGEST = 30_000_000  # parameters of what is still tiny
_WIDTH = {
    32: "hidden_size n_embd d_model word_embed_proj_dim embedding_size emb_dim d_embed attention_hidden_size lru_width",
    48: "intermediate_size n_inner encoder_ffn_dim decoder_ffn_dim ffn_dim ffn_hidden_size d_ff dim_ff",
    16: "moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank qk_head_dim chunk_size",
    8: "head_dim d_kv kv_channels rotary_dim dim_head qk_nope_head_dim qk_rope_head_dim v_head_dim "
    "query_pre_attn_scalar global_head_dim hidden_size_per_layer_input linear_key_head_dim linear_value_head_dim "
    "mamba_d_state mamba_n_heads "
    "mamba_d_head mamba_num_heads mamba_head_dim ssm_state_size state_size lightning_chunk laurel_rank",
    4: "num_attention_heads n_head num_heads n_heads encoder_attention_heads decoder_attention_heads attention_heads "
    "num_experts num_local_experts n_routed_experts moe_num_experts mamba_d_conv",
    2: "num_key_value_heads num_query_groups num_hidden_layers n_layer num_layers n_layers encoder_layers "
    "decoder_layers num_experts_per_tok moe_k linear_num_key_heads linear_num_value_heads mamba_expand eos_token_id",
    1: "n_group topk_group n_shared_experts moe_layer_start_index first_k_dense_replace num_dense_layers "
    "mamba_n_groups n_groups bos_token_id",
    0: "pad_token_id",
    96: "vocab_size vocab_size_per_layer_input",
    512: "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions max_source_positions",
    WINDOW: "sliding_window",
    64: "mamba_d_ssm",
}
_SIZES: dict[str, Any] = {name: size for size, names in _WIDTH.items() for name in names.split()}
_SIZES["is_decoder"] = True


class CannotBeMade(Exception):
    """Why an architecture is not made tiny from its config class alone."""


def config_classes() -> dict[str, type[PretrainedConfig]]:
    """Of every causal decoder of transformers, by its model type."""
    return {config.model_type: config for config in MODEL_FOR_CAUSAL_LM_MAPPING}


def tiny_config(kind: type[PretrainedConfig], **changes: Any) -> PretrainedConfig:
    """A config of few small layers, one at least of each type that the architecture has."""
    default: Any = kind()
    known = default.to_dict()
    made = {name: size for name, size in _SIZES.items() if name in known or name in kind.attribute_map}
    for name, value in known.items():
        if isinstance(value, dict) and "model_type" in value and hasattr(getattr(default, name), "to_dict"):
            made[name] = tiny_config(type(getattr(default, name))).to_dict()
    if "kv_lora_rank" in known and "num_key_value_heads" in known:
        made["num_key_value_heads"] = made["num_attention_heads"]
    kinds = known.get("layer_types")
    if isinstance(kinds, list):
        different = list(dict.fromkeys(kinds))
        made["num_hidden_layers"] = count = max(2, len(different))
        made["layer_types"] = (different * 2)[:count]
    return kind(**{**made, **changes})


def tiny_model(kind: type[PretrainedConfig], **changes: Any) -> PreTrainedModel:
    """A random model of such a config, in float64 and eval mode. Raises CannotBeMade with the reason."""
    try:
        config = tiny_config(kind, **changes)
        config._experts_implementation = "eager"  # type: ignore[attr-defined]  # the one that knows float64
        make: Any = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
        make = make[0] if isinstance(make, list | tuple) else make
        with torch.device("meta"):
            size = sum(weight.numel() for weight in make(config).parameters())
        if size > LARGEST:
            raise CannotBeMade(f"has {size:,} parameters even so")
        torch.manual_seed(0)
        model = make(config).double().eval()
    except CannotBeMade:
        raise
    except Exception as error:  # a hundred config classes, each with checks of its own
        raise CannotBeMade(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}") from None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:  # larger than usual, so that attention differs between tokens
                weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)
    return model
