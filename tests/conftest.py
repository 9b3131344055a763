"""What every test shares: quiet transformers, one thread, and tiny runs made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores: threads would only stand in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")

FIXTURE_SETTINGS = {
    "training.steps": 40,
    "training.checkpoint_every": 10,
    "training.log_every": 5,
    "evaluation.every": 20,
}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory):
    """A finished run of the tiny preset, 40 steps: (run, rows)."""
    from memx.experiments.config.loading import load_config
    from memx.experiments.config.points import plan
    from memx.experiments.runtime.options import Options
    from memx.experiments.training.sweep import train_points
    from memx.results.store.runs import RunStore

    root: Path = tmp_path_factory.mktemp("runs")
    config = load_config("tiny", FIXTURE_SETTINGS.items())
    rows = train_points(plan(config), Options(root), lambda index, event: None)
    (point,) = plan(config)
    return RunStore(root).run(point.name), rows[point.name]
