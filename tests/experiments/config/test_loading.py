"""Configs: presets, files, --set, sweeps; every mistake names its path and the nearest key."""

from pathlib import Path

import pytest
import yaml
from memx.errors import MemxError
from memx.experiments.config import presets as preset_files
from memx.experiments.config.base import assign, config_hash, to_yaml
from memx.experiments.config.first_about import FIRST_ABOUT
from memx.experiments.config.loading import load_any_config, load_config, load_evolution_config, parse_assignment
from memx.experiments.config.points import experiment_name, points
from memx.experiments.config.presets import all_presets, presets


def mistake(**changes) -> MemxError:
    with pytest.raises(MemxError) as error:
        load_config("tiny", [(key.replace("__", "."), value) for key, value in changes.items()])
    assert "\n" not in error.value.message
    return error.value


def test_a_reworded_preset_keeps_the_names_of_its_runs():
    lines = {about for _, about in all_presets().values()}
    assert set(FIRST_ABOUT) <= lines
    for command, name in ((command, name) for name, (command, _) in all_presets().items()):
        config = load_any_config(name, [])
        first = FIRST_ABOUT.get(config.about or "", config.about)
        assert config_hash(config) == config_hash(config.model_copy(update={"about": first})), (command, name)
        assert config_hash(config) != config_hash(config.model_copy(update={"about": "something else"}))


def test_every_preset_loads_and_says_what_it_is():
    found = presets()
    assert {"facts", "tiny"} <= set(found)
    for name, about in found.items():
        assert about and "\n" not in about
        assert load_any_config(name).name == name


def test_a_written_config_loads_as_itself(tmp_path):
    for name in presets():
        config = load_any_config(name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(to_yaml(config))
        assert load_any_config(str(path)) == config
        assert config_hash(load_any_config(str(path))) == config_hash(config)


def test_a_preset_of_another_kind_of_model_is_no_language_model():
    with pytest.raises(MemxError, match="decision trains a decision model") as error:
        load_config("decision")
    assert error.value.hint == "run: memx train decision"


def test_the_hash_is_of_the_whole_config():
    hashes = {config_hash(load_config("tiny", [(key, value)])) for key, value in
              [("seed", 1), ("training.lr", 1e-4), ("data.unseen", 0.1), ("name", "other"), ("seed", 0)]}  # fmt: skip
    assert len(hashes) == 5


@pytest.mark.parametrize(
    ("key", "value", "message", "hint"),
    [
        ("trainig.steps", 5, "unknown key 'trainig'", "did you mean 'training'?"),
        ("training.step", 5, "unknown key 'training.step'", "did you mean 'training.steps'?"),
        ("steps", 5, "unknown key 'steps'", "did you mean 'training.steps'?"),
        ("memory.topk", 5, "unknown key 'memory.topk'", "did you mean 'memory.top_k'?"),
        ("memory.slots", 1000, "memory: slots 1000 is not a square", "use the nearest, 1024"),
        ("memory.top_k", 33, "memory: top_k 33 is not in 1..32", "lower top_k to 32"),
        ("training.lr", [1, 2], "training.lr: must be a number, not [1, 2]", "--set 'sweep.training.lr=[1, 2]'"),
        ("training.steps", "many", "training.steps: must be a whole number, not 'many'", ""),
        ("training.steps", 0, "training.steps: must be at least 1, not 0", ""),
        ("training.steps", 1.5, "training.steps", ""),
        ("memory.kind", "engramm", "memory.kind: must be 'dense'", "did you mean 'engram'?"),
        ("training.schedule", "linear", "training.schedule: must be 'cosine' or 'wsd', not 'linear'", ""),
        ("data.sequence", 1024, "data.sequence 1024 is longer than model.context 64", ""),
        ("memory.layers", [5], "memory.layers [5] are outside the model's blocks 0..1", "choose from 0 to 1"),
        (
            "memory.also",
            [{"kind": "moe", "layers": [4]}],
            "memory.also.0.layers [4] are outside the model's blocks",
            "",
        ),
        ("memory.also", [{"kind": "moe", "layer": [0]}], "unknown key 'memory.also.0.layer'", "'memory.also.0.layers'"),
        ("memory.also", [{"kind": "moe", "sparse": 9}], "unknown key 'memory.also.0.sparse'", "set memory.sparse"),
        ("model.heads", 3, "model: width 32 with 3 heads", ""),
        ("seed.x", 1, "seed: must be a whole number", ""),
        ("name", "a/b", "name: 'a/b' cannot begin the name of a folder", "use letters, digits and ._+-"),
        ("memory.key_width", 7, "memory.key_width: key_width 7 is odd", "even number"),
        ("sweep.memory.slots", 64, "sweep.memory.slots: must be a list, not 64", "[VALUE, VALUE]"),
    ],
)
def test_mistakes_are_one_line_with_the_nearest_name(key, value, message, hint):
    error = mistake(**{key.replace(".", "__"): value})
    assert message in error.message
    assert hint in error.hint


def test_unknown_presets_and_files(tmp_path):
    with pytest.raises(MemxError, match="no preset or file 'fact'") as error:
        load_config("fact")
    assert error.value.hint == "did you mean 'facts'?"
    with pytest.raises(MemxError, match="No such file"):
        load_config(str(tmp_path / "no.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(MemxError, match="is not valid YAML"):
        load_config(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(MemxError, match="is not a config"):
        load_config(str(tmp_path / "list.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=null", None),
        ("a.b=x=y", "x=y"),
        ("a.b=-2.5", -2.5),
    ],
)
def test_assignments_are_yaml(text, value):
    assert parse_assignment(text) == ("a.b", value)


@pytest.mark.parametrize("text", ["a.b", "=3", "a=[1"])
def test_assignments_that_are_none(text):
    with pytest.raises(MemxError):
        parse_assignment(text)


def test_a_file_extends_a_preset_section_by_section(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: facts\nname: mine\nmemory: {top_k: 4}\nsweep: {seed: [0, 1]}\n")
    mine, facts = load_config(str(path)), load_config("facts")
    assert (mine.name, mine.memory.top_k, mine.memory.heads) == ("mine", 4, facts.memory.heads)
    assert set(mine.sweep) == {"memory.slots", "seed"}
    assert load_config("facts-3seeds").model_copy(update={"name": "facts", "about": "", "sweep": {}}) == (
        facts.model_copy(update={"about": "", "sweep": {}})
    )


def test_assign_leaves_its_input_alone():
    tree = {"a": {"b": 1}}
    assert assign(tree, "a.c", 2) == {"a": {"b": 1, "c": 2}}
    assert tree == {"a": {"b": 1}}


def test_dense_and_no_slots_are_the_same():
    by_kind, by_slots = (load_config("tiny", [change]) for change in (("memory.kind", "dense"), ("memory.slots", 0)))
    assert by_kind == by_slots
    assert (by_kind.memory.kind, by_kind.memory.slots, by_kind.memory.placed_layers(4)) == ("dense", 0, ())


def test_a_sweep_is_every_combination():
    config = load_config("tiny", [("sweep", {"memory.slots": [0, 64], "seed": [0, 1]})])
    runs = points(config)
    assert [(run.memory.slots, run.seed) for run in runs] == [(0, 0), (0, 1), (64, 0), (64, 1)]
    assert [run.name for run in runs][1] == "tiny-slots0-seed1"
    assert {run.experiment for run in runs} == {experiment_name(config)}
    assert len({config_hash(run) for run in runs}) == 4
    assert all(points(run) == [run] for run in runs)


def test_a_longer_sweep_is_the_same_experiment_and_keeps_its_points():
    short, long = (load_config("tiny", [("sweep", {"memory.slots": slots})]) for slots in ([0, 64], [0, 64, 256]))
    assert experiment_name(short) == experiment_name(long)
    assert points(short) == points(long)[:2]


def test_a_set_key_leaves_the_sweep():
    config = load_config("facts", [("memory.slots", 4096)])
    assert "memory.slots" not in config.sweep
    assert [run.memory.slots for run in points(config)] == [4096]


def test_a_sweep_over_an_unknown_key_fails_before_anything_runs():
    assert "unknown key 'memory.slot'" in mistake(sweep={"memory.slot": [0]}).message


def test_defaults_are_the_documented_ones():
    from memx.experiments.config.training import TrainConfig

    config = TrainConfig()
    assert (config.memory.query_heads, config.memory.kept, config.training.betas) == (4, 32, (0.9, 0.95))
    assert yaml.safe_load(to_yaml(config))["data"]["facts"] == ["airports", "elements", "countries"]


VARIANTS = {"plain": {"memory.kind": "dense"}, "64 slots, k 4": {"memory.slots": 64, "memory.top_k": 4}}


def test_variants_are_runs_with_names_and_share_an_experiment():
    config = load_config("tiny", [("variants", VARIANTS), ("sweep", {"seed": [0, 1]})])
    runs = points(config)
    assert [(run.variant, run.seed) for run in runs] == [(name, seed) for seed in (0, 1) for name in VARIANTS]
    assert [run.name for run in runs[:2]] == ["tiny-seed0-plain", "tiny-seed0-64_slots__k_4"]
    assert (runs[0].memory.kind, runs[1].memory.slots, runs[1].memory.kept) == ("dense", 64, 4)
    assert {run.experiment for run in runs} == {experiment_name(config)}
    assert len({config_hash(run) for run in runs}) == 4
    assert all(points(run) == [run] for run in runs)


def test_a_chosen_variant_is_the_run_that_all_of_them_would_make():
    every = load_config("tiny", [("variants", VARIANTS)])
    some = load_config("tiny", [("variants", VARIANTS)], variants=["plain"])
    assert list(some.variants) == ["plain"]
    assert points(some) == points(every)[:1]


def test_variants_are_chosen_by_name_in_the_order_of_the_config():
    config = load_config("rivals", variants=["moe 4", "dense"])
    assert list(config.variants) == ["dense", "moe 4"]
    assert list(dict.fromkeys(run.variant for run in points(config))) == ["dense", "moe 4"]


def test_every_preset_is_listed_once_and_small_ones_come_first():
    files = {path.stem for path in Path(preset_files.__file__).with_name("presets").glob("*.yaml")}
    assert set(all_presets()) == files and len(preset_files._ORDER) == len(files)
    assert list(presets())[:2] == ["tiny", "facts"] and list(presets())[-1] == "27b"


def test_a_variant_that_is_not_there():
    with pytest.raises(MemxError, match="no variant 'dens'") as error:
        load_config("rivals", variants=["dens"])
    assert error.value.hint == "did you mean 'dense'?"
    with pytest.raises(MemxError, match="no variant 'zzz'") as error:
        load_config("tiny", [("variants", VARIANTS)], variants=["zzz"])
    assert error.value.hint == "use one of: plain, 64 slots, k 4"
    with pytest.raises(MemxError, match="tiny has no variants") as error:
        load_config("tiny", variants=["dense"])
    assert "--slots 0 trains the dense model" in error.value.hint


@pytest.mark.parametrize("name", ["my.csv", "folder/my.jsonl", "my.parquet"])
def test_a_file_of_facts_is_no_config(name):
    with pytest.raises(MemxError, match=f"{name} is not a config") as error:
        load_config(name)
    assert error.value.hint == f"facts go to --facts: memx train facts --facts {name}"


def test_a_set_key_leaves_the_variants():
    config = load_config("rivals", [("memory.heads", 1), ("match.times", 2)], ["dense x4", "memory 4k"])
    assert all("match.times" not in changes for changes in config.variants.values())
    assert {run.match.times for run in points(config)} == {2.0}


def test_a_set_key_must_leave_variants_that_differ():
    with pytest.raises(MemxError, match=r"with memory\.slots set for all, the variants 'memory 4k' and 'memory 16k'"):
        load_config("rivals", [("memory.slots", 1024)])
    config = load_config("rivals", [("memory.slots", 1024)], ["dense", "memory 4k"])
    assert [run.memory.slots for run in points(config)][:2] == [0, 1024]


def test_a_variant_of_an_unknown_key_fails_before_anything_runs():
    assert "unknown key 'memory.slot'" in mistake(variants={"a": {"memory.slot": 64}}).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune.train": "lora"}, "finetune.train lora needs a pretrained model"),
        ({"finetune.train": "memory"}, "finetune.train memory needs a pretrained model"),
        ({"finetune.train": "slots"}, "finetune.train slots needs a pretrained model"),
        ({"memory.insertion": "beside", "memory.kind": "peer"}, "memory.kind peer can only replace the feed-forward"),
        ({"training.value_dtype": "bfloat16", "training.value_optimizer": "dense"}, "loses small updates"),
        ({"memory.kind": "moe", "memory.experts_per_token": 20}, "experts_per_token 20 is above experts 16"),
        ({"memory.layers": []}, "layers is empty"),
        ({"memory.count": 5, "memory.layers": None}, "5 memory layers with a stride of 4 do not fit in 2 blocks"),
    ],
)
def test_settings_that_contradict_each_other(changes, message):
    assert message in mistake(**{key.replace(".", "__"): value for key, value in changes.items()}).message


def test_a_rotary_scaling_replaces_that_of_the_preset_whole(tmp_path):
    (tmp_path / "own.yaml").write_text("extends: namm-llama-3-8b\nhost: {rope: {rope_type: default}}\n")
    host = load_evolution_config(str(tmp_path / "own.yaml")).host
    assert host.rope == {"rope_type": "default"} and host.name == load_evolution_config("namm-llama-3-8b").host.name
