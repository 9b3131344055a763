"""Training in float64 throughout, for runs that must choose alike however their sums are split and rounded.

In float32 two sums that a top-k ranks may lie so close that the CPU, or the number of processes, decides which of them
is the larger, and what follows differs by far more than a rounding. In float64 no two sums of these runs lie so close.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from memx.experiments.models import assemble, pretrained
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm


@contextmanager
def float64() -> Iterator[None]:
    """Inside, whatever model is built or loaded for training has float64 weights and computes in float64."""
    patches = patch.object(LlamaRMSNorm, "forward", _norm), patch.object(assemble, "load_pretrained", _load)
    with _default(torch.float64), patches[0], patches[1]:
        yield


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _norm(module: Any, x: Tensor) -> Tensor:
    """What transformers computes in float32."""
    return F.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)


def _load(*args: Any) -> pretrained.Pretrained:
    """What memx reads and draws in float32, widened."""
    with _default(torch.float32):
        found = pretrained.load_pretrained(*args)
    found.model.double()
    return found
