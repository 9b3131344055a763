"""The display of a training run or sweep: bars on a terminal, one plain line per interval in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

_INTERVAL = 10.0  # seconds between plain lines of one run


class TrainDisplay:
    """Shows what `train_all` reports; used as a context.

    rank: of torchrun's processes, of which the first shows all, the others what is theirs alone.
    """

    def __init__(self, names: Sequence[str], *, quiet: bool = False, rank: int = 0) -> None:
        self.names = list(names)
        self.quiet, self.rank = quiet, rank
        self.terminal = sys.stderr.isatty() and not quiet and not rank
        self._told: dict[int, float] = {}
        self._begun: dict[int, tuple[float, int]] = {}
        self._bars: Any = None
        self._tasks: dict[int, Any] = {}

    def __enter__(self) -> TrainDisplay:
        if self.terminal:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[what]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def report(self, index: int, event: Mapping[str, Any]) -> None:
        """Show one event of run `index`."""
        if self.quiet or (self.rank and not event.get("own")):
            return
        if "note" in event:
            self._line(index, event["note"])
        elif "evaluation" in event:
            self._line(index, f"step {event['step']}: {_scores(event['evaluation'])}")
        elif self.terminal:
            self._bar(index, event)
        elif "loss" in event:
            self._plain(index, event)
        elif "phase" in event:
            self._line(index, event["phase"])

    def _plain(self, index: int, event: Mapping[str, Any]) -> None:
        now, step = time.monotonic(), event["step"]
        begun, first = self._begun.setdefault(index, (now, step))
        if now - self._told.get(index, 0.0) >= _INTERVAL or step == event["steps"]:
            self._told[index] = now
            rate = (step - first) / (now - begun) if now > begun else 0.0
            left = f", {(event['steps'] - step) / rate:.0f} s left" if rate else ""
            speed = f"{event['tokens_per_second']:,.0f} tokens/s"
            self._line(index, f"step {step}/{event['steps']}, loss {event['loss']:.3f}, {speed}{left}")

    def _bar(self, index: int, event: Mapping[str, Any]) -> None:
        if index not in self._tasks:
            steps = event.get("steps")
            self._tasks[index] = self._bars.add_task(self.names[index], total=steps, what="")
        task = self._tasks[index]
        if "loss" in event:
            what = f"loss {event['loss']:.3f}, {event['tokens_per_second']:,.0f} tokens/s"
            self._bars.update(task, completed=event["step"], total=event["steps"], what=what)
        elif "phase" in event:
            self._bars.update(task, what=event["phase"])

    def _line(self, index: int, text: str) -> None:
        line = f"{self.names[index]}: {f'rank {self.rank}: ' if self.rank else ''}{text}"
        if self._bars is not None:
            self._bars.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def _scores(evaluation: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(
        f"{asked} {scores['exact_match']:.1f}%"
        if "exact_match" in scores
        else f"{asked} {scores['nll']:.3f} nats a token"
        for asked, scores in evaluation.items()
    )
