"""Which transformers models a policy can be attached to, as far as their config says; `trial.py` finds the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MemxError
from ..transformers_compat import has_attention_interface

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KINDS = ("full_attention", "sliding_attention")


def find_decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that maps tokens to hidden states. Raises MemxError if attention there cannot be observed."""
    kind = type(model).__name__
    decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else None
    config = getattr(decoder, "config", None)
    hint = "use a decoder that supports transformers' attention interface, e.g. Llama, Mistral, Qwen, Gemma or GPT-2"
    if config is None or not has_attention_interface(decoder):
        raise MemxError(
            f"{kind} does not use transformers' attention interface, so a policy cannot observe its attention",
            hint=hint,
        )
    both_ways = any(not getattr(module, "is_causal", True) for module in decoder.modules())
    if getattr(config, "is_encoder_decoder", False) or not getattr(config, "is_causal", True) or both_ways:
        raise MemxError(f"{kind} is not a causal decoder", hint=hint)
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise MemxError(f"{kind} uses attention logit softcapping, which is not supported", hint=hint)
    return decoder


def layer_windows(decoder: PreTrainedModel) -> list[int | None]:
    """How many positions the queries of each layer see back, None for all.

    Raises MemxError for layers that are not plain or windowed attention, or share another's keys.
    """
    config: Any = decoder.config
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    count = config.num_hidden_layers
    if kinds is None:
        kinds = [_KINDS[window is not None]] * count
    unsupported = sorted({kind for kind in kinds if kind not in _KINDS})
    if unsupported or getattr(config, "num_kv_shared_layers", 0):
        raise MemxError(
            f"{type(decoder).__name__} has unsupported layers: {', '.join(unsupported) or 'shared keys and values'}",
            hint="use a model with full or sliding-window attention and separate keys and values in each layer",
        )
    return [window if kind == "sliding_attention" else None for kind in kinds[:count]]
