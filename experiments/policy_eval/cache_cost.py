"""What the caches of an evaluation would hold, before anything is loaded: bytes by policy and budget, work by token.

One prompt of full length. Bytes are counted on the meta device. Seconds are estimates; nothing was measured.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from ...namm.cache_bytes import CacheBytes, CacheShape, cache_bytes
from ...namm.policies.heuristics import Full
from ...namm.policies.network import Namm
from ..config.eviction.policy_eval import EvalConfig
from ..eviction.base_model import describe_base_model
from ..evolution.host_shape import Shape, host_shape
from ..planning.gpus import GPUS, Gpu
from ..planning.mesh import Assumptions
from .baselines import baselines

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


def cache_cost(config: EvalConfig, namms: list[Namm]) -> CacheCost:
    """Count the bytes of one prompt's cache under each policy, and what it takes to read it and to go on.

    Args:
        config: The evaluation.
        namms: The NAMM of each entry of `config.namms`.

    Returns:
        The counts.

    Raises:
        MemxError: The base model cannot be described, or no policy can be attached to it.
    """
    described = describe_base_model(config.host)
    shape = host_shape(described, config.host.dtype, 0)
    of_cache = _cache_shape(described, getattr(torch, config.host.dtype))
    weights, full = shape.parameters * shape.size, cache_bytes(Full(), of_cache, config.length)
    gpu, assumed = GPUS[_GPU], Assumptions()
    gpus = ceil((weights + full.kv_bytes) / gpu.memory)
    work = _Work(shape, weights, gpu, gpus, assumed)
    found = []
    for baseline in baselines(config, namms, config.seed):
        own = [(None, "equal")] if baseline.threshold else []
        shared = [(share, one) for share in config.shares for one in config.allocations_for(baseline.variant)]
        for share, allocation in [*own, *shared]:
            # a table gives heads other numbers, and in all as many
            policy = baseline.make(share, "global" if allocation == "table" else allocation)
            counted = cache_bytes(policy, of_cache, config.length)
            found.append(work.of(baseline.called(share, allocation), share, counted))
    flops = shape.forward(config.length)
    return CacheCost(
        parameters=shape.parameters,
        weight_bytes=weights,
        length=config.length,
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


def _cache_shape(described: PretrainedConfig, dtype: torch.dtype) -> CacheShape:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(deepcopy(described), trust_remote_code=False)
    return CacheShape.of(model, dtype)
