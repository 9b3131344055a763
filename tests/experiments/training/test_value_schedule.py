"""The learning rate of value tables: the schedule of all weights, or a linear decay of its own."""

from itertools import pairwise

import pytest
import torch
from memx import MemoryLayer
from memx.experiments.config.base import to_tree, tree_hash
from memx.experiments.config.loading import load_config
from memx.experiments.config.training import TrainingConfig
from memx.experiments.optim.optimizer import Optimizer
from memx.experiments.optim.schedule import learning_rate_share, value_rate_share


def test_the_value_table_may_have_a_schedule_of_its_own():
    linear = TrainingConfig(steps=110, warmup=10, final_lr=0.1, value_schedule="linear")
    shares = [value_rate_share(step, linear) for step in range(110)]
    assert shares[:10] == [learning_rate_share(step, linear) for step in range(10)]
    assert shares[10] == 1.0 and shares[60] == pytest.approx(0.55) and shares[109] == pytest.approx(0.1, abs=0.01)
    differences = [one - other for one, other in pairwise(shares[10:])]
    assert differences == pytest.approx([0.009] * 99)
    same = TrainingConfig(steps=110, warmup=10)
    assert all(value_rate_share(step, same) == learning_rate_share(step, same) for step in range(110))


@pytest.mark.parametrize("how", ["dense", "sparse"])
def test_the_value_tables_alone_follow_their_schedule(how):
    """After an equal first step both schedules compute the same gradients; the second moves by their rates."""
    steps = {}
    for schedule in ("same", "linear"):
        torch.manual_seed(0)
        layer = MemoryLayer(16, 64, heads=2, top_k=8).double()
        settings = {"steps": 4, "warmup": 0, "clip": None, "final_lr": 0.0, "weight_decay": 0.0}
        optimizer = Optimizer(
            layer, TrainingConfig(**settings, betas=(0.0, 0.5), value_optimizer=how, value_schedule=schedule)
        )
        x = torch.randn(50, 16, dtype=torch.float64)
        moved = []
        for step in range(2):
            before = [p.detach().clone() for p in (layer.query.weight, layer.values.weight)]
            layer(x).square().sum().backward()
            optimizer.step(step)
            after = (layer.query.weight, layer.values.weight)
            moved.append([(new - old).abs().sum().item() for new, old in zip(after, before, strict=True)])
        steps[schedule] = moved
    (same, linear), at = (steps["same"], steps["linear"]), TrainingConfig(steps=4, warmup=0, final_lr=0.0)
    assert same[0] == linear[0]  # both start at the peak
    assert same[1][0] == linear[1][0]
    ratio = value_rate_share(1, at.model_copy(update={"value_schedule": "linear"})) / learning_rate_share(1, at)
    assert linear[1][1] / same[1][1] == pytest.approx(ratio, rel=1e-6)


def test_runs_without_the_key_keep_their_names():
    tree = to_tree(load_config("tiny"))
    older = {**tree, "training": {key: value for key, value in tree["training"].items() if key != "value_schedule"}}
    assert tree_hash(older) == tree_hash(tree)
    linear = {**tree, "training": {**tree["training"], "value_schedule": "linear"}}
    assert tree_hash(linear) != tree_hash(tree)
