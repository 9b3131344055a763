"""The networks of a NAMM, as functions of a flat parameter vector: token features -> a score for every token.

P members of a population, B sequences, H key-value heads, T tokens in the order of their age, oldest first. One network
serves all layers and heads. Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166),
section 3.2; the flat order is W (in x out), b of the query-key-value, the output and the score layer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels import native
from .features.spectrum import FEATURES

Scorer = Literal["bam", "mlp", "linear"]
Activation = Literal["relu", "gelu"]
HEAD = 32  # width of BAM's one head
_HIDDEN = -1e9  # what a hidden key's score is lowered by: its weight is zero exactly


class Layer(NamedTuple):
    """A linear layer of every member: weight [P, in, out], bias [P, out]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [P or 1, N, in] to [P, N, out]."""
        return torch.baddbmm(self.bias[:, None], x.expand(len(self.weight), -1, -1), self.weight)


def layer_sizes(widths: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(in, out) of the layers of a multi-layer perceptron."""
    return tuple(pairwise(widths))


def bam_sizes(inputs: int) -> tuple[tuple[int, int], ...]:
    """(in, out) of the layers of the backward attention memory model."""
    return (inputs, 3 * HEAD), (HEAD, 2 * inputs), (inputs, 1)


def network_sizes(scorer: Scorer, inputs: int, hidden: tuple[int, ...] = ()) -> tuple[tuple[int, int], ...]:
    """(in, out) of the layers of a scorer that reads so many numbers of a token."""
    if scorer == "bam":
        return bam_sizes(inputs)
    return layer_sizes((inputs, *(hidden if scorer == "mlp" else ()), 1))


def count(sizes: tuple[tuple[int, int], ...]) -> int:
    """How many parameters layers of such sizes have."""
    return sum((inputs + 1) * outputs for inputs, outputs in sizes)


BAM_SIZES = bam_sizes(FEATURES)
BAM_PARAMETERS = count(BAM_SIZES)  # 4,172


def unflatten(parameters: Tensor, sizes: tuple[tuple[int, int], ...]) -> list[Layer]:
    """The layers of vectors [P, n]. Raises AssertionError for another n than `count` says."""
    assert parameters.dim() == 2 and parameters.shape[1] == count(sizes), (parameters.shape, count(sizes))
    layers, begin = [], 0
    for inputs, outputs in sizes:
        weight = parameters[:, begin : begin + inputs * outputs].unflatten(1, (inputs, outputs))
        begin += inputs * outputs
        layers.append(Layer(weight, parameters[:, begin : begin + outputs]))
        begin += outputs
    return layers


def flatten(layers: list[Layer]) -> Tensor:
    """The vectors [P, n] of layers; what `unflatten` takes apart."""
    return torch.cat([part.flatten(1) for layer in layers for part in layer], 1)


def bam_scores(parameters: Tensor, tokens: Tensor, mask: Tensor | None = None, *, strict: bool = False) -> Tensor:
    """Score tokens by the backward attention memory model: [B, H, T], or [P, B, H, T] for a population.

    Token i attends to itself and to newer tokens, or with `strict` to newer ones alone. h = x * (1 + mult) + res, with
    (res, mult) the output of one head of 32; the score is linear in h. Done for all members at once, without a T x T
    mask: on a CPU by a compiled loop, else, and for gradients, as causal attention on the flipped sequence.

    Args:
        parameters: [n] or [P, n], float32; n is 4,172 of the published 25 inputs.
        tokens: Inputs [B, H, T, i], or [P, B, H, T, i] to give each member its own.
        mask: Which tokens exist [B or P*B, 1 or H, T], bool; the others are seen by none. None: all.
        strict: Whether tokens do not see themselves.

    Returns:
        The scores; that of a token that does not exist has no meaning.
    """
    qkv, output, score = unflatten(torch.atleast_2d(parameters).float(), bam_sizes(tokens.shape[-1]))
    members, (batch, heads, length) = len(qkv.weight), tokens.shape[-4:-1]
    if mask is not None:
        mask = mask.expand(-1, heads, length)
        mask = mask.repeat(members * batch // len(mask), 1, 1)
    backward = _compiled(parameters, tokens)
    x = tokens.float() if backward else tokens.float().flip(-2)  # for causal attention the newest comes first
    x = x.reshape(members if tokens.dim() == 5 else 1, -1, tokens.shape[-1])
    parts = qkv(x).view(members * batch, heads, length, 3 * HEAD)
    if backward:
        exists = None if mask is None else mask.flatten(0, 1)
        read = native.backward_attention(parts.flatten(0, 1), exists, strict=strict)
    else:
        read = _causal_attention(parts, None if mask is None else ~mask.flip(2), strict=strict)
    res, mult = output(read.reshape(members, -1, HEAD)).chunk(2, -1)
    scores = score(torch.addcmul(x + res, x, mult)).view(members, batch, heads, length)
    scores = scores if backward else scores.flip(3)
    return scores[0] if parameters.dim() == 1 else scores


def _compiled(*inputs: Tensor) -> bool:
    """Whether the compiled attention serves: it has no gradients, and torch.compile cannot look into it."""
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return not wanted and not torch.compiler.is_compiling() and native.available(*inputs)


def _causal_attention(parts: Tensor, hidden: Tensor | None, *, strict: bool) -> Tensor:
    """What each token reads of those before it: [P*B, H, T, 32]; hidden [P*B, H, T] keys weigh nothing.

    parts [P*B, H, T, 96]: query, key, value. Of four dimensions, or torch takes no fused kernel and makes all T x T
    scores. Fused kernels take no mask beside the causal one: a number beside each key lowers its score.
    """
    query, key, value = parts.chunk(3, -1)
    if hidden is None and not strict:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    query = F.pad(query * HEAD**-0.5, (0, 1), value=1.0)
    lowered = torch.zeros_like(key[..., :1]) if hidden is None else hidden[..., None] * _HIDDEN
    key = torch.cat([key, lowered], -1)
    if strict:  # a key of nothing goes first, and each query sees one key less
        nothing = torch.zeros_like(key[..., :1, :])
        nothing[..., -1] = _HIDDEN / 1000  # still far above a hidden key, which may be all else there is
        key = torch.cat([nothing, key[..., :-1, :]], -2)
        value = F.pad(value[..., :-1, :], (0, 0, 1, 0))
    value = F.pad(value, (0, 1))  # of the width of the keys, which fused kernels want
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)[..., :HEAD]


def mlp_scores(
    parameters: Tensor, tokens: Tensor, *, hidden: tuple[int, ...] = (), activation: Activation = "relu"
) -> Tensor:
    """Score every token by itself: [B, H, T], or [P, B, H, T] for a population.

    parameters [n] or [P, n], tokens as in `bam_scores`: of linear layers i -> hidden -> ... -> 1 with ReLU or GELU (by
    the error function) between; i + 1 without hidden ones.
    """
    sizes = layer_sizes((tokens.shape[-1], *hidden, 1))
    layers = unflatten(torch.atleast_2d(parameters).float(), sizes)
    x = tokens.float().reshape(tokens.shape[0] if tokens.dim() == 5 else 1, -1, tokens.shape[-1])
    for layer in layers[:-1]:
        x = layer(x).relu() if activation == "relu" else F.gelu(layer(x))
    scores = layers[-1](x).view(-1, *tokens.shape[-4:-1])
    return scores[0] if parameters.dim() == 1 else scores
