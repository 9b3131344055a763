"""Features of a token's place, key and value: no attention is read.

i: a token's position, N: tokens so far; k_i, v_i: its key (after rotary positions) and value in one key-value head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import View
from .feature import Feature, first_tokens, visible

_SMALLEST = 1e-12  # that a norm counts as, so that its logarithm is finite


def age(view: View, state: Tensor) -> Tensor:
    """N - i, 1 for the newest token: [B, H, T, 1]."""
    return _age(view)[..., None]


def log_age(view: View, state: Tensor) -> Tensor:
    """log(N - i) and its square: [B, H, T, 2]."""
    logs = _age(view).log()
    return torch.stack([logs, logs.square()], -1)


def key_norm(view: View, state: Tensor) -> Tensor:
    """log |k_i|: [B, H, T, 1]."""
    return _log_norm(view.key)


def value_norm(view: View, state: Tensor) -> Tensor:
    """log |v_i|: [B, H, T, 1]."""
    return _log_norm(view.value)


def keydiff(view: View, state: Tensor) -> Tensor:
    """The cosine of k_i and the mean direction of all keys of the head: [B, H, T, 1].

    Mean direction: the mean of k_j / |k_j| over the tokens that are visible now. Source: Park et al. 2025, "KeyDiff"
    (arXiv 2504.15364), section 3.
    """
    return cosine_to_mean(view.key, visible(view))[..., None]


def keydiff_unrotated(view: View, state: Tensor) -> Tensor:
    """`keydiff` of keys before rotary positions: [B, H, T, 1]."""
    key = view.rotary.unrotate(view.key, view.recent.positions)
    return cosine_to_mean(key, visible(view))[..., None]


def first_four(view: View, state: Tensor) -> Tensor:
    """1 for the first four tokens of a sequence, else 0: [B, H, T, 1]."""
    return first_tokens(view)[..., None].float()


def cosine_to_mean(key: Tensor, there: Tensor) -> Tensor:
    """The cosine of each key [B, H, T, d] and the mean of the normalised keys that are there: [B, H, T].

    there: [B, H, T], bool. In float32, or float64 of float64 keys.
    """
    key = key.to(torch.promote_types(key.dtype, torch.float32))
    key = F.normalize(key, dim=-1)
    anchor = (key * there[..., None]).sum(2, keepdim=True)  # its length does not matter
    return (key * F.normalize(anchor, dim=-1)).sum(-1)


def _age(view: View) -> Tensor:
    return (view.ages + 1).clamp_min(1).float()


def _log_norm(x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return norm.clamp_min(_SMALLEST).log()


FEATURES = (
    Feature("age", 1, age, "N - i"),
    Feature("log_age", 2, log_age, "log(N - i) and its square"),
    Feature("key_norm", 1, key_norm, "log |k_i|"),
    Feature("value_norm", 1, value_norm, "log |v_i|"),
    Feature("keydiff", 1, keydiff, "cosine of k_i and the mean of k_j / |k_j|"),
    Feature("keydiff_unrotated", 1, keydiff_unrotated, "the same of keys before rotary positions", rotary=True),
    Feature("first_four", 1, first_four, "1 for the first four tokens, else 0"),
)
