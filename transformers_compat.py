"""Every name of transformers that memx leans on and that its documentation does not promise, 5.2 to 5.23, in one place.

`tests/test_compat.py` checks each in the version that is installed, and says what breaks where. Three more cannot be
here: `_init_weights`, which `memory_layers/llama.py` overrides beside `LlamaMLP`, the list of causal models that
`experiments/base_models/load.py` looks names up in, and module names in `registration.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import torch
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


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model takes its input; of one whose weights are fetched for each pass (accelerate), where it computes."""
    if model.device.type != "meta":
        return model.device
    for module in model.modules():
        for one in _hooks(module):
            place = getattr(one, "execution_device", None)
            if place is not None and not isinstance(place, dict):
                return torch.device(place)
    return model.device


def embedding_table(model: PreTrainedModel) -> Tensor | None:
    """The weights of a model's table of input embeddings; None of a model that reads vectors alone."""
    try:
        module: Any = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return getattr(module, "weight", None)


def offloaded_weight(model: PreTrainedModel, name: str) -> torch.Tensor:
    """A weight that accelerate fetches for each pass, by its name in the model."""
    module, _, own = name.rpartition(".")
    weights = (getattr(hook, "weights_map", None) for hook in _hooks(model.get_submodule(module)))
    return next(found[own] for found in weights if found is not None)


def _hooks(module: torch.nn.Module) -> list[Any]:
    """The hooks of accelerate around a module."""
    hook = getattr(module, "_hf_hook", None)
    return list(getattr(hook, "hooks", [hook]))


def tensor_parallel_group(model: PreTrainedModel) -> Any:
    """The process group among which a model's weights are split, by heads or otherwise; None if they are whole.

    Either transformers has split them (`tp_plan`), or torch's `parallelize_module`, whose weights know their mesh.
    """
    mesh = getattr(model, "_device_mesh", None)
    if mesh is None:
        mesh = next((m for p in model.parameters() if (m := getattr(p, "device_mesh", None)) is not None), None)
    if mesh is None:
        return None
    if mesh.ndim > 1:
        if "tp" not in (mesh.mesh_dim_names or ()):
            return None
        mesh = mesh["tp"]
    return mesh.get_group() if mesh.size() > 1 else None


def recomputes_activations(decoder: nn.Module) -> bool:
    """Whether layers are run again for their gradients, without a cache; its property has two names."""
    return any(getattr(module, "gradient_checkpointing", False) for module in decoder.modules())


def length_dependent_rotary(decoder: nn.Module) -> list[nn.Module]:
    """The modules of a decoder whose rotary frequencies depend on a sequence's length: dynamic NTK and LongRoPE."""
    found = []
    for module in decoder.modules():
        kinds = getattr(module, "rope_type", None)  # a name, or one for each type of layer
        names = kinds.values() if isinstance(kinds, dict) else [kinds]
        if any(isinstance(name, str) and ("dynamic" in name or name == "longrope") for name in names):
            found.append(module)
    return found


def has_rotary_axes(decoder: nn.Module) -> bool:
    """Whether rotary positions of a decoder are of several axes: time, height and width of image tokens (M-RoPE)."""
    return any(hasattr(module, "mrope_section") for module in decoder.modules())


def rotary_frequencies(decoder: nn.Module) -> Iterator[Callable[[], tuple[Tensor, float]]]:
    """For each set of rotary frequencies in a decoder, a function that gives them and their scaling as of now."""

    def read(module: nn.Module, name: str) -> tuple[Tensor, float]:
        return getattr(module, name), float(getattr(module, name.replace("inv_freq", "attention_scaling"), 1.0))

    for module in decoder.modules():
        for name, _ in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and "original" not in name:
                yield partial(read, module, name)


@contextmanager
def rotary_length(modules: Sequence[nn.Module], length: int) -> Iterator[None]:
    """Inside, such modules compute the frequencies of a sequence of at least so many positions.

    They take the length from the positions that they are given. So they are given one more, the sequence's last, and
    what they compute for it is dropped.
    """

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        longer = torch.cat([positions, torch.full_like(positions[..., :1], length - 1)], -1)
        if "position_ids" in kwargs:
            return args, {**kwargs, "position_ids": longer}
        return (args[0], longer, *args[2:]), kwargs

    def drop(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return tuple(part[..., :-1, :] for part in output) if isinstance(output, tuple) else output[..., :-1, :]

    handles = [module.register_forward_pre_hook(add, with_kwargs=True) for module in modules]
    handles += [module.register_forward_hook(drop) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def reset_rotary(decoder: nn.Module) -> None:
    """Have a decoder's rotary embeddings forget the longest sequence that they saw, which dynamic ones remember."""
    for module in length_dependent_rotary(decoder):
        for name, value in list(vars(module).items()):
            if name.endswith("max_seq_len_cached"):
                setattr(module, name, getattr(module, "original_max_seq_len", value))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name.endswith("inv_freq") and "original" not in name:
                original = getattr(module, name.replace("inv_freq", "original_inv_freq"), buffer)
                setattr(module, name, original.to(buffer.device).clone())


@contextmanager
def same_rotary_afterwards(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put back what such modules remember of the sequences that they saw."""
    before = [
        ({name: value for name, value in vars(module).items() if not name.startswith("_")},
         {name: None if value is None else value.clone() for name, value in module.named_buffers(recurse=False)})
        for module in modules
    ]  # fmt: skip
    try:
        yield
    finally:
        for module, (attributes, buffers) in zip(modules, before, strict=True):
            vars(module).update(attributes)
            for name, value in buffers.items():
                setattr(module, name, value)


def initialise(model: PreTrainedModel, module: nn.Module) -> None:
    """Draw the weights of one module as `post_init` of the model would."""
    model._init_weights(module)


def copy_buffers(model: nn.Module, source: nn.Module) -> None:
    """Give a model the buffers that another has too: the rotary frequencies, which no state dict holds."""
    buffers = dict(source.named_buffers())
    for path in [path for path, _ in model.named_buffers() if path in buffers]:
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, buffers[path])
        if name == "inv_freq":  # what transformers resets it to after a longer sequence
            model.get_submodule(owner).original_inv_freq = buffers[path]


def pad_left(tokenizer: Any) -> None:
    """Have a tokenizer pad on the left, also after it is saved: saved are the arguments that it was made with."""
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise TypeError in place of a panic of tokenizers, which a damaged file can cause and which is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TypeError(f"tokenizers gave up: {error}") from None
