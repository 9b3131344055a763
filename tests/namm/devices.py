"""Several devices on a machine that has one: tensors that say they lie elsewhere, and refuse to meet others.

An `Away` tensor computes on the CPU. Inside `devices()`, a tensor with the device `xla:0`, `xla:1` and so on is one. An
operation on tensors of two devices fails there, as it does on GPUs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from memx.namm.cache import attention
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

KIND = "xla"  # of which this torch has no kernels, so that none runs unseen
_AS_OPERATIONS = (Tensor.to, Tensor.cpu)  # know devices by position


class Away(Tensor):
    """A tensor on the CPU that says it is on another device."""

    @staticmethod
    def __new__(cls, inner, device):
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=device
        )

    def __init__(self, inner, device):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextmanager
def devices() -> Iterator[None]:
    """Inside, there are devices `xla:0`, `xla:1`, ..."""
    with _Operations(), _Functions(), patch.object(attention, "causal_lower_right", _lower_right):
        yield


def _lower_right(queries, keys):
    """In place of torch's causal bias, which is a kind of tensor by itself and lies on no device."""
    mask = attention.bottom_right_causal(queries, keys, torch.device("cpu"))
    mask.anywhere = True
    return mask


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Functions as a whole: not all of them hand all that they do down as operations."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return torch.tensor(*args, **kwargs).to(device)
        if getattr(kwargs.get("attn_mask"), "anywhere", False):
            kwargs["attn_mask"] = kwargs["attn_mask"].to(args[0].device)
        if func in _AS_OPERATIONS or getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        return _run(func, args, kwargs)


def _run(func, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    places = {str(tensor.device) for tensor in tensors if tensor.dim()}  # a number may come from anywhere
    name = getattr(func, "__name__", str(func))
    moves = name.split(".")[0] in ("_to_copy", "copy_")
    assert moves or len(places) < 2, f"{name} of tensors on {', '.join(sorted(places))}"
    place = next((tensor.device for tensor in tensors if isinstance(tensor, Away)), None)
    if kwargs.get("device") is not None:
        asked = torch.device(kwargs["device"])
        place = asked if asked.type == KIND else None
        kwargs = {**kwargs, "device": torch.device("cpu")}
    given = tree_map(_inner, (args, kwargs))
    found = func(*given[0], **given[1])
    if place is None:
        return found
    if any(found is _inner(tensor) for tensor in tensors):  # changed in place
        return next(tensor for tensor in tensors if found is _inner(tensor))
    return tree_map(lambda leaf: Away(leaf, place) if isinstance(leaf, Tensor) else leaf, found)


def _inner(leaf):
    return leaf.inner if isinstance(leaf, Away) else leaf
