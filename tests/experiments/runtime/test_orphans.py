"""A rank whose torchrun was killed ends by itself, also while it waits where no signal reaches it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WAITING = """if True:
    import signal, sys, time
    sys.path.insert(0, sys.argv[1])
    from memx.experiments.runtime.orphans import end_with_parent
    end_with_parent(pause=0.05, grace=0.2)
    if sys.argv[2] == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(60)"""
MEMX = """if True:
    import os, sys, time
    sys.path.insert(0, sys.argv[1])
    os.environ["TORCHELASTIC_RUN_ID"] = "as under torchrun"
    from memx import __main__
    from memx.cli import main
    def wait():
        print("ready", flush=True)
        time.sleep(60)
    main.main = wait
    __main__.main()"""
PARENT = """if True:
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)"""


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["hearing", "deaf", "memx"])
def test_a_process_ends_soon_after_its_parent_was_killed(kind):
    root = str(Path(sys.modules["memx"].__file__).resolve().parents[1])
    command = [sys.executable, "-c", PARENT, MEMX if kind == "memx" else WAITING, root, kind]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert is_there(child)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    end = time.monotonic() + 30
    while is_there(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_there(child)
