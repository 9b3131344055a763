"""The GPUs that a run can be planned on: a name -> what its maker says of it. No torch here.

Rates are peaks, bytes and FLOPs a second, in one direction. Sources: NVIDIA's data sheets of the H100 (SXM5), H200
(SXM) and A100 (SXM4, 80 GB), dense rates without sparsity; of machines those of DGX H100, H200 and A100: 8 GPUs, one
InfiniBand port a GPU (400 Gb/s; A100 200 Gb/s), 2 TB of host memory, 16 channels of DDR5-4800 (A100: DDR4-3200).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import MemxError, nearest

PER_MACHINE = 8


@dataclass(frozen=True)
class Gpu:
    """One GPU in a machine of eight.

    half, single: FLOPs a second in bfloat16 on tensor cores, and in float32. memory: bytes. bandwidth: of it. nvlink,
    network, pcie: of one GPU. host_memory, host_bandwidth: its share of the machine's.
    """

    title: str
    half: float
    single: float
    memory: float
    bandwidth: float
    nvlink: float
    network: float
    pcie: float
    host_memory: float
    host_bandwidth: float


GPUS = {
    "h100": Gpu("H100 SXM", 989.4e12, 66.9e12, 80e9, 3.35e12, 450e9, 50e9, 64e9, 250e9, 76.8e9),
    "h200": Gpu("H200 SXM", 989.4e12, 66.9e12, 141e9, 4.8e12, 450e9, 50e9, 64e9, 250e9, 76.8e9),
    "a100": Gpu("A100 SXM 80 GB", 312e12, 19.5e12, 80e9, 2.039e12, 300e9, 25e9, 32e9, 250e9, 51.2e9),
}


def gpu_named(name: str) -> Gpu:
    """A GPU by its name in any case. Raises MemxError for one that is not known."""
    found = GPUS.get(name.lower())
    if found is None:
        raise MemxError(f"unknown GPU {name!r}", hint=nearest(name.lower(), GPUS) or f"choose from {', '.join(GPUS)}")
    return found
