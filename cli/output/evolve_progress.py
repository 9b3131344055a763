"""The display of an evolution: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from .train_progress import TrainDisplay

_INTERVAL = 10.0  # seconds between plain lines
_RECENT = 20  # generations that the rate is of


class EvolveDisplay:
    """Shows what `evolve_namm` reports; used as a context."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self.name, self.quiet = name, quiet
        self.terminal = sys.stderr.isatty() and not quiet
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._told = float("-inf")
        self._bar: Any = None
        self._task: Any = None
        self._host = TrainDisplay(["host"], quiet=quiet)  # plain lines: one display at a time owns the terminal
        self._host.terminal = False

    def __enter__(self) -> EvolveDisplay:
        if self.terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                BarColumn(bar_width=12),
                MofNCompleteColumn(),
                TextColumn("{task.fields[what]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=None, what="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        if self.quiet:
            return
        if event.get("host"):
            self._host.report(0, event)
        elif "note" in event:
            self._line(event["note"])
        elif "best" in event:
            self._generation(event)
        elif "validation" in event:
            better = ", the best so far" if event["improved"] else ""
            kept = f"{100 * event['kept']:.0f}% kept"
            self._line(f"{_place(event)}: validation fitness {event['validation']:.4f}, {kept}{better}")
        elif "ended" in event:
            self._line(f"{_place(event)}: ended by {event['ended']}")
        elif self.terminal:
            self._bar.update(self._task, what=event["phase"])
        elif event["phase"] != "validating":
            self._line(event["phase"])

    def _generation(self, event: Mapping[str, Any]) -> None:
        self._seconds.append(event["seconds"])
        done, rate = event["generation"] - event["began"], len(self._seconds) / sum(self._seconds)
        left = (event["generations"] - done) / rate
        what = f"fitness {event['mean']:.3f} (best {event['best']:.3f}), sigma {event['sigma']:.3f}, "
        what += f"{100 * event['kept']:.0f}% kept, {60 * rate:.1f}/min, {clock(left)} left"
        if self.terminal:
            self._bar.update(self._task, completed=done, total=event["generations"], what=what)
            return
        now = time.monotonic()
        if now - self._told >= _INTERVAL or done == event["generations"]:
            self._told = now
            self._line(f"{_place(event)}: {what}")

    def _line(self, text: str) -> None:
        line = f"{self.name}: {text}"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def _place(event: Mapping[str, Any]) -> str:
    """generation 3/100, of stage 2/3 if there are several."""
    stage = f"stage {event['stage'] + 1}/{event['stages']}, " if event["stages"] > 1 else ""
    return f"{stage}generation {event['generation'] - event['began']}/{event['generations']}"


def clock(seconds: float) -> str:
    """Seconds, minutes or hours, as fits."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
