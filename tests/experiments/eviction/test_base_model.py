"""The base model of an evolution: trained first if it is a preset's, without touching what the evolution set."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.config.eviction.host import HostConfig
from memx.experiments.eviction import base_model
from memx.experiments.models.host_shape import host_shape


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


@pytest.mark.parametrize(
    "name, layers, parameters",
    [("meta-llama/Meta-Llama-3-8B", 32, 8_030_261_248), ("meta-llama/Meta-Llama-3-70B-Instruct", 80, 70_553_706_496)],
)
def test_shapes_of_llama_3_are_known_without_the_hub(monkeypatch, name, layers, parameters):
    monkeypatch.setattr(base_model, "host_config", _unreachable)
    described = base_model.describe_base_model(HostConfig(name=name))
    assert described.num_hidden_layers == layers
    assert host_shape(described, "bfloat16", 0).parameters == parameters


def test_a_model_of_another_shape_is_not_guessed(monkeypatch):
    monkeypatch.setattr(base_model, "host_config", _unreachable)
    with pytest.raises(MemxError, match="no hub"):
        base_model.describe_base_model(HostConfig(name="meta-llama/Llama-3.1-8B"))


def _unreachable(name, **options):
    raise MemxError("no hub", hint="")
