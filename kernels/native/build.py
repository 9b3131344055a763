"""Compiles the C of this folder once for this machine, and loads it; nothing where there is no compiler.

torch has no CPU op that reads, steps and writes scattered rows in one pass. A C compiler (`cc`, or $CC), which Triton
and torch.compile ask for too, makes one in a second; without it torch's ops do the same in several passes.
MEMX_NATIVE=0 does without; MEMX_CACHE or XDG_CACHE_HOME says where the library is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("rows.c")
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing", "-shared", "-fPIC")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, or None where they cannot be had."""
    if os.environ.get("MEMX_NATIVE") == "0" or platform.system() == "Windows":
        return None
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        return None
    try:
        return ctypes.CDLL(str(compiled(compiler, cache_folder())))
    except (OSError, subprocess.SubprocessError):  # no place to write, a compiler that knows other flags
        return None


def cache_folder() -> Path:
    """Where compiled code is kept."""
    own = os.environ.get("MEMX_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memx"


def compiled(compiler: list[str], folder: Path) -> Path:
    """The library made of the source by a compiler; made now if this machine's processor has none in the folder.

    Raises OSError or SubprocessError if it cannot be made.
    """
    source = SOURCE.read_bytes()
    recipe = "\0".join([*compiler, *_FLAGS, _processor()])
    path = folder / f"rows-{hashlib.sha256(source + recipe.encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as workplace:  # several processes may be here at once
        made = Path(workplace) / path.name
        command = [*compiler, *_FLAGS, str(SOURCE), "-o", str(made), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        made.replace(path)
    return path


def _processor() -> str:
    """What the code is compiled for: another machine may share the folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\0".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
