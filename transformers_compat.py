"""Every name of transformers that memx leans on and that its documentation does not promise, 5.2 to 5.23, in one place.

`tests/test_compat.py` checks each in the version that is installed, and says what breaks where. Three more cannot be
here: `_init_weights`, which `memory_layers/llama.py` overrides beside `LlamaMLP`, the list of causal models that
`experiments/base_models/load.py` looks names up in, and module names in `registration.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CacheLayer(CacheLayerMixin):
    """A layer of a cache without a longest length: base class of memx's own, under the names of every version."""

    def get_max_length(self) -> int:
        """-1: no maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name in older versions


def query_count(queries: int | Tensor) -> int:
    """The first argument of `CacheLayerMixin.get_mask_sizes`: a number, in older versions the queries' positions."""
    return queries if isinstance(queries, int) else len(queries)


def become(cache: DynamicCache, other: Cache) -> None:
    """Turn an empty cache into another one, also for whoever holds it: `generate` and users read theirs afterwards."""
    cache.__dict__.clear()
    cache.__dict__.update(vars(other))
    cache.__class__ = type(other)  # pyright: ignore[reportAttributeAccessIssue]


def has_attention_interface(decoder: nn.Module) -> bool:
    """Whether a decoder calls attention by the name in its config, and hands unknown arguments down to it."""
    return bool(getattr(decoder, "_supports_attention_backend", False))


def attention_of(model: PreTrainedModel) -> str:
    """The name of the attention function that a model calls."""
    return model.config._attn_implementation or "sdpa"


@contextmanager
def attention(decoder: PreTrainedModel, name: str) -> Iterator[None]:
    """Inside, a decoder calls the attention function of this name.

    Not `set_attn_implementation`, which checks the name against what a model class allows.
    """
    config: Any = decoder.config
    before = config._attn_implementation
    try:
        config._attn_implementation = name
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def wrapped_forward(decoder: PreTrainedModel, around: Callable[..., Any]) -> Iterator[None]:
    """Inside, `decoder(...)` runs around(forward, ...), with the forward pass of before as its first argument.

    transformers calls `self.forward` of the object, so that one put there comes before the class's, `generate` and
    pipelines included. Hooks of accelerate do the same: theirs is put back.
    """
    plain, before = decoder.forward, vars(decoder).get("forward")

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return around(plain, *args, **kwargs)

    forward.memx = True  # type: ignore[attr-defined]
    try:
        decoder.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        vars(decoder).pop("forward", None)
        if before is not None:
            decoder.forward = before  # type: ignore[method-assign]


def is_wrapped(decoder: PreTrainedModel) -> bool:
    """Whether a decoder is inside `wrapped_forward`."""
    return getattr(vars(decoder).get("forward"), "memx", False)


def initialise(model: PreTrainedModel, module: nn.Module) -> None:
    """Draw the weights of one module as `post_init` of the model would."""
    model._init_weights(module)


def copy_buffers(model: nn.Module, source: nn.Module) -> None:
    """Give a model the buffers of another: the rotary frequencies, which no state dict holds."""
    buffers = dict(source.named_buffers())
    for path, _ in list(model.named_buffers()):
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, buffers[path])
        if name == "inv_freq":  # what transformers resets it to after a longer sequence
            model.get_submodule(owner).original_inv_freq = buffers[path]


def pad_left(tokenizer: Any) -> None:
    """Have a tokenizer pad on the left, also after it is saved: saved are the arguments that it was made with."""
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
