"""Which model `memx evict` takes for a NAMM unless one is named."""

from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.experiments.config.base import run_name, to_yaml
from memx.experiments.config.loading import load_config, load_evolution_config
from memx.experiments.eviction.base_model import base_model_point
from memx.experiments.eviction.default_model import default_model, model_of_run


def run_of(folder, text):
    (folder / "namm").mkdir(parents=True)
    (folder / "namm" / "namm.json").touch()
    (folder / "config.yaml").write_text(text)
    return folder


def test_a_run_brings_the_model_that_it_evolved_on(tmp_path):
    run = run_of(tmp_path / "a", to_yaml(load_evolution_config("namm-universal", [("host.name", "gemma3-270m")])))
    assert {default_model(run), default_model(run / "namm"), default_model(str(run))} == {"gemma3-270m"}


def test_a_model_that_memx_trained_first_is_its_checkpoint(tmp_path):
    config = load_evolution_config("namm-tiny", [])
    run = run_of(tmp_path / run_name(config), to_yaml(config))
    expected = tmp_path / base_model_point(config.host).name / "checkpoint"
    assert default_model(run / "namm") == str(expected)


def test_all_other_namms_are_used_with_smollm2(tmp_path):
    trained = run_of(tmp_path / "trained", to_yaml(load_config("facts", [])))
    for given in (None, "universal", "someone/namm", tmp_path / "mine" / "namm", trained):
        assert default_model(given) == "smollm2"


def test_a_config_that_lies_in_the_current_folder_is_nobodys(tmp_path, monkeypatch):
    run = run_of(tmp_path / "a", to_yaml(load_evolution_config("namm-universal", [("host.name", "gemma3-270m")])))
    monkeypatch.chdir(run)
    assert {default_model(name) for name in ("universal", "someone/namm", "nowhere")} == {"smollm2"}
    (run / "other").mkdir()
    (run / "other" / "namm.json").touch()
    assert default_model("other") == "smollm2" and model_of_run("other") is None
    assert default_model("namm") == default_model(".") == "gemma3-270m"


def test_a_run_named_from_inside_finds_the_models_folder(tmp_path, monkeypatch):
    config = load_evolution_config("namm-tiny", [])
    run = run_of(tmp_path / run_name(config), to_yaml(config))
    monkeypatch.chdir(run)
    checkpoint = tmp_path / base_model_point(config.host).name / "checkpoint"
    assert Path(default_model("namm")).resolve() == Path(default_model(".")).resolve() == checkpoint


def test_a_damaged_config_is_told(tmp_path):
    with pytest.raises(MemxError, match=r"config\.yaml"):
        default_model(run_of(tmp_path / "a", "]") / "namm")
