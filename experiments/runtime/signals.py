"""Ctrl-C, SIGTERM and SIGHUP as a request to stop after the step at hand; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """A run was stopped on request, its state saved; the command line exits 130."""


class StopRequest:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.asked = False


def _others() -> list[signal.Signals]:
    """The signals besides SIGINT that ask a program to end, and that are not switched off as nohup does."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)  # which Windows lacks
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hangup]


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, wherever it is: in one line, with its files tidied."""
    for number in _others():
        signal.signal(number, signal.default_int_handler)


def ignore_interrupts() -> None:
    """Let no Ctrl-C disturb what the interpreter does at its exit; SIGTERM ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _others():
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_on_signals(*signals: signal.Signals) -> Iterator[StopRequest]:
    """Turn the first of the signals inside the block into `asked`; a second interrupts at once.

    signals: SIGINT, SIGTERM and, unless nohup has switched it off, SIGHUP if none are named.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: object) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    previous = {number: signal.signal(number, ask) for number in signals or (signal.SIGINT, *_others())}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is ask:  # what was set meanwhile stays
                signal.signal(number, handler)
