"""The device that a run computes on: its name -> the torch device, its dtype and precision, its peak memory."""

from __future__ import annotations

import resource
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from ...errors import MemxError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def pick_device(name: str, key: str = "training.device") -> torch.device:
    """Resolve a device, given as the option or key `key`. Raises MemxError for one that does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise MemxError(f"{key}: no device {name!r}", hint="use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise MemxError(f"{key}: memx runs on cpu and cuda, not {name!r}", hint="use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MemxError(f"{key}: no CUDA device {name} on this machine", hint="use auto or cpu")
    return device


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype of that name: by default bfloat16 on CUDA and float32 on a CPU. Raises MemxError for another name."""
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise MemxError(f"--dtype: no dtype {name!r}", hint=f"use {', '.join(DTYPES)}")
    return DTYPES[name]


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast: where asked for, or on a CUDA device by default; on CPU float32 is faster."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def autocast_for(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Inside, what can be is computed in bfloat16, if `use_bfloat16` says so."""
    return torch.autocast(device.type, torch.bfloat16) if use_bfloat16(precision, device) else nullcontext()


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held: allocated on a CUDA device, else resident in the host's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
