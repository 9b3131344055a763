"""The inputs of a small scorer by their equations, in float64: a whole context of one sequence -> [H, N, inputs].

The brute force against which streaming features are tested. Nothing here is fast, streams or knows of a cache: a plain
forward pass is recorded, each layer's attention matrix is written out whole, and every input is one formula over it.

L layers, Hq query heads that share H key-value heads (G = Hq / H), N tokens, d numbers a head. Key i counts from 0.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from memx.transformers_compat import attention
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

RECENT = 32  # queries whose greatest attention counts, and how much later "later" is
FIRST = 4  # tokens that are a class of their own, and of which no query counts in the mean of queries
AHEAD = 512  # positions over which the rotation of a query to come is averaged
NAMES = (
    "log_age",
    "log_age_squared",
    "key_norm",
    "value_norm",
    "keydiff",
    "keydiff_unrotated",
    "recent_max",
    "expected",
    "first_four",
)


@dataclass
class Layer:
    """What one layer computed for a context, in float64.

    Attributes:
        query, key, value: [Hq, N, d] and [H, N, d], as they attend: after rotation.
        plain_query, plain_key: the same before rotation.
        scale: what products of queries and keys are multiplied by.
        window: how many positions a query sees back, itself included; None for all.
        rotation: [d, d], the mean over the next 512 positions: a plain query's mean rotation is `rotation @ query`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    plain_query: Tensor
    plain_key: Tensor
    scale: float
    window: int | None
    rotation: Tensor

    def weights(self) -> Tensor:
        """The attention of every query to every key: [H, G, Q, N]."""
        grouped = self.query.unflatten(0, (self.key.shape[0], -1))
        scores = self.scale * grouped @ self.key[:, None].mT
        place = torch.arange(self.key.shape[1])
        back = place[:, None] - place
        hidden = (back < 0) if self.window is None else (back < 0) | (back >= self.window)
        return scores.masked_fill(hidden, -torch.inf).softmax(-1)


def nine_inputs(layer: Layer) -> Tensor:
    """The nine inputs of the default set, in the order of `NAMES`, not standardised: [H, N, 9]."""
    heads, count = layer.key.shape[:2]
    age = torch.arange(count, 0, -1, dtype=torch.float64).log().expand(heads, -1)
    parts = [
        age,
        age**2,
        layer.key.norm(dim=-1).log(),
        layer.value.norm(dim=-1).log(),
        keydiff(layer.key),
        keydiff(layer.plain_key),
        recent_max(layer.weights()),
        (1e-9 + expected_attention(layer)).log(),
        (torch.arange(count) < FIRST).double().expand(heads, -1),
    ]
    return torch.stack(parts, -1)


def keydiff(key: Tensor) -> Tensor:
    """The cosine of each key [H, N, d] with the mean direction of its head's keys: [H, N]."""
    directions = F.normalize(key, dim=-1)
    return (directions * F.normalize(directions.mean(1, keepdim=True), dim=-1)).sum(-1)


def recent_max(weights: Tensor) -> Tensor:
    """log(1e-6 + the greatest attention that a key gets of the last 32 queries and the group): [H, N]."""
    return (1e-6 + weights[:, :, -RECENT:].amax((1, 2))).log()


def received(weights: Tensor) -> Tensor:
    """log(1e-6 + attention that a key gets, group mean, over the number of queries from its own on): [H, N]."""
    later = torch.arange(weights.shape[-1], 0, -1)
    return (1e-6 + weights.mean(1).sum(1) / later).log()


def later_max(weights: Tensor) -> Tensor:
    """log(1e-6 + the greatest attention that a key gets of queries at least 32 after it): [H, N]."""
    place = torch.arange(weights.shape[-1])
    far = place[:, None] - place >= RECENT
    return (1e-6 + (weights * far).amax((1, 2))).log()


def expected_attention(layer: Layer) -> Tensor:
    """The attention that queries to come are expected to pay: [H, N]; none for the first four keys.

    With the mean m and covariance C (over N - 4 queries, not one less) of a query head's plain queries from position 4
    on, both rotated by the mean rotation R of the next 512 positions: softmax over the keys from 4 on of
    scale * k.Rm + scale^2 / 2 * k.(R C R^T)k, then the mean over the group. This is what normal queries q give as
    log E[exp(scale * q.k)].
    """
    queries = layer.plain_query[:, FIRST:]
    mean = queries.mean(1, keepdim=True)
    centred = queries - mean
    covariance = layer.rotation @ (centred.mT @ centred / queries.shape[1]) @ layer.rotation.T  # [Hq, d, d]
    mean = (layer.rotation @ mean.mT).mT  # [Hq, 1, d]
    key = layer.key.repeat_interleave(len(layer.query) // len(layer.key), 0)[:, FIRST:]
    scores = layer.scale * (key * mean).sum(-1) + layer.scale**2 / 2 * ((key @ covariance) * key).sum(-1)
    own = scores.softmax(-1).unflatten(0, (len(layer.key), -1)).mean(1)
    return F.pad(own, (FIRST, 0))


@torch.no_grad()
def record(model: PreTrainedModel, ids: Tensor) -> list[Layer]:
    """What each layer of a model with rotary positions, or none, computes for a context [N]."""
    decoder = model.base_model
    with _recorded(decoder) as pass_:
        decoder(input_ids=ids[None], use_cache=False)
    with _recorded(decoder) as ahead:
        if pass_.plain:
            places = torch.arange(len(ids), len(ids) + AHEAD)[None]
            decoder(input_ids=ids.new_zeros(1, AHEAD), position_ids=places, use_cache=False)
    layers = []
    for number, (query, key, value, scale, window) in enumerate(pass_.attended):
        plain_query, plain_key = pass_.plain[number] if pass_.plain else (query, key)
        rotation = ahead.mean_rotation(number, query.shape[-1]) if ahead.plain else torch.eye(query.shape[-1])
        tensors = [x.double() for x in (query, key, value, plain_query, plain_key)]
        layers.append(Layer(*tensors, scale, window, rotation.double()))
    return layers


@dataclass
class _Pass:
    """What was seen of one forward pass, by layer."""

    attended: list = field(default_factory=list)
    plain: list = field(default_factory=list)
    rotate: list = field(default_factory=list)

    def mean_rotation(self, layer: int, width: int) -> Tensor:
        """Each unit vector as a head of its own is rotated by all positions: the means are R's columns."""
        units = torch.eye(width, dtype=self.plain[layer][0].dtype)[None, :, None].expand(1, -1, AHEAD, -1)
        return self.rotate[layer](units)[0].double().mean(1).T


@contextmanager
def _recorded(decoder: PreTrainedModel) -> Iterator[_Pass]:
    """Inside, a forward pass leaves what its rotary function and its attention were given."""
    seen = _Pass()
    modelling = sys.modules[type(decoder).__module__]
    rotary = getattr(modelling, "apply_rotary_pos_emb", None)

    def rotate(query, key, *args, **kwargs):
        seen.plain.append((query[0], key[0]))
        seen.rotate.append(lambda units: rotary(units, units, *args, **kwargs)[0])
        return rotary(query, key, *args, **kwargs)

    def attend(module, query, key, value, mask, scaling=None, **kwargs):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        layer = Layer(query[0], key[0], value[0], query[0], key[0], scale, kwargs.get("sliding_window"), query)
        seen.attended.append((query[0], key[0], value[0], scale, layer.window))
        output = layer.weights() @ value[0][:, None]  # [H, G, N, d]
        return output.flatten(0, 1).transpose(0, 1)[None], None

    AttentionInterface.register("memx_reference", attend)
    try:
        if rotary is not None:
            modelling.apply_rotary_pos_emb = rotate
        with attention(decoder, "memx_reference"):
            yield seen
    finally:
        if rotary is not None:
            modelling.apply_rotary_pos_emb = rotary
