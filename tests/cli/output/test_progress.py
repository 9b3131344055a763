"""The display of events in a pipe: one line for each, of steps one an interval."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from contextlib import contextmanager, suppress

import pytest
from memx.cli.output.progress import ProgressDisplay
from memx.experiments.runtime.events import (
    BaseModelTraining,
    Ended,
    Evaluation,
    Generation,
    Note,
    Phase,
    Position,
    Progress,
    Step,
    Validation,
)

AT = Position(generation=13, began=10, generations=4, stage=1, stages=2)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Note("resumed at step 3"), "resumed at step 3"),
        (Phase("loading smollm2"), "loading smollm2"),
        (Step(8, 9, 1.23456, 12345.6), "step 8/9, loss 1.235, 12,346 tokens/s"),
        (
            Evaluation(8, {"seen": {"exact_match": 50.0, "nll": 1.0}, "corpus": {"nll": 2.0}}),
            "step 8: seen 50.0%, corpus 2.000 nats per token",
        ),
        (Progress(2, 6, "facts", 90.0), "prompt 2/6: facts, 90.0 s per prompt, 6 min left"),
        (
            Generation(AT, 1.5, 1.0, 0.065, 0.4, 30.0),
            "stage 2/2, generation 3/4: fitness 1.000 (best 1.500), sigma 0.065, 40% kept, 2.0/min, 30 s left",
        ),
        (
            Validation(AT, 0.5, 0.4, improved=True),
            "stage 2/2, generation 3/4: validation fitness 0.5000, 40% kept (new best)",
        ),
        (Ended(AT, "patience"), "stage 2/2, generation 3/4: stopped: no improvement in validation (patience)"),
    ],
)
def test_an_event_is_a_line(event, line, capsys):
    with ProgressDisplay(["one", "two"]) as display:
        display.report_of(1, event)
        display.report(BaseModelTraining(event))
    assert capsys.readouterr().err == f"two: {line}\nbase model: {line}\n"


def test_steps_are_a_line_an_interval_and_one_at_the_end(capsys):
    with ProgressDisplay(["one"]) as display:
        for step in range(1, 6):
            display.report(Step(step, 5, 1.0, 1.0))
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("one: step 1/5") and last.startswith("one: step 5/5") and last.endswith(" s left")


def test_what_is_brief_quiet_or_of_another_rank_is_no_line(capsys):
    ProgressDisplay(["one"]).report(Phase("validating", brief=True))
    ProgressDisplay(["one"], quiet=True).report(Note("all"))
    other = ProgressDisplay(["one"], rank=2)
    other.report(Note("all"))
    other.report(Note("mine", own=True))
    assert capsys.readouterr().err == "one: rank 2: mine\n"


def test_a_note_about_what_all_runs_read_is_shown_once(capsys):
    display = ProgressDisplay(["one", "two"])
    for run in range(2):
        display.report_of(run, Note("row 3 is left out", shared=True))
        display.report_of(run, Note("resumed"))
    assert capsys.readouterr().err == "one: row 3 is left out\none: resumed\ntwo: resumed\n"


@contextmanager
def terminal(monkeypatch, columns=100, term="xterm"):
    """A pseudo-terminal in place of stderr, and what was shown on it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    monkeypatch.setenv("TERM", term)
    shown = []
    with os.fdopen(theirs, "w", encoding="utf-8") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        yield shown
        file.flush()
        os.set_blocking(ours, False)
        with suppress(BlockingIOError, OSError):
            while part := os.read(ours, 65536):
                shown.append(part.decode())
    os.close(ours)


ODD = "[bold]x[/] [/red] :smile: a\x1b[31mb\r\udcff"
SHOWN = "[bold]x[/] [/red] :smile: a\\x1b[31mb\\x0d\\xff"


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_names_and_notes_are_text_on_a_terminal(monkeypatch, term):
    with terminal(monkeypatch, 160, term) as shown, ProgressDisplay([ODD], clock=True) as display:
        display.report(Note(f"note {ODD}"))
        display.report(Phase(f"phase {ODD}"))
        display.report(Step(1, 2, 1.0, 1.0))
        display.report(Step(2, 2, 1.0, 1.0))
    text = "".join(shown)
    assert f"{SHOWN}: note {SHOWN}" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert ("\x1b[" in text) == (term == "xterm") and "2/2" in text


def test_a_note_is_whole_on_a_narrow_terminal(monkeypatch):
    name = "a-name-of-a-run/" * 6
    with terminal(monkeypatch, 60) as shown, ProgressDisplay([name]) as display:
        display.report(Note("and the end"))
    assert f"{name}: and the end" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "".join(shown))


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
@pytest.mark.parametrize("name", ["facts-slots65536-0fb88b3d", "an-experiment-of-a-long-name-slots1048576-0fb88b3d"])
def test_bars_cut_no_name_and_no_number(monkeypatch, columns, name):
    with terminal(monkeypatch, columns) as shown, ProgressDisplay([name], clock=True) as display:
        display.report(Step(799, 800, 1.23456, 12345.6))
        display.report(Step(800, 800, 1.23456, 12345.6))
    words = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "".join(shown)).split()
    assert {"loss", "1.235,", "12,346", "tokens/s", "800/800"} <= set(words) and "…" not in "".join(words)
    assert not [word for word in words if word[0] == name[0] and word in name and word != name]  # a part of the name
