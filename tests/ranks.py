"""Worlds of processes as torchrun starts them, cheaply: a function -> what each rank returned, or how it ended.

A process that has imported everything once forks the ranks of each world; it is started by the first call and serves
all tests of this process. A function is a module-level one of a test file, gets keyword arguments, returns what can be
pickled, and runs with torchrun's environment, one thread, and warnings as errors.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_GRACE = 10.0  # seconds that ranks have to end by themselves once one has failed


@dataclass(frozen=True)
class Ended:
    """How a rank ended: exit code (below 0: the signal), what it returned, its traceback, and all that it printed."""

    code: int
    result: Any
    error: str
    printed: str


def run_worlds(
    function: Callable | str,
    sizes: Iterable[int] = (1, 2, 4),
    arguments: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[int, list[Any]]:
    """The result of each rank at each world size. Any exception, death or overtime is an AssertionError that shows it.

    function: one of a test file, or "module:name". options: those of `end_worlds`.
    """
    ended = end_worlds(function, sizes, arguments, **options)
    failed = [
        f"rank {rank} of {size} ended with {one.code}\n{one.printed}\n{one.error}"
        for size, ranks in ended.items()
        for rank, one in enumerate(ranks)
        if one.code or one.error
    ]
    assert not failed, "\n".join(failed)
    return {size: [one.result for one in ranks] for size, ranks in ended.items()}


def end_worlds(
    function: Callable | str,
    sizes: Iterable[int] = (1, 2, 4),
    arguments: Mapping[str, Any] | None = None,
    *,
    seconds: float = 60.0,
    environment: Mapping[str, str] | None = None,
) -> dict[int, list[Ended]]:
    """How each rank of each world ended; one world after another, each killed after so many seconds."""
    name = function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"
    server, found = _server(), {}
    for size in sizes:
        job = name, size, dict(arguments or {}), seconds, dict(environment or {})
        pickle.dump(job, server.stdin)  # type: ignore[arg-type]
        server.stdin.flush()  # type: ignore[union-attr]
        try:
            found[size] = pickle.load(server.stdout)  # type: ignore[arg-type]
        except EOFError:
            _server.cache_clear()
            raise AssertionError(f"the process that forks ranks ended with {server.wait()}") from None
    return found


@cache
def _server() -> subprocess.Popen:
    """The process that forks; it ends with this one."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-P", __file__]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        for pipe in (started.stdin, started.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    atexit.register(end)
    return started


def _serve() -> None:
    """Answer jobs until there are no more. No torch operation runs here: a fork would inherit locks of its threads."""
    tests = types.ModuleType("tests")  # as pytest names them, without the repository on the path
    tests.__path__ = [str(Path(__file__).parent)]
    sys.modules["tests"] = tests
    sys.modules["tests.ranks"] = sys.modules["__main__"]
    Ended.__module__ = "tests.ranks"
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an import prints is no answer
    while True:
        try:
            job = pickle.load(jobs)
        except EOFError:
            return
        pickle.dump(_world(*job), answers)
        answers.flush()


def _world(name: str, size: int, arguments: dict, seconds: float, environment: dict[str, str]) -> list[Ended]:
    """Fork the ranks of one world and wait for all."""
    module, _, function = name.partition(":")
    try:
        work = getattr(importlib.import_module(module), function)
    except Exception:
        return [Ended(1, None, traceback.format_exc(), "")] * size
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(rank) for rank in range(size)]
        running: dict[int, int] = {}
        for rank, place in enumerate(places):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
            if (child := os.fork()) == 0:
                _rank(work, arguments, place, common | own | environment, seconds)
            running[child] = rank
        codes = _wait(running, seconds)
        return [_ended(codes[rank], place) for rank, place in enumerate(places)]


def _rank(work: Callable, arguments: dict, place: Path, environment: dict[str, str], seconds: float) -> None:
    """Be a rank: run the function, leave what it returned, and end this process."""
    out = os.open(place.with_suffix(".out"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.dump_traceback_later(seconds - 1)  # says where a rank hangs before it is killed
    os.environ.update(environment)
    result, error, code = None, "", 0
    try:
        import torch

        torch.set_num_threads(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = work(**arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        error, code = traceback.format_exc(), 1
    try:
        place.write_bytes(pickle.dumps((result, error)))
    except Exception:
        place.write_bytes(pickle.dumps((None, traceback.format_exc())))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(running: dict[int, int], seconds: float) -> dict[int, int]:
    """The exit code of each rank. Those that outlast the time, or another's failure by long, are killed."""
    codes: dict[int, int] = {}
    end = time.monotonic() + seconds
    while running:
        for child, rank in [*running.items()]:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[rank] = os.waitstatus_to_exitcode(status)
                del running[child]
                if codes[rank]:
                    end = min(end, time.monotonic() + _GRACE)
        if time.monotonic() > end:
            for child in running:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return codes


def _ended(code: int, place: Path) -> Ended:
    printed = place.with_suffix(".out").read_text("utf-8", "replace")
    result, error = pickle.loads(place.read_bytes()) if place.is_file() else (None, "")
    return Ended(code, result, error, printed)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    _serve()
