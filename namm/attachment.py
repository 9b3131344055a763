"""`attach`: a transformers decoder and an eviction policy -> the same decoder, whose cache evicts.

Nothing of the model is rewritten. Its attention is switched to a registered function, which computes the same output by
torch's scaled dot-product attention and then hands queries and keys to the cache; its forward pass is cut where the
policy runs, so that prompts of any length, padded batches and generation all meet the policy in the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import MemxError
from ..transformers_compat import attention, has_attention_interface, is_wrapped, wrapped_forward
from .cache.attention import ATTENTION, register
from .cache.cache import EvictingCache
from .cache.chunks import chunked_forward
from .policies.base import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KINDS = ("full_attention", "sliding_attention")


class Attached:
    """A model under a policy.

    Attributes:
        cache: What the last forward pass used; None before the first.
    """

    def __init__(self, decoder: PreTrainedModel, policy: Policy, protect: Sequence[tuple[int, int]]) -> None:
        self.decoder, self.policy, self.protect = decoder, policy, tuple(protect)
        self.windows = layer_windows(decoder)
        self.cache: EvictingCache | None = None
        self._empty = EvictingCache(policy, self.windows, self.protect)

    def new_cache(self) -> EvictingCache:
        """An empty cache for this host; a forward pass without one makes its own."""
        return self._empty.new()

    def forward(self, plain: Callable, *args: Any, **kwargs: Any) -> Any:
        """The decoder's forward pass under the policy; plain: its own."""
        output, self.cache = chunked_forward(plain, self._empty, self.decoder.config.model_type, *args, **kwargs)
        return output


@contextmanager
def attach(model: PreTrainedModel, policy: Policy, *, protect: Sequence[tuple[int, int]] = ()) -> Iterator[Attached]:
    """Let a policy evict from the cache of a transformers decoder: `with attach(model, policy): model.generate(...)`.

    Inside, forward passes, chunked or not, `generate` (greedy, sampling, beams) and pipelines use an evicting cache;
    afterwards the model is as it was. Gradients do not pass what was evicted.

    Args:
        model: A causal decoder on transformers' attention interface.
        policy: A NAMM, or one of `make_policy`.
        protect: Spans (first, one past the last) of token numbers, padding not counted, that no policy evicts; what
            leaves a layer's window goes all the same.

    Yields:
        What the model is under the policy: its last cache, and empty ones to begin with.

    Raises:
        MemxError: A model without that interface, or with attention that is not plain or windowed softmax; an interval
            of the policy that is no multiple of 16; and inside the block for a cache that was begun without the
            policy, packed sequences, and masks other than one of padding.
    """
    decoder = find_decoder(model)
    if is_wrapped(decoder):
        raise MemxError("this model has a policy attached already", hint="exit its `with attach(...)` block first")
    for span in protect:
        if not (len(span) == 2 and all(isinstance(end, int) for end in span) and 0 <= span[0] < span[1]):
            raise MemxError(
                f"protected span {span} is not a (start, stop) pair of token numbers",
                hint="use 0 <= start < stop; stop is exclusive",
            )
    attached = Attached(decoder, policy, protect)  # finds what does not fit before anything is changed
    register()
    with wrapped_forward(decoder, attached.forward), attention(decoder, ATTENTION):
        yield attached


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
