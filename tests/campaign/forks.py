"""One command of memx -> how it ended, in a fork of this process, which has imported everything that commands import.

No torch operation may have run here: a fork would inherit the locks of its threads. A child begins as a new process
would: its own arguments, environment, folder and standard streams, one thread, and Python's own handling of signals.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

CPU_SECONDS = 30
_MEMORY = 6 << 30  # bytes of addresses beyond those of this process: a runaway must not take the machine with it
_STOPS = (signal.SIGINT, signal.SIGTERM)
_STANDARD = ("stdin", "stdout", "stderr")
_OTHER_IMPORTS = (
    "matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "PIL.PngImagePlugin",
    "matplotlib.backends.backend_svg", "pandas", "pyarrow.parquet", "cma", "safetensors.torch", "tokenizers", "jinja2",
    "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto", "transformers.generation",
    "torch._dynamo", "torch.distributed.fsdp", "rich.console", "rich.table", "rich.progress", "rich.markdown",
    "typer.rich_utils", "mendeleev", "airportsdata", "countryinfo",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A command line of memx and all that it sees of its surroundings."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    closed: tuple[str, ...] = ()  # standard streams that are not open
    full: bool = False  # stdout is a disk without space


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (below 0: the signal), what it printed, and seconds."""

    code: int
    out: str
    err: str
    cpu: float
    wall: float
    hung: bool = False


class Running:
    """A child that runs a command."""

    def __init__(self, pid: int, out: Path, err: Path, wall: float) -> None:
        self.pid, self.out, self.err = pid, out, err
        self.began = time.monotonic()
        self.deadline = self.began + wall
        self.hung = False

    def poll(self) -> Ended | None:
        """How it ended; None while it runs. One that is over its time is killed."""
        done, status, used = os.wait4(self.pid, os.WNOHANG)
        if not done:
            if time.monotonic() > self.deadline:
                self.hung = True
                self.kill(signal.SIGKILL)
            return None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # children that it left behind
        code = os.waitstatus_to_exitcode(status)
        hung = self.hung or code == -signal.SIGXCPU
        cpu, wall = used.ru_utime + used.ru_stime, time.monotonic() - self.began
        return Ended(code, _text(self.out), _text(self.err), cpu, wall, hung)

    def kill(self, number: int) -> None:
        """Send it a signal; SIGKILL also goes to its children."""
        with suppress(ProcessLookupError, PermissionError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)

    def wait(self) -> Ended:
        """How it ended, when it has."""
        while (ended := self.poll()) is None:
            time.sleep(0.002)
        return ended


@cache
def warm(*parts: str) -> None:
    """Import what commands import, so that forks need not.

    Args:
        parts: Packages of memx to import, such as memx.cli; none: all, and what they use.
    """
    from memx.cli.main import command_tree

    for name in () if parts else _OTHER_IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    for part in parts or ("memx",):
        package = importlib.import_module(part)
        for found in pkgutil.walk_packages(package.__path__, f"{part}."):
            if not found.name.startswith(("memx.tests", "memx.docs")) and not found.name.endswith("__main__"):
                with suppress(ImportError):  # what needs a package that is not installed
                    importlib.import_module(found.name)
    command_tree()
    gc.collect()
    gc.freeze()


def start(
    call: Call,
    folder: Path,
    printed: Path,
    *,
    wall: float = 240.0,
    cpu: int = CPU_SECONDS,
    run: Callable[[], None] | None = None,
    before: Callable[[], None] | None = None,
) -> Running:
    """Start a command.

    Args:
        call: The command.
        folder: Where it runs.
        printed: A path; what it prints goes to files of this name and two endings.
        wall: Seconds after which it is killed.
        cpu: Seconds of CPU time after which it is killed.
        run: What runs as the program; None: memx.
        before: Called in the child first.
    """
    out, err = printed.with_suffix(".out"), printed.with_suffix(".err")
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return Running(child, out, err, wall)
    code = 1
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        _become(call, folder, out, err, cpu)
        if before is not None:
            before()
        code = _program(run or _memx)
    finally:
        os._exit(code)


def _become(call: Call, folder: Path, out: Path, err: Path, cpu: int) -> None:
    """Give this child the surroundings of a new process."""
    atexit._clear()
    if util := sys.modules.get("multiprocessing.util"):  # removes its folder of pipes
        atexit.register(util._exit_function)
    gc.enable()
    tempfile.tempdir = None
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)  # a child starts at 0
    resource.setrlimit(resource.RLIMIT_CPU, (spent + cpu, spent + cpu + 5))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.update(call.environment)
    sys.argv = ["memx", *call.arguments]
    write = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND
    reader, writer = os.pipe()
    os.write(writer, call.stdin[:60_000])
    os.close(writer)
    wanted = [reader, os.open("/dev/full" if call.full else out, write), os.open(err, write)]
    if call.full:
        out.write_bytes(b"")
    for number, (name, descriptor) in enumerate(zip(_STANDARD, wanted, strict=True)):
        os.dup2(descriptor, number)
        os.close(descriptor)
        setattr(sys, name, None)
        if name in call.closed:
            os.close(number)
        else:
            setattr(sys, name, _stream(number))
        setattr(sys, f"__{name}__", getattr(sys, name))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _stream(number: int) -> io.TextIOWrapper:
    """A standard stream as Python opens it."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    errors = "backslashreplace" if number == 2 else errors or "strict"
    mode = "rb" if number == 0 else "wb"
    return io.TextIOWrapper(
        os.fdopen(number, mode, closefd=False), encoding or "utf-8", errors, line_buffering=number == 2
    )


def _memx() -> None:
    from memx.__main__ import main

    main()


def _program(run: Callable[[], None]) -> int:
    """The exit code of a program, ended as Python ends one."""
    code = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException as error:
        code = 1
        if isinstance(error, KeyboardInterrupt) and not _began(error):
            print("interrupted before memx began", file=sys.stderr)
            code = 130
        else:
            traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException:
        sys.stderr and traceback.print_exc()  # as Python prints it at its end
        code = 120
    with suppress(BaseException):
        sys.stderr and sys.stderr.flush()
    return code


def _began(error: BaseException) -> bool:
    """Whether memx was at work when it came, and not what makes this process look like a new one."""
    main = sys.modules.get("memx.__main__")
    return main is not None and main.__file__ in [one.filename for one in traceback.extract_tb(error.__traceback__)]


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
