"""The base model of an evolution: trained first if it is a preset's, without touching what the evolution set."""

import torch
from memx.experiments.config.eviction.host import HostConfig
from memx.experiments.eviction import base_model


def test_training_a_base_model_leaves_the_threads_of_the_evolution(tmp_path, monkeypatch):
    before = torch.get_num_threads()

    def train(points, options, report):
        torch.set_num_threads(before + 1)  # as a run does that was begun with others
        return {}

    def load(name, **_):
        assert torch.get_num_threads() == before
        return torch.nn.Linear(1, 1), None

    monkeypatch.setattr(base_model, "train_points", train)
    monkeypatch.setattr(base_model, "load_host", load)
    config = HostConfig(preset="namm-host", device="cpu")
    base_model.prepare_base_model(config, tmp_path, lambda event: None)
    assert torch.get_num_threads() == before
