"""What must hold before any policy is timed: the logits of a NAMM that keeps all, and how many tokens others keep."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ....namm.attachment import attach
from ....namm.cache.cache import EvictingCache
from ...base_models.synthetic import TINY, Host, build_host
from ...models.generation import forward
from .policies import KEEP_ALL, Baseline, build_policy, prefill

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LIMIT = 1e-4  # relative error of logits in float32 and float64
_COMPARED = 64  # of the last positions, which depend on all before them


class Verdict(NamedTuple):
    """What was checked of a baseline: how far off it is, how far it may be, and what is wrong, or nothing."""

    name: str
    error: float
    limit: float
    wrong: str

    def labels(self) -> dict[str, Any]:
        """What a row says beside right or wrong; no error where it is no number, which JSON does not have."""
        error = {"error": self.error} if isfinite(self.error) else {}
        return error | {"limit": self.limit, "wrong": self.wrong}


def check_baselines(host: Host, baselines: Sequence[Baseline], context: int, every: int) -> list[Verdict]:
    """Check memx's policies on one prompt.

    Zero parameters must give the plain model's logits under the same chunking, in float32: where the host is of half
    precision, on a small one. Each budget must leave in every layer and head as many tokens as it says.
    """
    exact = host
    if host.model.dtype not in (torch.float32, torch.float64):
        exact = build_host(TINY, None, host.model.device, torch.float32)
    with torch.inference_mode():
        error = logits_error(exact.model, exact.ids(1, context), every)
        wrong = "" if error <= LIMIT else f"logits differ from the unmodified model by {error:.1e}"  # nan is wrong too
        verdicts = [Verdict(KEEP_ALL, error, LIMIT, wrong)]
        ids = host.ids(1, context)
        return verdicts + [check_kept(host.model, baseline, ids, every) for baseline in baselines if baseline.exact]


def logits_error(model: PreTrainedModel, ids: Tensor, every: int) -> float:
    """The worst difference of the last logits with zero parameters and plain, over the largest plain one."""
    count = min(_COMPARED, (ids.shape[1] - 1) % every + 1)  # those of the last piece
    cache, plain = None, None
    for start in range(0, ids.shape[1], every):
        output = forward(model, ids[:, start : start + every], cache, keep=count)
        cache, plain = output.past_key_values, output.logits
    with attach(model, build_policy(KEEP_ALL, None, every)):
        own = forward(model, ids, keep=count).logits
    assert plain is not None
    return float((own - plain).abs().max() / plain.abs().max())


def check_kept(model: PreTrainedModel, baseline: Baseline, ids: Tensor, every: int) -> Verdict:
    """Whether all layers hold as many slots and tokens as the budget says."""
    with baseline.on(model):
        cache = prefill(model, ids)[1]
    if baseline.allocation != "equal":
        return _check_total(baseline, cache, ids.shape[1], every)
    right = baseline.keeps(ids.shape[1], every)
    counts = sorted({count for size in cache.sizes() for count in (size.slots, size.tokens)})
    wrong = "" if counts == [right] else f"keeps {', '.join(f'{count:g}' for count in counts)} tokens, expected {right}"
    return Verdict(baseline.name, max(abs(count - right) for count in counts), 0.0, wrong)


def _check_total(baseline: Baseline, cache: EvictingCache, context: int, every: int) -> Verdict:
    """Whether all heads together hold as many tokens as the budget says; fewer, by less than a layer, if filled up."""
    heads = [len(layer.state.counts[0]) for layer in cache.layers]
    held = sum(sum(layer.state.counts[0]) for layer in cache.layers)
    right = baseline.keeps_in_all(context, every, heads)
    slack = max(heads) - 1 if baseline.allocation == "layer_max" else 0
    wrong = "" if right - slack <= held <= right else f"keeps {held} tokens in all heads, expected {right}"
    return Verdict(baseline.name, float(max(held - right, right - slack - held, 0)), 0.0, wrong)
