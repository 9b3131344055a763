"""What caches would hold, before anything is loaded: bytes by policy and budget, work by token.

One prompt of full length. Bytes are counted on the meta device. Seconds are estimates; nothing was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from ...namm.cache_bytes import CacheBytes, CacheShape, cache_bytes
from ...namm.policies.base import Policy
from ...namm.policies.heuristics import Full
from ..models.host_shape import Shape, host_shape, meta_model
from .gpus import GPUS, Gpu
from .mesh import Assumptions

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_GPU = "h100"


@dataclass(frozen=True)
class PolicyCache:
    """The cache of one prompt under a policy, right after an eviction.

    Attributes:
        policy: Its name, with how heads share the budget.
        budget: Share of the cache; None where a threshold decides, which is counted as if all stays.
        tokens: Tokens per head, a mean.
        kv_bytes: Of keys and values.
        policy_bytes: Of positions and of what the policy stores.
        decode_bytes: Bytes that a new token reads: the weights, keys and values.
        decode_flops: Of a new token.
        decode_seconds: Of a new token; an estimate.
    """

    policy: str
    budget: float | None
    tokens: float
    kv_bytes: int
    policy_bytes: int
    decode_bytes: int
    decode_flops: float
    decode_seconds: float


@dataclass(frozen=True)
class CacheCost:
    """What one prompt of an evaluation costs.

    Attributes:
        parameters: Of the model.
        weight_bytes: Of the model.
        length: Tokens of the prompt.
        token_bytes: Of keys and values of one token, in all layers.
        full: The full cache.
        policies: Each policy at each budget.
        prefill_flops: Of the prompt.
        prefill_seconds: Of the prompt; an estimate.
        gpus: GPUs that hold the weights and the full cache.
        assumption: What the seconds rest on.
    """

    parameters: int
    weight_bytes: int
    length: int
    token_bytes: int
    full: PolicyCache
    policies: list[PolicyCache]
    prefill_flops: float
    prefill_seconds: float
    gpus: int
    assumption: str


def cache_cost(
    described: PretrainedConfig, dtype: str, length: int, policies: Iterable[tuple[str, float | None, Policy]]
) -> CacheCost:
    """Count the bytes of one prompt's cache under each policy, and what it takes to read it and to go on.

    Args:
        described: The base model's config.
        dtype: Of its weights, keys and values, by its name in torch.
        length: Tokens of the prompt.
        policies: Name, budget and policy of each cache.

    Returns:
        The counts.

    Raises:
        MemxError: No policy can be attached to the base model.
    """
    model = meta_model(described)
    shape, of_cache = host_shape(described, dtype, 0, model), CacheShape.of(model, getattr(torch, dtype))
    weights, full = shape.parameters * shape.size, cache_bytes(Full(), of_cache, length)
    gpu, assumed = GPUS[_GPU], Assumptions()
    gpus = ceil((weights + full.kv_bytes) / gpu.memory)
    work = _Work(shape, weights, gpu, gpus, assumed)
    found = [work.of(name, budget, cache_bytes(policy, of_cache, length)) for name, budget, policy in policies]
    flops = shape.forward(length)
    return CacheCost(
        parameters=shape.parameters,
        weight_bytes=weights,
        length=length,
        token_bytes=2 * len(of_cache.windows) * of_cache.kv_heads * of_cache.width * shape.size,
        full=work.of("full", None, full),
        policies=found,
        prefill_flops=flops,
        prefill_seconds=flops / (gpus * gpu.half * assumed.utilization),
        gpus=gpus,
        assumption=f"{gpus} x {gpu.title}, {assumed.utilization:.0%} of {gpu.half / 1e12:,.0f} TFLOP/s and "
        f"{assumed.bandwidth:.0%} of {gpu.bandwidth / 1e12:g} TB/s each, without communication; not measured",
    )


@dataclass(frozen=True)
class _Work:
    """What a new token takes on a model and GPUs."""

    shape: Shape
    weights: int
    gpu: Gpu
    gpus: int
    assumed: Assumptions

    def of(self, policy: str, budget: float | None, counted: CacheBytes) -> PolicyCache:
        """With the work of a new token: bytes read and FLOPs, the slower of both being its time."""
        moved = self.weights + counted.kv_bytes
        flops = self.shape.forward(1, round(counted.tokens))
        reading = moved / (self.gpus * self.gpu.bandwidth * self.assumed.bandwidth)
        computing = flops / (self.gpus * self.gpu.half * self.assumed.utilization)
        sizes = counted.tokens, counted.kv_bytes, counted.policy_bytes
        return PolicyCache(policy, budget, *sizes, moved, flops, max(reading, computing))
