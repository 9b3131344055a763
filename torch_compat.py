"""Every name of torch that memx leans on and that its documentation does not promise, 2.11 to 2.13, in one place.

`tests/test_compat.py` checks each in the version that is installed, and says what breaks where. One more cannot be
here: `nn.Module._apply`, which `memory_layers/tables/values.py` overrides.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

DRAW_BLOCK = 16  # normal numbers that torch draws together on a CPU; a last block that is not full is drawn anew


def has_flash_attention_for_cpu() -> bool:
    """Whether `flash_attention_for_cpu` is there."""
    return hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def flash_attention_for_cpu(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, bias: Tensor | None = None, scale: float
) -> tuple[Tensor, Tensor]:
    """What scaled_dot_product_attention runs on a CPU, which also returns the log-sum-exp of the scores.

    Args:
        query: [B, Hq, Q, d]; key and value [B, H, T, d].
        key: As the query's.
        value: As the query's.
        causal: Whether query i sees keys up to i.
        bias: Added to the scores, [B or 1, Hq or 1, Q, T].
        scale: What the scores are multiplied by.

    Returns:
        Attention [B, Hq, Q, d] and the log-sum-exp [B, Hq, Q], natural.
    """
    run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return run(query, key, value, 0.0, causal, attn_mask=bias, scale=scale)


def all_gather(out: Tensor, x: Tensor, group: Any) -> None:
    """Fill out [G*B, ...] with every rank's x [B, ...]: one collective, of which the name is changing."""
    run = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
    run(out, x, group=group)


def sum_gradients(unit: nn.Module) -> None:
    """Have an FSDP unit sum gradients over the ranks, not average them, by a plain sum, the only one that gloo has."""
    fsdp: Any = unit
    fsdp.set_force_sum_reduction_for_comms(True)
    fsdp.set_gradient_divide_factor(1.0)


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Let torch.compile work in silence, and let the backward passes that it makes run more than once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch._dynamo  # takes a second: only those who compile wait for it
        from torch._functorch import config
    loggers = [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor", "torch._functorch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), config.patch(donated_buffer=False):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch._dynamo.reset()


def checkpoint() -> Any:
    """`torch.distributed.checkpoint`, whose type does not list HuggingFaceStorageReader and -Writer."""
    from torch.distributed import checkpoint

    return checkpoint


def lost_rank_errors() -> tuple[type[Exception], ...]:
    """What collectives raise when another rank is gone, as far as this version has a type for it."""
    names = ("DistBackendError", "DistNetworkError", "DistStoreError")
    return tuple(getattr(distributed, name) for name in names if hasattr(distributed, name))
