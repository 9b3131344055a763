"""A short trial of a model under a policy that keeps everything: it must be the plain model, or it is refused.

Config and modules do not say all that a model does to attention. So before a user's first token, a few tokens are run
with and without the policy, in two pieces. Of a model without weights, the shape of what it passes is looked at alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import MemxError
from ..transformers_compat import (
    attention,
    embedding_table,
    input_device,
    length_dependent_rotary,
    same_rotary_afterwards,
    wrapped_forward,
)
from .cache.attention import ATTENTION, CACHE, register
from .cache.cache import EvictingCache
from .policies.heuristics import Full
from .support import find_decoder, layer_windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 19  # more than one interval of `KeepAll`, and no multiple of it
_TOLERANCE = {torch.float64: 0.01, torch.float32: 0.02}  # relative; attention of another kind is off by about 1
_LOOSE = 0.1  # of half precision
_HINT = "use a model with standard attention, e.g. Llama, Mistral, Qwen, Gemma or GPT-2"


@dataclass(frozen=True)
class KeepAll(Full):
    """Keeps every token, and cuts an input into pieces all the same."""

    every = 16


def compare_with_plain(model: PreTrainedModel, decoder: PreTrainedModel, forward: Callable) -> None:
    """Run a few tokens on a model, plain and under `KeepAll`.

    Args:
        model: The model, with weights. Afterwards it is as before.
        decoder: The part of it that maps tokens to hidden states.
        forward: What its forward pass is replaced by under `KeepAll`.

    Raises:
        MemxError: The model does not run under a policy, or gives another output.
    """
    kind, inputs = type(model).__name__, trial_inputs(model, decoder)
    with torch.no_grad(), evaluating(model), same_rotary_afterwards(length_dependent_rotary(decoder)):
        try:
            plain = _first(model(**inputs, use_cache=False))
            with wrapped_forward(decoder, _checked(kind, forward)), attention(decoder, ATTENTION):
                got = _first(model(**inputs, use_cache=True))
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            text = " ".join(str(error).split())[:150]
            raise MemxError(f"{kind} does not run with an eviction policy: {text}", hint=_HINT) from error
    if got.shape != plain.shape or not _equal(got, plain, model.dtype):
        raise MemxError(
            f"{kind} is not supported: with a policy that keeps every token its output is not the plain model's",
            hint=_HINT,
        )


def check_structure(model: PreTrainedModel) -> None:
    """Look at what the attention of a model without weights (on the meta device) gets.

    Raises MemxError where an eviction policy does not support it. What cannot run without weights passes; `attach`
    finds the rest.
    """
    decoder, kind = find_decoder(model), type(model).__name__
    cache = EvictingCache(Full(), layer_windows(decoder))

    def once(plain: Callable, *args: Any, **kwargs: Any) -> Any:
        cache.begin(torch.ones(ids.shape, dtype=torch.bool))
        kwargs |= dict(past_key_values=cache, use_cache=True, position_ids=torch.arange(TOKENS, device="meta")[None])
        return plain(*args, **kwargs, **{CACHE: cache})

    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    register()
    try:
        with (
            torch.no_grad(),
            evaluating(model),
            wrapped_forward(decoder, _checked(kind, once)),
            attention(decoder, ATTENTION),
        ):
            model(input_ids=ids)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return  # needs numbers, as experts do to be chosen
    if not all(layer.is_initialized for layer in cache.layers):
        raise MemxError(f"{kind} has layers without cached keys and values", hint=_HINT)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and every part of it back as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _checked(kind: str, forward: Callable) -> Callable:
    """forward, after a look at whether the model around the decoder has left the masks to it."""

    def checked(plain: Callable, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("attention_mask")
        if mask is not None and not isinstance(mask, Tensor):
            raise MemxError(
                f"an eviction policy does not support {kind}: it makes attention masks itself",
                hint="use the causal model of its text part alone, such as Gemma3ForCausalLM",
            )
        return forward(plain, *args, **kwargs)

    return checked


def trial_inputs(model: PreTrainedModel, decoder: PreTrainedModel) -> dict[str, Tensor]:
    """Different tokens that mean nothing special, as a model takes them.

    Args:
        model: The model, or its decoder.
        decoder: The part of it that maps tokens to hidden states.

    Returns:
        `input_ids` [1, TOKENS]; of a model without a table of embeddings, which reads states or pictures as vectors,
        `inputs_embeds` [1, TOKENS, width of its decoder].
    """
    place, table = input_device(model), embedding_table(model)
    if table is None:
        width: int = decoder.config.get_text_config().hidden_size  # type: ignore[union-attr]
        waves = torch.arange(1, TOKENS + 1)[:, None] * torch.linspace(0.1, 3, width)
        return {"inputs_embeds": waves.sin()[None].to(place, model.dtype)}
    return {"input_ids": (3 + torch.arange(TOKENS, device=place) * 7 % max(1, min(len(table), 500) - 3))[None]}


def _first(output: Any) -> Tensor:
    """The logits of a model, or the hidden states of a bare decoder."""
    return output[0].float()


def _equal(got: Tensor, plain: Tensor, dtype: torch.dtype) -> bool:
    """Whether two outputs agree but for rounding. A plain model that overflows has nothing to compare with."""
    if not plain.isfinite().all():
        return True
    return bool((got - plain).norm() <= _TOLERANCE.get(dtype, _LOOSE) * plain.norm())
