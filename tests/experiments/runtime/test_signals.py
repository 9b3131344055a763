"""Signals at odd moments end a command in one line, with exit code 130, or let it finish."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from memx.experiments.runtime.signals import interrupt_on_signals, stop_on_signals

ROOT = Path(sys.modules["memx"].__file__).resolve().parents[1]


@pytest.fixture
def usual_handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which nohup and shells switch off for background jobs
    for number in numbers[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_interrupts(usual_handlers, number):
    interrupt_on_signals()
    with stop_on_signals() as stop:
        signal.raise_signal(number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):  # outside nobody asks: the command ends
        signal.raise_signal(number)


def test_nohup_stays_in_force(usual_handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt_on_signals()
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.asked
    signal.raise_signal(signal.SIGHUP)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [0.3, 1, 2, 4, 6, 9])
def test_a_command_that_is_stopped_anywhere_ends_without_a_traceback(tmp_path, number, after):
    command = [sys.executable, "-m", "memx", "train", "tiny", "--steps", "30", "--runs", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    time.sleep(after)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    # before Python runs any code of memx, the signal ends the interpreter itself
    early = process.returncode == -number and not errors
    assert process.returncode in (0, 130) or early, errors
    assert "Traceback" not in errors, errors
