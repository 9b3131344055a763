"""What the Triton kernels take of a GPU, found by compiling them ahead of time: no GPU is needed.

Registers, spills and shared memory tell most of what keeps a kernel from its ceiling, and a kernel that does not
compile for an architecture fails here, on any machine, instead of there.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MemxError
from .op import interpreted

_KERNELS = (
    "embedding_bag.kernel",
    "embedding_bag.segment_kernel",
    "sparse_adam.kernel",
    "product_topk.kernel",
    "attention_spectrogram.kernel",
    "evict_gather.kernel",
    "ragged_attention.kernel",
)


_SHARED_KB = {80: 164, 90: 228}  # of a multiprocessor


class Variant(NamedTuple):
    """One way a kernel is compiled. signature: types of its arguments ("*bf16", "i32", …), or a tuple of types; an
    integer argument that is in `multiples` is taken to divide by 16, as widths do, and every pointer is."""

    name: str
    kernel: Any
    signature: Mapping[str, Any]
    constexprs: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    multiples: Sequence[str] = ()


class Resources(NamedTuple):
    """Of one variant on one architecture: registers a thread, bytes spilled a thread, shared memory of a program in
    bytes, programs that one multiprocessor holds at once, its widest global load, and its matrix instructions."""

    name: str
    capability: int
    registers: int
    spills: int
    shared: int
    programs: int
    load_bits: int
    matrix: str


def variants() -> Iterator[Variant]:
    """The kernels as a training step or an evicting cache compiles them."""
    for module in _KERNELS:
        for variant in import_module(f".{module}", __package__).aot():
            yield Variant(*variant)


def measure(variant: Variant, capability: int) -> Resources:
    """Compile one variant for an architecture: 80 for A100, 90 for H100 and H200.

    Raises MemxError where Triton or its assembler is missing, or where Triton interprets.
    """
    if interpreted():
        raise MemxError("Triton runs in interpreter mode and compiles no kernels", hint="unset TRITON_INTERPRET")
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ImportError:
        raise MemxError("compiling the kernels needs the package triton", hint="pip install triton") from None
    source = ASTSource(variant.kernel, _signature(variant), _constants(variant), _attributes(variant))
    options = {"num_warps": variant.warps, "num_stages": variant.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, spills = _assembled(compiled.asm["ptx"], capability)
    ptx = compiled.asm["ptx"]
    shared = compiled.metadata.shared
    programs = _programs(registers, shared, variant.warps, capability)
    return Resources(variant.name, capability, registers, spills, shared, programs, _load_bits(ptx), _matrix(ptx))


def _programs(registers: int, shared: int, warps: int, capability: int) -> int:
    """As many as its registers (64k), threads (2,048), shared memory and slots (32) have room for."""
    memory = 1024 * _SHARED_KB[capability]
    by_shared = memory // (shared + 1024) if shared else 32  # the system takes a kilobyte of each
    return min(65536 // max(1, registers * 32 * warps), 2048 // (32 * warps), by_shared, 32)


def _signature(variant: Variant) -> dict[str, Any]:
    return {name: variant.signature.get(name, "constexpr") for name in variant.kernel.arg_names}


def _constants(variant: Variant) -> dict[str, Any]:
    missing = set(variant.kernel.arg_names) - {*variant.signature, *variant.constexprs}
    assert not missing, f"{variant.name}: no type or value for {missing}"
    return dict(variant.constexprs)


def _attributes(variant: Variant) -> dict[tuple[int, ...], list]:
    names, aligned = variant.kernel.arg_names, []
    for name, kind in variant.signature.items():
        place = names.index(name)
        parts = [((place, i), part) for i, part in enumerate(kind)] if isinstance(kind, tuple) else [((place,), kind)]
        aligned += [path for path, part in parts if part.startswith("*") or name in variant.multiples]
    return {path: [["tt.divisibility", 16]] for path in aligned}


def _assembled(ptx: str, capability: int) -> tuple[int, int]:
    """Registers and spilled bytes of a thread, as the assembler reports them."""
    from triton import knobs

    ptxas = knobs.nvidia.ptxas.path
    suffix = "a" if capability >= 90 else ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [ptxas, "-v", f"--gpu-name=sm_{capability}{suffix}", str(path), "-o", str(path.with_suffix(".o"))]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", report)
    assert registers, report
    return int(registers[1]), sum(int(found) for found in re.findall(r"(\d+) bytes spill", report))


def _load_bits(ptx: str) -> int:
    """The widest load from global memory of a thread, in bits."""
    loads = re.findall(r"ld\.global\S*?(?:\.v(\d))?\.[busf](\d+)", ptx)
    copies = [8 * int(size, 16) for size in re.findall(r"cp\.async\.\S+ .*?, 0x([0-9a-f]+)", ptx)]
    return max([int(count or 1) * int(bits) for count, bits in loads] + copies, default=0)


def _matrix(ptx: str) -> str:
    """Which matrix instructions it uses: wgmma (Hopper's), mma, or none."""
    return "wgmma" if "wgmma.mma" in ptx else "mma" if re.search(r"\bmma\.sync", ptx) else ""
