"""Fits a new memory's queries to the host that it is put into, so that its tokens look up different slots.

A trained host's hidden states lie along a few directions, their mean first of all: a memory whose random queries follow
them ends up using few of its slots. Whitened, they spread. T tokens of width d.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...memory_layers.product_keys import ProductKeys

_TOKENS = 4096  # that are looked at
_SHRINKAGE = 0.1  # of the mean variance, added to each direction's: the least ones are noise


@torch.no_grad()
def whiten_queries(model: nn.Module, blocks: Tensor, counted: Tensor | None = None) -> None:
    """Multiply the queries of every memory layer by what whitens its inputs over blocks of tokens [R, S], in place.

    model: a Llama without its head. counted [R, S]: tokens that count, if not all. The inputs' mean is projected out,
    since queries have no bias; then they have unit variance in all directions, but for a shrinkage. Outputs change,
    unless the layers are silent; all of them are fitted to what they were given before.
    """
    layers = [module for module in model.modules() if isinstance(module, ProductKeys)]
    if not layers:
        return
    inputs, rows = [_Inputs() for _ in layers], -(-_TOKENS // blocks.shape[1])
    hooks = [layer.register_forward_pre_hook(kept) for layer, kept in zip(layers, inputs, strict=True)]
    try:
        for batch in blocks[:rows].split(8):
            model(batch.to(layers[0].keys.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, kept in zip(layers, inputs, strict=True):
        weight, x = layer.query.weight, torch.cat(kept.found)  # [T, d]
        if counted is not None:
            x = x[counted[:rows].flatten().cpu()]
        weight.copy_((weight.double().cpu() @ whitening(x)).to(weight))


class _Inputs:
    """A hook that keeps what a layer is given, as [T, d] in float64."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def __call__(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.found.append(given[0].flatten(0, -2).double().cpu())


def whitening(x: Tensor) -> Tensor:
    """The symmetric-root whitening matrix [d, d] of x [T, d] (float64) without its mean."""
    mean = x.mean(0)
    centre = torch.eye(x.shape[1], dtype=x.dtype) - torch.outer(mean, mean) / mean.square().sum().clamp_min(1e-30)
    covariance = torch.cov((x @ centre).T)
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(0) + _SHRINKAGE * values.mean().clamp_min(1e-30)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T @ centre
