"""Points of a sweep that cost the same are planned once; a longer run says in a dry run where it would start."""

import shutil

from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.planning import sweep_cost
from memx.experiments.planning.estimate import cost_of
from memx.experiments.planning.sweep_cost import costs_of
from memx.experiments.training.lengthen import starts_of

from ...conftest import FIXTURE_SETTINGS


def test_seeds_share_a_cost_and_sizes_do_not(tmp_path, monkeypatch):
    points = plan(load_config("tiny", [("sweep", {"seed": [0, 1, 2], "memory.slots": [256, 1024]})]))
    expected = [cost_of(point, tmp_path) for point in points]
    planned = []
    monkeypatch.setattr(sweep_cost, "cost_of", lambda *given: planned.append(given) or cost_of(*given))
    assert costs_of(points, tmp_path) == expected and len(planned) == 2


def test_a_dry_run_of_more_steps_names_the_run_it_would_start_from(tiny_run, tmp_path):
    run, _ = tiny_run
    shutil.copytree(run.folder, tmp_path / run.name)
    longer = plan(load_config("tiny", {**FIXTURE_SETTINGS, "training.steps": 60}.items()))
    (line,) = starts_of(longer, tmp_path)
    assert line == f"{longer[0].name} would start from step 40 of {run.name}"
    assert starts_of(plan(load_config("tiny", [("training.steps", 60)])), tmp_path) == []  # other settings
