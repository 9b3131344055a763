"""What a benchmark ran on: the device, its driver, the processor, threads and versions -> environment.json and rows."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ...results.store.environment import commit, environment
from ...version import __version__


def device_label(device: torch.device, threads: int) -> str:
    """How rows name a device: cuda, or cpu and its threads."""
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else str(device)


def row_settings(device: torch.device, threads: int) -> dict[str, Any]:
    """What all rows of a run on a device share."""
    return {
        "run": "bench",
        "device": device_label(device, threads),
        "commit": commit(),
        "processor": processor(device),
        "threads": threads,
        "memx": __version__,
    }


def processor(device: torch.device) -> str:
    """The name of the GPU, or of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()


def bench_environment(device: torch.device) -> dict[str, Any]:
    """Everything a time may depend on beside the code."""
    cuda = device.type == "cuda"
    return {
        **environment(),
        "memx": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(device),
        "processor": processor(device),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "driver": _driver() if cuda else None,
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
