"""The display of what a command reports: bars on a terminal, one plain line per interval in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ...experiments.runtime.events import (
    BaseModelTraining,
    Ended,
    Evaluation,
    Event,
    Generation,
    Note,
    Phase,
    Position,
    Progress,
    Step,
    Validation,
)
from .console import terminal_console
from .streams import note, readable

_INTERVAL = 10.0  # seconds between plain lines of one run
_REASONS = {"generations": "all generations done", "patience": "no improvement in validation (patience)"}
_BESIDE_NAME = 44  # columns that count and text want beside the name of a run
_BAR, _WORDS = 12, 20  # least width of a bar; of its text, which holds every word
_RECENT = 20  # generations or prompts that the time of the next ones is judged by


def shows_bars() -> bool:
    """Whether stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class ProgressDisplay:
    """Shows the events of one run, or of the runs of a sweep; used as a context.

    Args:
        names: The runs, as lines begin and bars are called.
        quiet: Show nothing.
        rank: Of torchrun's processes; the first shows everything, the others what is about them alone.
        clock: Whether a bar says how long its run took and will take, where events do not.
    """

    def __init__(self, names: Sequence[str], *, quiet: bool = False, rank: int = 0, clock: bool = False) -> None:
        self.names = list(names)
        self.quiet, self.rank, self.clock = quiet, rank, clock
        self.terminal = shows_bars() and not quiet and not rank
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._shared: set[str] = set()  # notes about what all runs read, which have been shown
        self._printed: dict[str, float] = {}  # when a run's last line of steps was
        self._begun: dict[str, tuple[float, int]] = {}  # when which step of a run was its first here
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    def __enter__(self) -> ProgressDisplay:
        if self.terminal:
            self._bars = self._make_bars()
            self._bars.start()
        return self

    def _make_bars(self) -> Any:
        """The bars: a narrow terminal has none, but the whole name of a run, and text that wraps between words."""
        from rich import progress
        from rich.cells import cell_len
        from rich.table import Column

        console = terminal_console(stderr=True)
        name = max((cell_len(readable(name, sys.stderr)) for name in self.names), default=0) if self.clock else 0
        room = console.width - name - _BESIDE_NAME
        columns: list[Any] = []
        if self.clock and name <= console.width - _BESIDE_NAME // 2:  # a name that fills the line is in its notes alone
            whole = Column(no_wrap=True, min_width=name)
            columns.append(progress.TextColumn("{task.description}", markup=False, table_column=whole))
        if room > _BAR:
            columns.append(progress.BarColumn(bar_width=24 if self.clock and room > 3 * _BAR else _BAR))
        columns.append(progress.TextColumn("{task.fields[count]}", justify="right", markup=False))
        text = Column(no_wrap=False, min_width=min(_WORDS, console.width // 3))
        columns.append(progress.TextColumn("{task.fields[what]}", markup=False, table_column=text))
        if self.clock and room > _BAR:
            columns += [progress.TimeElapsedColumn(), progress.TimeRemainingColumn()]
        return progress.Progress(*columns, console=console)

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def report(self, event: Event) -> None:
        """Show an event of the only run."""
        self.report_of(0, event)

    def report_of(self, index: int, event: Event) -> None:
        """Show an event of run `index`."""
        own = isinstance(event, Note) and event.own
        if self.quiet or (self.rank and not own):
            return
        if isinstance(event, BaseModelTraining):
            self._show("base model", event.event, bar=False)
        else:
            self._show(self.names[index], event, bar=self.terminal)

    def _show(self, name: str, event: Event, *, bar: bool) -> None:
        match event:
            case Note(text):
                if not (event.shared and text in self._shared):
                    self._line(name, text)
                self._shared |= {text} if event.shared else set()
            case Phase(text):
                if bar:
                    self._bars.update(self._task(name), what=readable(text, sys.stderr))
                elif not event.brief:
                    self._line(name, text)
            case Evaluation(step, scores):
                self._line(name, f"step {step}: {_scores(scores)}")
            case Validation(position, fitness, kept):
                better = " (new best)" if event.improved else ""
                self._line(
                    name, f"{_place(position)}: validation fitness {fitness:.4f}, {100 * kept:.0f}% kept{better}"
                )
            case Ended(position, reason):
                self._line(name, f"{_place(position)}: stopped: {_REASONS.get(reason, reason)}")
            case Step(step, steps):
                what = f"loss {event.loss:.3f}, {event.tokens_per_second:,.0f} tokens/s"
                left = self._left(name, step, steps)
                self._advance(name, step, steps, what, f"step {step}/{steps}, {what}{left}", bar=bar)
            case Generation(position):
                what = self._generation(event)
                self._advance(name, position.done, position.generations, what, f"{_place(position)}: {what}", bar=bar)
            case Progress(done, total, what):
                left = (total - done) * self._mean_seconds(event.seconds)
                what = f"{what}, {event.seconds:.1f} s per prompt, {_clock(left)} left"
                self._advance(name, done, total, what, f"prompt {done}/{total}: {what}", bar=bar)
            case BaseModelTraining():
                raise AssertionError("base models have no base model")

    def _generation(self, event: Generation) -> str:
        seconds = self._mean_seconds(event.seconds)
        left = (event.position.generations - event.position.done) * seconds
        fitness = f"fitness {event.mean:.3f} (best {event.best:.3f}), sigma {event.sigma:.3f}"
        return f"{fitness}, {100 * event.kept:.0f}% kept, {60 / seconds:.1f}/min, {_clock(left)} left"

    def _mean_seconds(self, seconds: float) -> float:
        self._seconds.append(seconds)
        return sum(self._seconds) / len(self._seconds)

    def _left(self, name: str, step: int, steps: int) -> str:
        """The time that a training run still takes at the rate of all its steps here."""
        now = time.monotonic()
        begun, first = self._begun.setdefault(name, (now, step))
        rate = (step - first) / (now - begun) if now > begun else 0.0
        return f", {(steps - step) / rate:.0f} s left" if rate else ""

    def _advance(self, name: str, done: int, total: int, what: str, line: str, *, bar: bool) -> None:
        """Move a bar on, or print a line if the last is an interval ago or this is the end."""
        now = time.monotonic()
        if bar:
            self._bars.update(
                self._task(name), completed=done, total=total, what=readable(what, sys.stderr), count=f"{done}/{total}"
            )
        elif now - self._printed.get(name, float("-inf")) >= _INTERVAL or done == total:
            self._printed[name] = now
            self._line(name, line)

    def _task(self, name: str) -> Any:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(readable(name, sys.stderr), total=None, what="", count="")
        return self._tasks[name]

    def _line(self, name: str, text: str) -> None:
        line = f"{name}: {f'rank {self.rank}: ' if self.rank else ''}{text}"
        if self._bars is not None:
            self._bars.console.print(readable(line, sys.stderr), soft_wrap=True)
        else:
            note(line)


def _scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(
        f"{name} {of_set['exact_match']:.1f}%"
        if "exact_match" in of_set
        else f"{name} {of_set['nll']:.3f} nats per token"
        for name, of_set in scores.items()
    )


def _place(position: Position) -> str:
    """generation 3/100, of stage 2/3 if there are several."""
    stage = f"stage {position.stage + 1}/{position.stages}, " if position.stages > 1 else ""
    return f"{stage}generation {position.done}/{position.generations}"


def _clock(seconds: float) -> str:
    """Seconds, minutes or hours, as fits."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
