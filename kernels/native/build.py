"""Compiles the C of this folder once for this machine, and loads it; nothing where that cannot be done.

torch has no CPU op that reads, steps and writes scattered rows in one pass, or that makes the spectrum of attention
while it is in cache, and its attention is slow for a narrow head. A C compiler (`cc`, or $CC), which Triton and
torch.compile ask for too, makes them in three seconds; the library is kept in memx's folder of the user's cache.
Without a compiler torch's ops do the same in several passes, and runs and benchmarks say so.

A library is code. One from the cache is loaded only if no other user can have written it, and if it still is what the
compiler made: its name holds a hash of what it was made of, and one of its content.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from ...files import cache_folder
from ...leftovers import sweep, temporary_beside
from ...private_files import private_folder, stranger_in

_FOLDER = Path(__file__).parent
SOURCES = ("rows.c", "spectrogram.c", "log_sum_exp.c", "backward_attention.c", "ragged_attention.c")
FUNCTIONS = (
    *("gather", "dots", "scatter", "lookup_backward", "adam"),
    *("log_sum_exp", "spectrogram", "backward_attention", "ragged_units", "ragged_output"),
)
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing", "-shared", "-fPIC")
_HERE = ("-march=native",)  # not every compiler knows it
_PATIENCE = 120.0  # seconds for a compiler
_log = logging.getLogger(__name__)


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
    try:
        return _kept(compiler) or _for_now(compiler)
    except (subprocess.SubprocessError, UnicodeError):  # another place does not make the compiler a better one
        return None


def _kept(compiler: list[str]) -> ctypes.CDLL | None:
    """From the user's cache; what there is damaged, as after a full disk, is made again."""
    try:
        folder = private_folder(cache_folder())
        if stranger := stranger_in(folder):
            _log.warning("note: memx's compiled loops are not kept, and compiled again by each process: %s", stranger)
            return None
        return _loaded(compiled(compiler, folder))
    except (OSError, RuntimeError):  # no home, no place to write or to run from
        return None


def _for_now(compiler: list[str]) -> ctypes.CDLL | None:
    """For this process alone."""
    try:
        with tempfile.TemporaryDirectory(prefix="memx-") as folder:  # once loaded, the file may go
            if stranger := stranger_in(Path(folder)):
                _log.warning("note: memx runs without its compiled loops, more slowly: %s", stranger)
                return None
            return _loaded(compiled(compiler, Path(folder)))
    except OSError:
        return None


def _loaded(path: Path) -> ctypes.CDLL | None:
    """The library of a file; None if it is no library of this machine, or lacks a function."""
    found = ctypes.CDLL(str(path))
    return found if all(hasattr(found, f"memx_{name}") for name in FUNCTIONS) else None


def compiled(compiler: list[str], folder: Path) -> Path:
    """The library made of the source by a compiler; made now if this machine's processor has none in the folder.

    Args:
        compiler: The command that compiles C.
        folder: A folder that only this user can write to; made if it is not there.

    Returns:
        The library. Its content is what a compiler made, and it belongs to the user.

    Raises:
        OSError: The folder cannot be written, or the compiler made nothing.
        SubprocessError: The compiler failed, or did not end.
    """
    texts = [path.read_text("utf-8") for path in sorted(_FOLDER.glob("*.c"))]  # and what they include
    recipe = "\0".join([*compiler, *_HERE, *_FLAGS, _processor(), *texts])
    name = f"loops-{_digest(os.fsencode(recipe))}"
    for path in sorted(folder.glob(f"{name}-*.so")):
        if _is_whole(path):
            return path
        path.unlink(missing_ok=True)
    private_folder(folder)
    sweep(folder)  # what killed processes left
    workplace = private_folder(temporary_beside(folder / name))  # several processes may be here at once
    try:
        made = workplace / "loops.so"
        try:
            _compile([*compiler, *_HERE], made)
        except subprocess.CalledProcessError:
            _compile(compiler, made)
        made.chmod(0o600)
        path = folder / f"{name}-{_digest(made.read_bytes())}.so"
        made.replace(path)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return path


def _is_whole(path: Path) -> bool:
    """Whether a file of the cache is nobody else's, and has the content that its name says."""
    return path.is_file() and not stranger_in(path) and path.stem.endswith(f"-{_digest(path.read_bytes())}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _compile(compiler: list[str], made: Path) -> None:
    command = [*compiler, *_FLAGS, *(str(_FOLDER / name) for name in SOURCES), "-o", str(made), "-lm"]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE)


def _processor() -> str:
    """What the code is compiled for: another machine may share the folder."""
    machine = f"{platform.machine()}\0{sys.maxsize}\0"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return machine + platform.platform() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return machine + "\0".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
