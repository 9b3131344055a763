"""`attach`: a transformers decoder and an eviction policy -> the same decoder, whose cache evicts.

Nothing of the model is rewritten. Its attention is switched to a registered function, which computes the same output by
torch's scaled dot-product attention and then hands queries and keys to the cache; its forward pass is cut where the
policy runs, so that prompts of any length, padded batches and generation all meet the policy in the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import MemxError
from ..transformers_compat import (
    attention,
    attention_of,
    input_device,
    is_wrapped,
    length_dependent_rotary,
    recomputes_activations,
    tensor_parallel_group,
    wrapped_forward,
)
from .cache.attention import ATTENTION, register
from .cache.cache import EvictingCache
from .cache.chunks import chunked_forward
from .cache.head_shards import HeadShards
from .host_rotary import check_rotary, find_rotary
from .policies.base import Policy
from .policies.rotary import Rotary
from .support import find_decoder, layer_windows
from .trial import KeepAll, compare_with_plain

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# models that have passed the trial, so that it is run once for each, and the rotary positions of their layers
_TRIED: WeakKeyDictionary[Any, list[Rotary]] = WeakKeyDictionary()


class Attached:
    """A model with an eviction policy attached; `attach` makes it.

    Attributes:
        decoder: The part of the model that maps tokens to hidden states.
        policy: The policy that evicts.
        protect: Spans of tokens that are never evicted.
        cache: The cache of the last forward pass; None before the first.
    """

    def __init__(
        self,
        decoder: PreTrainedModel,
        policy: Policy,
        protect: Sequence[tuple[int, int]],
        rotary: Sequence[Rotary] | None = None,
        shards: HeadShards | None = None,
    ) -> None:
        self.decoder, self.policy, self.protect = decoder, policy, tuple(protect)
        self.windows, self._rotary = layer_windows(decoder), length_dependent_rotary(decoder)
        self._own_attention = attention_of(decoder)
        self.cache: EvictingCache | None = None
        self._empty = EvictingCache(policy, self.windows, self.protect, rotary, shards)

    def new_cache(self) -> EvictingCache:
        """Make an empty cache for this model and policy.

        Pass it as `past_key_values` to continue from one call to the next. A forward pass without a cache makes one.

        Returns:
            The cache.
        """
        return self._empty.new()

    def forward(self, plain: Callable, *args: Any, **kwargs: Any) -> Any:
        """The decoder's forward pass under the policy; plain: its own. Without a cache it is the plain one."""
        cached = isinstance(kwargs.get("past_key_values"), EvictingCache)
        use_cache = kwargs.get("use_cache")
        if use_cache is None and not cached:  # as in transformers
            use_cache = getattr(self.decoder.config, "use_cache", None)
        if use_cache is False:
            if cached:
                raise MemxError("use_cache=False with an evicting cache", hint="pass one of them, not both")
            with attention(self.decoder, self._own_attention):
                return plain(*args, **kwargs)
        if self.decoder.training and recomputes_activations(self.decoder):
            raise MemxError(
                "gradient checkpointing is not supported with an eviction policy attached",
                hint="call model.eval() first, or train outside `with attach(...)`",
            )
        model_type = self.decoder.config.model_type
        # shapes change with every piece and eviction: compiled layers would be compiled again and again
        with torch.compiler.set_stance("force_eager"):
            output, self.cache = chunked_forward(plain, self._empty, model_type, self._rotary, *args, **kwargs)
        if output[0].requires_grad:
            output[0].register_hook(_refuse_gradient)
        return output


def _refuse_gradient(gradient: Tensor) -> None:
    raise MemxError(
        "training is not supported with an eviction policy attached: evicted tokens would get no gradient",
        hint="call backward() on outputs computed outside `with attach(...)`",
    )


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
            tokens; or the policy is a name, or its interval is not a multiple of 16. Inside the block: for a cache that
            was filled without the policy, for packed sequences, and for masks other than a padding mask.

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
    if isinstance(policy, str):
        hint = f'use memx.namm.load("{policy}") for a NAMM, or memx.namm.make_policy("{policy}", budget=0.25)'
        raise MemxError(f"attach needs a policy, not its name {policy!r}", hint=hint)
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
    if input_device(model).type != "meta":
        if model not in _TRIED:
            compare_with_plain(model, decoder, Attached(decoder, KeepAll(), ()).forward)
            _TRIED[model] = find_rotary(model, decoder, len(attached.windows))
        attached = Attached(decoder, policy, protect, _TRIED[model], _head_shards(model, decoder))
        check_rotary(policy, _TRIED[model])
    # a compiled model leaves its graph here
    forward = torch.compiler.disable(attached.forward)
    with wrapped_forward(decoder, forward), attention(decoder, ATTENTION):
        yield attached


def _head_shards(model: PreTrainedModel, decoder: PreTrainedModel) -> HeadShards | None:
    """How several processes share out the key-value heads of a model, if they may (tensor parallelism)."""
    group = tensor_parallel_group(model)
    if group is None:
        return None
    config: Any = decoder.config.get_text_config()
    return HeadShards(group, getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
