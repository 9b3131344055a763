"""Several processes at once: tasks -> events as they happen, whether workers are stopped, killed or orphaned.

Each worker has a pipe of its own, so one that dies, however it dies, is seen at once and blocks nobody.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, cast

from ...errors import MemxError
from .events import Event, Report, SweepReport
from .lifecycle import RunFailed
from .signals import Interrupted, StopRequest, stop_on_signals

Work = Callable[[Report, StopRequest], None]


class _Died(RuntimeError):
    """A worker that ended without a message."""


class _Worker(NamedTuple):
    task: int
    process: Any
    receiver: Connection


def run_pool(tasks: Sequence[Work], jobs: int, report: SweepReport) -> None:
    """Run tasks in processes of their own, several at a time.

    The first failure, or a SIGINT or SIGTERM here, asks all running tasks to stop once and waits for them. A run that
    failed by itself stops no others.

    Args:
        tasks: The tasks, which must be picklable.
        jobs: How many run at a time.
        report: Called with a task's index and each event that it reports.

    Raises:
        MemxError, RuntimeError, RunFailed: The first failure of a task.
        Interrupted: A task did not end.
    """
    waiting = list(enumerate(tasks))
    running: list[_Worker] = []
    failure: Exception | None = None
    stopping = interrupted = False
    with stop_on_signals() as stop:
        try:
            while running or (waiting and not stopping):
                while waiting and len(running) < jobs and not stopping:
                    running.append(_start(*waiting.pop(0)))
                for worker in _ready(running):
                    ended = _receive(worker, report)
                    if ended is None:
                        continue
                    running.remove(worker)
                    if isinstance(ended, Interrupted) or (stopping and isinstance(ended, _Died)):
                        interrupted = True
                    elif isinstance(ended, Exception) and (failure is None or isinstance(failure, RunFailed)):
                        failure = failure if isinstance(failure, RunFailed) and isinstance(ended, RunFailed) else ended
                fatal = failure is not None and not isinstance(failure, RunFailed)
                if (stop.asked or fatal or interrupted) and not stopping:
                    stopping = True
                    for worker in running:
                        worker.process.terminate()
        finally:
            for worker in running:  # only when interrupted for the second time
                worker.process.kill()
    if failure is not None:
        raise failure
    if interrupted or waiting:
        raise Interrupted("stopped; checkpoints saved")


def _start(number: int, task: Work) -> _Worker:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, sender), daemon=False)
    # a worker is stopped by its parent alone: it inherits that Ctrl-C and SIGHUP, which reach the whole group, mean
    # nothing
    numbers: list[int] = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        process.start()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    sender.close()
    return _Worker(number, process, cast(Connection, receiver))


def _ready(running: Sequence[_Worker]) -> list[_Worker]:
    ready = wait([worker.receiver for worker in running], timeout=0.5)
    return [worker for worker in running if worker.receiver in ready]


def _receive(worker: _Worker, report: SweepReport) -> Exception | bool | None:
    """Take one message: None for an event, True for a good end, or the exception that ended the worker."""
    try:
        kind, content = worker.receiver.recv()
    except (EOFError, OSError):
        worker.process.join()
        died = f"a worker process died (exit {worker.process.exitcode})"
        return _Died(f"{died}; run the same command again with --resume to continue")
    if kind == "event":
        report(worker.task, content)
        return None
    worker.process.join()
    return content or True


def _work(task: Work, sender: Connection) -> None:
    """The worker process: runs its task and sends what happens; without a parent it saves and stops."""
    with stop_on_signals(signal.SIGTERM) as stop:

        def send(event: Event) -> None:
            try:
                sender.send(("event", event))
            except OSError:
                stop.asked = True

        failure: Exception | None = None
        try:
            task(send, stop)
        except (MemxError, Interrupted, RunFailed) as error:
            failure = error
        except KeyboardInterrupt:
            failure = Interrupted("stopped immediately")
        except Exception as error:
            failure = RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        with suppress(OSError):
            sender.send(("end", failure))
