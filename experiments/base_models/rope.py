"""Rotary positions of a model: other settings than its own config's, and how many positions it then has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import MemxError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def with_rope(config: PretrainedConfig, rope: Mapping[str, Any] | None, name: str) -> PretrainedConfig:
    """Give a model's config other rotary settings, in place.

    Args:
        config: The model's config.
        rope: `rope_type` and its settings, as transformers names them; the model's own rope_theta stays unless it is
            among them. None: leave the config as it is.
        name: What messages call the model.

    Returns:
        The config.

    Raises:
        MemxError: The model has no rotary positions of one kind, or the settings do not suit transformers.
    """
    if rope is None:
        return config
    text: Any = config.get_text_config()
    own = getattr(text, "rope_parameters", None)
    if not isinstance(own, dict) or "rope_theta" not in own:
        raise MemxError(f"host.rope: {name} has no rotary positions that can be scaled", hint="remove host.rope")
    text.rope_parameters = {"rope_theta": own["rope_theta"], **rope}
    try:
        _frequencies(text)
    except (KeyError, ValueError, TypeError, ZeroDivisionError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
        raise MemxError(
            f"host.rope {dict(rope)} does not suit {name}: {reason}",
            hint="see rope_parameters in the documentation of transformers",
        ) from None
    return config


def _frequencies(text: Any) -> None:
    """Compute the rotary frequencies once, as the model will. Raises whatever transformers does for bad settings."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = text.rope_parameters["rope_type"]
    if kind != "default":
        ROPE_INIT_FUNCTIONS[kind](text, "cpu", seq_len=text.max_position_embeddings)


def positions(config: PretrainedConfig) -> int | None:
    """How many positions a model can have; None for as many as one likes, as dynamic rotary scaling follows the length.

    Linear and yarn scaling extend the positions of a config by their factor, where it counts those before scaling.
    """
    text: Any = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None)
    kind = rope.get("rope_type") if isinstance(rope, dict) else None
    if most is None or kind == "dynamic":
        return None
    assert isinstance(rope, dict) or kind is None
    factor = (rope or {}).get("factor") or 1.0
    if kind == "linear":
        return int(most * max(factor, 1.0))
    if kind == "yarn":
        return max(most, int(factor * (rope or {}).get("original_max_position_embeddings", most)))
    return most


def check_positions(length: int, config: PretrainedConfig, name: str, what: str, cure: str) -> None:
    """Raise MemxError if a text is longer than a model's positions.

    Args:
        length: Tokens of the text.
        config: The model's config.
        name: The model's name.
        what: What has this length, and its verb, such as "tasks.length 20,000 does".
        cure: What the user can do, for the hint.
    """
    most = positions(config)
    if most is not None and length > most:
        raise MemxError(f"{what} not fit in the {most:,} positions of {name}", hint=cure)


def rope_words(config: PretrainedConfig, length: int) -> str | None:
    """The rotary scaling of a model in words, with dynamic scaling's base for a text of some length; None without."""
    text: Any = config.get_text_config()
    rope = getattr(text, "rope_parameters", None)
    if not isinstance(rope, dict) or rope.get("rope_type", "default") == "default":
        return None
    kind: str = rope["rope_type"]
    factor: Any = rope.get("factor")
    words = f"{kind} rotary scaling" + (f", factor {factor:g}" if factor else "")
    if kind != "dynamic" or length <= text.max_position_embeddings:
        return words
    width = int(
        (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
        * rope.get("partial_rotary_factor", 1.0)
    )
    grown = (factor * length / text.max_position_embeddings - (factor - 1)) ** (width / (width - 2))
    return f"{words} (base {rope['rope_theta'] * grown:,.0f} at {length:,} tokens)"
