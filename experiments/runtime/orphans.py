"""Ends a process soon after the one that started it is gone, so that a killed torchrun leaves no rank asleep.

A rank that waits for others in a collective notices neither their end nor torchrun's for hours. No torch here.
"""

from __future__ import annotations

import os
import signal
import threading
import time

_PAUSE = 1.0  # seconds between two looks at the parent
_GRACE = 30.0  # seconds to save and to end by itself


def end_with_parent(*, pause: float = _PAUSE, grace: float = _GRACE) -> None:
    """End this process when its parent has ended: ask it to stop as SIGTERM does, then end it whatever it waits for.

    Args:
        pause: Seconds between two looks at the parent.
        grace: Seconds from the request to the end.
    """
    given = (os.getppid(), pause, grace)
    threading.Thread(target=_watch, args=given, name="memx-parent", daemon=True).start()


def _watch(parent: int, pause: float, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(pause)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)  # in a collective no Python code runs that could end it otherwise
