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
    """A model with an eviction policy attached; `attach` makes it.

    Attributes:
        decoder: The part of the model that maps tokens to hidden states.
        policy: The policy that evicts.
        protect: Spans of tokens that are never evicted.
        cache: The cache of the last forward pass; None before the first.
    """

    def __init__(self, decoder: PreTrainedModel, policy: Policy, protect: Sequence[tuple[int, int]]) -> None:
        self.decoder, self.policy, self.protect = decoder, policy, tuple(protect)
        self.windows = layer_windows(decoder)
        self.cache: EvictingCache | None = None
        self._empty = EvictingCache(policy, self.windows, self.protect)

    def new_cache(self) -> EvictingCache:
        """Make an empty cache for this model and policy.

        Pass it as `past_key_values` to continue from one call to the next. A forward pass without a cache makes one.

        Returns:
            The cache.
        """
        return self._empty.new()

    def forward(self, plain: Callable, *args: Any, **kwargs: Any) -> Any:
        """The decoder's forward pass under the policy; plain: its own."""
        output, self.cache = chunked_forward(plain, self._empty, self.decoder.config.model_type, *args, **kwargs)
        return output


@contextmanager
def attach(model: PreTrainedModel, policy: Policy, *, protect: Sequence[tuple[int, int]] = ()) -> Iterator[Attached]:
    """Let a policy evict tokens from the KV cache of a transformers model, inside a `with` block.

    Forward passes, `generate` (greedy, sampling, beam search) and pipelines inside the block use an evicting cache.
    After the block the model is as it was. The policy runs whenever the length of a sequence is a multiple of
    `policy.every` tokens, however the input is cut into pieces.

    Args:
        model: A causal decoder on transformers' attention interface, such as Llama, Mistral, Qwen 3, Gemma 3 or GPT-2.
        policy: A NAMM (`load`), a policy of `make_policy`, or your own `Policy`.
        protect: Spans (first, one past the last) of token numbers that no policy evicts, counted from 0 without
            padding. In a layer with a sliding window, tokens that leave the window are dropped nevertheless.

    Yields:
        The attached model. Its `cache` has `sizes()` and `kept_share()`; `new_cache()` makes an empty cache.

    Raises:
        MemxError: The model has no attention interface, or attention that is not softmax over all or a window of the
            tokens; or the policy's interval is not a multiple of 16. Inside the block: for a cache that was filled
            without the policy, for packed sequences, and for masks other than a padding mask.

    Example:
        ```python
        from pathlib import Path

        import memx

        model, tokenizer = memx.load_model("smollm2")
        inputs = tokenizer(Path("prompt.txt").read_text(), return_tensors="pt")
        policy = memx.namm.make_policy("snapkv", budget=0.25, every=64)
        with memx.namm.attach(model, policy) as attached:
            tokens = model.generate(**inputs, max_new_tokens=20)
            print(attached.cache.kept_share().shape)  # [layers, tokens]
        ```
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
