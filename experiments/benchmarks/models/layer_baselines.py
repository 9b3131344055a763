"""The baselines of the benchmark of a training step: a name and a shape -> a layer and its optimiser.

memx's own layer with each of its value steps; the usual way, an embedding bag with a dense gradient, with torch's
optimisers; and the layers of other packages, where they are installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....errors import MemxError
from ....memory_layers.layer import MemoryLayer
from ....memory_layers.peer import PeerLayer
from ...config.training import TrainingConfig
from ...optim.optimizer import Optimizer

_LR = 1e-3


@dataclass(frozen=True)
class StepShape:
    """tokens a step, model width d, heads H, slots kept per head k; key_width d_k (both halves)."""

    tokens: int = 2048
    width: int = 256
    heads: int = 4
    top_k: int = 32
    key_width: int = 128


@dataclass(frozen=True)
class Baseline:
    """A layer [T, d] -> [T, d], and what applies and clears its gradients."""

    layer: Callable[[Tensor], Tensor]
    update: Callable[[], object]


class PlainMemory(MemoryLayer):
    """The same layer as others write it: all k*k sums ranked, torch's embedding bag, a dense or COO gradient."""

    def __init__(self, *arguments: Any, sparse: bool = False, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.sparse = sparse

    def forward(self, x: Tensor) -> Tensor:
        """Map x [T, d] to [T, d]."""
        query = self.query(x).view(len(x), self.heads, 2, -1)  # [T, H, 2, d_k/2]
        scores = torch.einsum("thpd,phnd->thpn", query, self.keys)
        best, index = scores.topk(self.top_k, dim=-1)  # [T, H, 2, k]
        sums = (best[:, :, 0, :, None] + best[:, :, 1, None, :]).flatten(-2)
        kept, pair = sums.topk(self.top_k, dim=-1)  # [T, H, k]
        first, second = index.unbind(2)
        slots = first.gather(-1, pair // self.top_k) * self.keys.shape[2] + second.gather(-1, pair % self.top_k)
        weights = kept.softmax(-1).flatten(1)
        return F.embedding_bag(
            slots.flatten(1), self.values.weight, per_sample_weights=weights, mode="sum", sparse=self.sparse
        )


def _memx(shape: StepShape, slots: int, device: torch.device, **settings: Any) -> Baseline:
    layer = MemoryLayer(shape.width, slots, heads=shape.heads, top_k=shape.top_k, key_width=shape.key_width).to(device)
    return _with_memx_optimizer(layer, shape, shape.tokens * shape.heads * shape.top_k, settings)


def _memx_peer(shape: StepShape, slots: int, device: torch.device) -> Baseline:
    layer = PeerLayer(shape.width, slots, heads=shape.heads, top_k=shape.top_k, key_width=shape.key_width).to(device)
    return _with_memx_optimizer(layer, shape, 2 * shape.tokens * shape.heads * shape.top_k, {})


def _with_memx_optimizer(layer: nn.Module, shape: StepShape, reads: int, settings: Mapping[str, Any]) -> Baseline:
    config = TrainingConfig(lr=_LR, value_lr=_LR, warmup=0, weight_decay=0.0, **settings)
    optimizer = Optimizer(layer, config, lookups=reads)
    steps = count()
    return Baseline(layer, lambda: optimizer.step(next(steps)))


def _plain(
    shape: StepShape, slots: int, device: torch.device, make: Callable[[PlainMemory], Any], *, sparse: bool = False
) -> Baseline:
    layer = PlainMemory(
        shape.width, slots, heads=shape.heads, top_k=shape.top_k, key_width=shape.key_width, sparse=sparse
    ).to(device)
    return _with_torch_optimizers(layer, make(layer))


def _with_torch_optimizers(layer: Callable[[Tensor], Tensor], optimizers: Any) -> Baseline:
    listed = optimizers if isinstance(optimizers, list) else [optimizers]

    def update() -> None:
        for optimizer in listed:
            optimizer.step()
            optimizer.zero_grad()

    return Baseline(layer, update)


def _adamw(layer: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(layer.parameters(), lr=_LR, weight_decay=0.0, **settings)


def _sparse_adam(layer: PlainMemory) -> list[torch.optim.Optimizer]:
    rest = [p for p in layer.parameters() if p is not layer.values.weight]
    return [torch.optim.SparseAdam([layer.values.weight], lr=_LR), torch.optim.AdamW(rest, lr=_LR, fused=True)]


def _pkm(shape: StepShape, slots: int, device: torch.device) -> Baseline:
    pkm: Any = (
        import_module("product_key_memory")
        .PKM(shape.width, heads=shape.heads, num_keys=isqrt(slots), topk=shape.top_k, dim_head=shape.key_width // 2)
        .to(device)
    )
    return _with_torch_optimizers(lambda x: pkm(x[None])[0], _adamw(pkm))


def _peer_pytorch(shape: StepShape, slots: int, device: torch.device) -> Baseline:
    peer: Any = (
        import_module("PEER_pytorch")
        .PEER(
            shape.width,
            heads=shape.heads,
            num_experts=slots,
            num_experts_per_head=shape.top_k,
            dim_key=shape.key_width // 2,
            non_competing_scores=False,
        )
        .to(device)
    )
    return _with_torch_optimizers(lambda x: peer(x[None])[0], _adamw(peer))


BASELINES: Mapping[str, Callable[[StepShape, int, torch.device], Baseline]] = {
    "memx": _memx,
    "memx, one second moment a row": lambda *given: _memx(*given, value_second_moment="row"),
    "memx, also bf16 momentum": lambda *given: _memx(*given, value_second_moment="row", value_moments="bfloat16"),
    "memx, dense AdamW": lambda *given: _memx(*given, value_optimizer="dense"),
    "memx PEER": _memx_peer,
    "embedding_bag + AdamW": lambda *given: _plain(*given, make=lambda layer: _adamw(layer)),
    "embedding_bag + fused AdamW": lambda *given: _plain(*given, make=lambda layer: _adamw(layer, fused=True)),
    "embedding_bag + SparseAdam": lambda *given: _plain(*given, make=_sparse_adam, sparse=True),
    "product-key-memory + AdamW": _pkm,
    "PEER-pytorch + AdamW": _peer_pytorch,
}
_PACKAGES = {"product-key-memory + AdamW": "product_key_memory", "PEER-pytorch + AdamW": "PEER_pytorch"}


def baseline_names(peers: bool) -> list[str]:
    """Their names: without peers, what needs no other package. Raises MemxError if a peer is not installed."""
    missing = [package for package in _PACKAGES.values() if find_spec(package) is None]
    if peers and missing:
        raise MemxError(
            f"--third-party needs packages that are not installed: {', '.join(missing)}",
            hint="install them: pip install product-key-memory PEER-pytorch",
        )
    return [name for name in BASELINES if peers or name not in _PACKAGES]
