"""What every test shares: quiet transformers, one thread, and tiny runs made once."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("COLUMNS", None)  # tables of captured output are as wide as they need
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores: threads would only stand in each other's way
    # two compilers that fill one cache at once can fail, so each worker has a cache of its own
    _COMPILED = Path(tempfile.gettempdir()) / f"memx-inductor-{os.getuid()}" / os.environ["PYTEST_XDIST_WORKER"]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_COMPILED))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # tests of several threads: those that wait leave the core

FIXTURE_SETTINGS = {
    "training.steps": 40,
    "training.checkpoint_every": 10,
    "training.log_every": 5,
    "training.threads": 1,
    "evaluation.every": 20,
}


LONGEST = ("test_interpreter.py", "test_training.py", "test_structure.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: what is long and last would run alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The garbage collector need not look through what is imported, again and again, where memory is measured."""
    gc.freeze()


@pytest.fixture(autouse=True)
def usual_threads():
    """Give torch back the threads of the environment after a test whose run has set others."""
    yield
    if (torch := sys.modules.get("torch")) and "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory):
    """A finished run of the tiny preset, 40 steps: (run, rows). Trained by one worker, each has a copy of its own."""
    from memx.experiments.config.loading import load_config
    from memx.experiments.config.points import plan
    from memx.experiments.runtime.options import Options
    from memx.experiments.training.sweep import train_points
    from memx.results.store.runs import RunStore

    root: Path = tmp_path_factory.mktemp("runs")
    (point,) = planned = plan(load_config("tiny", FIXTURE_SETTINGS.items()))
    base = tmp_path_factory.getbasetemp()
    together = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    shared = together / "trained-once"
    with FileLock(together / "trained-once.lock"):
        if not (shared / point.name).exists():
            making = together / "trained-now"
            train_points(planned, Options(making), lambda index, event: None)
            making.rename(shared)
    shutil.copytree(shared / point.name, root / point.name)
    run = RunStore(root).run(point.name)
    return run, run.rows()
