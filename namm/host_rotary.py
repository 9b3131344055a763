"""The rotary positions of a host's layers: found among what its rotary modules say, and checked on its keys.

A token that stands alone in its sequence attends to itself alone: whatever its position, every layer gets the same
hidden state. Its keys at several positions then differ by the rotation and nothing else, in every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ..errors import MemxError
from ..transformers_compat import (
    has_rotary_axes,
    input_device,
    length_dependent_rotary,
    rotary_frequencies,
    same_rotary_afterwards,
)
from .policies.base import Policy
from .policies.rotary import UNKNOWN, Rotary, no_rotation
from .trial import evaluating, trial_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_POSITIONS = (0, 1, 2, 3, 5, 8, 13, 18)  # no further than the trial's tokens, for learned positions
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}  # relative; another rotation is off by about 1
_LOOSE = 0.05  # of half precision


def find_rotary(model: PreTrainedModel, decoder: PreTrainedModel, layers: int) -> list[Rotary]:
    """Find how each layer of a model turns its keys.

    Args:
        model: The model, with weights. Afterwards it is as before.
        decoder: The part of it that maps tokens to hidden states.
        layers: How many layers its cache has.

    Returns:
        The rotation of each layer; `UNKNOWN` where none of those that the decoder's rotary modules allow fits its keys,
        and where image tokens have positions along several axes, which are not the number of a token.
    """
    if has_rotary_axes(decoder):
        return [UNKNOWN] * layers
    modules = list(rotary_frequencies(decoder))
    with evaluating(model), same_rotary_afterwards(length_dependent_rotary(decoder)):
        try:
            keys, moved = _keys(decoder)
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, AssertionError):
            return [UNKNOWN] * layers
        if len(keys) != layers:
            return [UNKNOWN] * layers
        changing = bool(length_dependent_rotary(decoder))
        return [_of_layer(layer, modules, moved=moved, changing=changing) for layer in keys]


def check_rotary(policy: Policy, rotary: list[Rotary]) -> None:
    """Raise MemxError if a policy reads keys before rotary positions, of a model whose rotation is not known."""
    unknown = [layer for layer, turn in enumerate(rotary) if not turn.known]
    if unknown and getattr(policy, "needs_rotary", False):
        raise MemxError(
            f"{policy.name} needs keys before rotary positions, and those of layer {unknown[0]} cannot be computed",
            hint="use a policy without unrotated keys or expected attention, or another model",
        )


def _of_layer(
    keys: Tensor, modules: list[Callable[[], tuple[Tensor, float]]], *, moved: bool, changing: bool
) -> Rotary:
    """The rotation under which one token's keys [positions, H, 1, d] are the same at all positions.

    modules: what each set of frequencies reads now; moved: whether positions are added to hidden states; changing:
    whether frequencies depend on the length of the text.
    """
    width = keys.shape[3]
    if moved and not modules:  # positions are added to the hidden states: there is nothing to turn back
        return no_rotation(width)
    candidates = [no_rotation(width)]
    for read in modules:
        frequencies, scaling = read()
        count = 2 * len(frequencies)
        for start in sorted({0, width - count}) if 0 < count <= width else ():
            candidates += [Rotary(width, frequencies, way, start, scaling, read) for way in (False, True)]
            back = partial(_backwards, read)
            candidates += [Rotary(width, -frequencies, way, start, scaling, back) for way in (False, True)]
    error, best = min(((_error(rotary, keys), rotary) for rotary in candidates), key=lambda pair: pair[0])
    if error > _TOLERANCE.get(keys.dtype, _LOOSE):
        return UNKNOWN
    return best if changing else replace(best, read=None)


def _error(rotary: Rotary, keys: Tensor) -> float:
    """How far one token's keys, turned back, are from those of its first position; relative."""
    positions = torch.tensor(_POSITIONS, device=keys.device)[:, None, None]
    back = rotary.unrotate(keys, positions)
    error = float((back - back[:1]).norm() / back.norm().clamp_min(1e-30))
    return error if error == error else float("inf")


@torch.no_grad()
def _keys(decoder: PreTrainedModel) -> tuple[list[Tensor], bool]:
    """One token's keys [positions, H, 1, d] of each layer, and whether its embedding depends on its position."""
    count, place = len(_POSITIONS), input_device(decoder)
    token = {name: tokens[:, 5:6] for name, tokens in trial_inputs(decoder, decoder).items()}
    inputs = {name: one.expand(count, *one.shape[1:]) for name, one in token.items()}
    positions = torch.tensor(_POSITIONS, device=place)[:, None]
    cache = DynamicCache()
    output = decoder(**inputs, position_ids=positions, past_key_values=cache, use_cache=True, output_hidden_states=True)
    first: Tensor = output.hidden_states[0]
    layers: list[Any] = list(cache.layers)
    return [layer.keys for layer in layers], not torch.allclose(first, first[:1].expand_as(first))


def _backwards(read: Callable[[], tuple[Tensor, float]]) -> tuple[Tensor, float]:
    frequencies, scaling = read()
    return -frequencies, scaling
