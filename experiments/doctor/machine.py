"""What computes here: devices, each implementation of each op against its definition, and the NAMMs of memx."""

from __future__ import annotations

import os
import shlex
import shutil

import torch

from ...kernels.native import library
from ...kernels.op import Op
from ...kernels.registry import OPS
from ...namm import load, shipped_namms
from ..benchmarks.environment import bench_environment
from ..benchmarks.ops.correctness import check_implementations
from .check import Check, State

DEVICES, KERNELS, NAMMS = "Devices", "Ops, each against float64", "NAMMs that come with memx"
_REPORT = "report it with the output of memx doctor --json; until then use impl='torch'"


def device_checks() -> list[Check]:
    """The CPU, its compiled loops, and every CUDA device."""
    threads = torch.get_num_threads()
    cpu = bench_environment(torch.device("cpu"))["cpu"]
    checks = [Check(DEVICES, "cpu", "ok", f"{cpu}, {threads} threads, {_memory()}".rstrip(", ")), _loops()]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    checks += [_cuda(torch.device("cuda", number)) for number in range(count)]
    if not count:
        checks.append(Check(DEVICES, "cuda", *_why_no_cuda()))
    return checks


def op_checks() -> list[Check]:
    """Every op on every kind of device that is here: forward and gradients of each implementation, in float32."""
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda")] if torch.cuda.is_available() else []
    return [_op(op, device) for device in devices for op in OPS]


def namm_checks() -> list[Check]:
    """Whether each NAMM that comes with memx can be loaded."""
    checks = []
    for name in shipped_namms():
        namm = load(name)
        checks.append(Check(NAMMS, name, "ok", f"{namm.parameters.numel():,} parameters"))
    return checks


def _op(op: Op, device: torch.device) -> Check:
    found = check_implementations(op, op.odd_shapes[0], torch.float32, device)
    words = [f"{op.label(name, device)}: {'works' if one.right else one.verdict}" for name, one in found.items()]
    wrong = not found or not all(one.right for one in found.values())
    state: State = "failed" if wrong else "ok"
    return Check(
        KERNELS, f"{op.name}, {device.type}", state, "; ".join(words) or "nothing runs", _REPORT if wrong else ""
    )


def _loops() -> Check:
    if library() is not None:
        return Check(DEVICES, "compiled loops", "ok", "loaded", needed_for="faster training and eviction on a CPU")
    compiler = os.environ.get("CC") or "cc"
    there = shutil.which((shlex.split(compiler) or ["cc"])[0]) is not None
    found = f"the compiler {compiler} made none" if there else f"no compiler ({compiler})"
    fix = "check that the cache folder can be written" if there else "install gcc or clang, or set CC"
    return Check(DEVICES, "compiled loops", "missing", found, fix, "faster training and eviction on a CPU")


def _cuda(device: torch.device) -> Check:
    about = bench_environment(device)
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    driver = f", driver {about['driver']}" if about["driver"] else ""
    found = f"{about['processor']}, {total:.0f} GiB, capability {about['capability']}, CUDA {about['cuda']}{driver}"
    return Check(DEVICES, str(device), "ok", found)


def _why_no_cuda() -> tuple[State, str, str, str]:
    needed = "training and eviction on a GPU"
    if torch.version.cuda is None:
        return (
            "missing",
            f"torch {torch.__version__} is built without CUDA",
            "see pytorch.org/get-started for a build with CUDA",
            needed,
        )
    fix = "check nvidia-smi and the driver" if shutil.which("nvidia-smi") else "none is needed on a machine without one"
    return "missing", f"no GPU found (torch is built for CUDA {torch.version.cuda})", fix, needed


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    except (AttributeError, OSError, ValueError):
        return ""
