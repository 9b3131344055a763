"""The display of an evaluation: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from .evolve_progress import EvolveDisplay, clock

_INTERVAL = 10.0  # seconds between plain lines
_RECENT = 20  # prompts that the rate is of


class EvalDisplay(EvolveDisplay):
    """Shows what `eval_namm` reports; used as a context."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        super().__init__(name, quiet=quiet)
        self._spent: deque[float] = deque(maxlen=_RECENT)

    def report(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        if "done" not in event:
            super().report(event)
        elif not self.quiet:
            self._prompt(event)

    def _prompt(self, event: Mapping[str, Any]) -> None:
        self._spent.append(event["seconds"])
        left = (event["total"] - event["done"]) * sum(self._spent) / len(self._spent)
        what = f"{event['what']}, {event['seconds']:.1f} s a prompt, {clock(left)} left"
        if self.terminal:
            self._bar.update(self._task, completed=event["done"], total=event["total"], what=what)
            return
        now = time.monotonic()
        if now - self._told >= _INTERVAL or event["done"] == event["total"]:
            self._told = now
            self._line(f"prompt {event['done']}/{event['total']}: {what}")
