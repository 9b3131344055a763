"""Compiles the C of this folder once for this machine, and loads it; nothing where that cannot be done.

torch has no CPU op that reads, steps and writes scattered rows in one pass, or that makes the spectrum of attention
while it is in cache, and its attention is slow for a narrow head. A C compiler (`cc`, or $CC), which Triton and
torch.compile ask for too, makes them in three seconds; the library is kept in memx's folder of the user's cache.
Without a compiler torch's ops do the same in several passes, and runs and benchmarks say so.
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

from ...files import cache_folder

_FOLDER = Path(__file__).parent
SOURCES = ("rows.c", "spectrogram.c", "log_sum_exp.c", "backward_attention.c")
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing", "-shared", "-fPIC")
_HERE = ("-march=native",)  # not every compiler knows it


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, or None where they cannot be had."""
    if platform.system() == "Windows":
        return None
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
    except ValueError:  # a quotation that does not end
        return None
    if not compiler or shutil.which(compiler[0]) is None:
        return None
    return _kept(compiler) or _for_now(compiler)


def _kept(compiler: list[str]) -> ctypes.CDLL | None:
    """From the user's cache; what there does not load, as after a full disk, is made again."""
    try:
        path = compiled(compiler, cache_folder())
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            path.unlink()
            return ctypes.CDLL(str(compiled(compiler, cache_folder())))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no home, no place to write or to run from
        return None


def _for_now(compiler: list[str]) -> ctypes.CDLL | None:
    """For this process alone."""
    try:
        with tempfile.TemporaryDirectory(prefix="memx-") as folder:  # once loaded, the file may go
            return ctypes.CDLL(str(compiled(compiler, Path(folder))))
    except (OSError, subprocess.SubprocessError):
        return None


def compiled(compiler: list[str], folder: Path) -> Path:
    """The library made of the source by a compiler; made now if this machine's processor has none in the folder.

    Raises OSError or SubprocessError if it cannot be made.
    """
    texts = [path.read_text("utf-8") for path in sorted(_FOLDER.glob("*.c"))]  # and what they include
    recipe = "\0".join([*compiler, *_HERE, *_FLAGS, _processor(), *texts])
    path = folder / f"loops-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as workplace:  # several processes may be here at once
        made = Path(workplace) / path.name
        try:
            _compile([*compiler, *_HERE], made)
        except subprocess.CalledProcessError:
            _compile(compiler, made)
        made.replace(path)
    return path


def _compile(compiler: list[str], made: Path) -> None:
    command = [*compiler, *_FLAGS, *(str(_FOLDER / name) for name in SOURCES), "-o", str(made), "-lm"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def _processor() -> str:
    """What the code is compiled for: another machine may share the folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\0".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
