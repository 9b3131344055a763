"""Ctrl-C and SIGTERM as a request to stop after the step at hand; a second one stops at once."""

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


@contextmanager
def stop_on_signals(*signals: signal.Signals) -> Iterator[StopRequest]:
    """Turn the first of the signals (SIGINT and SIGTERM) inside the block into `asked`; a second interrupts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: object) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    previous = {number: signal.signal(number, ask) for number in signals or (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is ask:  # what was set meanwhile stays
                signal.signal(number, handler)
