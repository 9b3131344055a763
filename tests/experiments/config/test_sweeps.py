"""Sweeps and variants: sections are merged, the command line comes first, and no model is trained under two names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memx.errors import MemxError
from memx.experiments.config.base import config_hash, run_name, to_yaml, validate
from memx.experiments.config.hosts.kinds import trained_kind
from memx.experiments.config.loading import load_any_config, load_config, parse_assignment
from memx.experiments.config.points import plan, points
from memx.experiments.config.presets import presets, read_tree
from memx.experiments.config.training import TrainConfig


def load(tmp_path, text, *assignments, variants=None):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_config(str(path), [parse_assignment(one) for one in assignments], variants)


def refused(*assignments, preset="tiny") -> MemxError:
    with pytest.raises(MemxError) as error:
        load_config(preset, [parse_assignment(one) for one in assignments])
    assert "\n" not in error.value.message and len(error.value.message) < 300
    return error.value


def test_a_section_in_a_variant_changes_only_its_own_keys(tmp_path):
    config = load(tmp_path, "extends: tiny\nvariants: {a: {training: {lr: 0.001}}, b: {}}", "training.steps=7")
    a, b = points(config)
    assert (a.training.lr, a.training.batch, a.training.steps) == (0.001, b.training.batch, 7)
    assert a.model_copy(update={"training": b.training, "name": b.name, "variant": "b"}) == b


def test_sections_and_dotted_keys_of_a_variant_are_the_same_run(tmp_path):
    nested, dotted = (
        load(tmp_path, f"extends: tiny\nvariants: {{a: {{{keys}}}}}")
        for keys in ("training: {lr: 0.001, warmup: 3}", "training.lr: 0.001, training.warmup: 3")
    )
    assert nested == dotted and points(nested) == points(dotted)


def test_the_command_line_comes_before_a_section_of_a_variant(tmp_path):
    text = "extends: tiny\nvariants: {a: {training: {lr: 0.001, steps: 9}}, b: {}}"
    assert {point.training.steps for point in points(load(tmp_path, text, "training.steps=7"))} == {7}
    config = load(tmp_path, text, "training={steps: 7, warmup: 2}")
    assert [(p.training.steps, p.training.warmup, p.training.lr) for p in points(config)] == [
        (7, 2, 0.001),
        (7, 2, 0.003),
    ]


def test_a_section_of_a_sweep(tmp_path):
    config = load(tmp_path, "extends: facts\nsweep: {memory: {slots: [0, 4096]}, training: {lr: [0.1]}}")
    assert config.sweep == {"memory.slots": (0, 4096), "training.lr": (0.1,)}


def test_a_file_extends_variants_key_by_key(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "extends: tiny\nvariants: {a: {training.lr: 0.1}, b: {memory: {slots: 64}}, c: {}}"
    )
    text = f"extends: {tmp_path / 'base.yaml'}\nvariants: {{a: {{training: {{warmup: 3}}}}, c: null}}\ntraining: {{}}"
    config = load(tmp_path, text)
    assert config.variants == {"a": {"training.lr": 0.1, "training.warmup": 3}, "b": {"memory.slots": 64}}
    assert config.training == load_config("tiny").training


def test_one_key_in_both_forms_is_refused(tmp_path):
    with pytest.raises(MemxError, match=r"the key 'training.lr' is set twice"):
        load(tmp_path, "extends: tiny\nvariants: {a: {training.lr: 1, training: {lr: 2}}}")


def test_a_sweep_is_set_key_by_key():
    config = load_config(
        "facts", [parse_assignment("sweep.memory.slots=[0,1024]"), parse_assignment("sweep.seed=[0,1]")]
    )
    assert config.sweep == {"memory.slots": (0, 1024), "seed": (0, 1)}
    assert load_config("facts", [parse_assignment("sweep.memory.slots=null")]).sweep == {}
    assert (
        config.sweep == load_config("facts", [parse_assignment("sweep={memory: {slots: [0,1024]}, seed: [0,1]}")]).sweep
    )


def test_a_variant_is_set_key_by_key():
    config = load_config("rivals", [parse_assignment("variants.dense x2.training.lr=0.1")], ["dense", "dense x2"])
    assert [variant["training.lr"] for variant in config.variants.values()] == [0.006, 0.1]
    new = load_config("tiny", [("variants.a.seed", 1), ("variants.b", {"training": {"lr": 0.1}})])
    assert new.variants == {"a": {"seed": 1}, "b": {"training.lr": 0.1}}
    assert "did you mean 'dense'" in refused("variants.dens.seed=1", preset="rivals").hint


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["training.steps=5", "training.steps=6"], "training.steps is given two values, 5 and 6"),
        (["training.steps=5", "training={steps: 6}"], "training.steps is given two values, 5 and 6"),
        (["memory.slots=64", "sweep.memory.slots=[0,64]"], "memory.slots is given a value and a sweep"),
        (["memory.slots=64", "sweep={memory: {slots: [0,64]}}"], "memory.slots is given a value and a sweep"),
        (["sweep.seed=[1,1]"], "sweep.seed has 1 twice"),
        (["sweep.seed=0,1"], "sweep.seed: must be a list, not '0,1'"),
        (["sweep.seed=[]"], "sweep.seed has no values"),
        (["sweep.name=[a,b]"], "sweep cannot change name"),
        (["variants.a.variants={}"], "variant 'a' cannot change variants"),
        (
            ["sweep.seed=[0,1]", "variants={a: {seed: 3}, b: {seed: 4, training.lr: 1}}", "experiment=x"],
            "experiment is set",
        ),
        (["training={}"], "training: a section without keys sets nothing"),
        (["variants={'': {seed: 1}}"], "a variant cannot be named ''"),
        (["variants={'a\\nb': {seed: 1}, ? \"a\\nb\" : {}}"], "a variant cannot be named"),
        (["match.times=2"], "match.times needs match.by"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(assignments, message):
    assert message in refused(*assignments).message


def test_the_same_value_twice_is_no_contradiction():
    assert load_config("tiny", [("training.steps", 5), ("training.steps", 5)]).training.steps == 5


def test_a_sweep_of_too_many_points_is_refused_at_once():
    many = ",".join(map(str, range(1000)))
    assert (
        "1,000,000,000 runs are more than 2,000"
        in refused(f"sweep.seed=[{many}]", f"sweep.data.seed=[{many}]", f"sweep.training.warmup=[{many}]").message
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"match.by": "parameters"},
            "facts-slots4096 and facts-slots16384 would train the same model: match.by parameters",
        ),
        ({"memory.kind": "dense"}, "facts-slots0 and facts-slots4096 would train the same model, a dense one"),
        ({"sweep.memory.top_k": [4, 8]}, "facts-slots0-top_k4 and facts-slots0-top_k8 would train the same model"),
        ({"variants": {"a": {}, "b": {"memory.experts": 4}}}, "facts-slots0-a and facts-slots0-b would train the same"),
        ({"variants": {"a": {}, "b": {"finetune.rank": 4}}}, "facts-slots0-a and facts-slots0-b would train the same"),
        (
            {"finetune.source": "x", "sweep": {"model.width": [32, 64]}},
            "facts-width32 and facts-width64 would train the same model, that of 'x'",
        ),
    ],
)
def test_points_that_would_train_one_model_are_refused(settings, message):
    with pytest.raises(MemxError) as error:
        load_config("facts", list(settings.items()))
    assert message in error.value.message and error.value.hint


def test_a_variant_that_is_to_be_matched_is_not_trained_unmatched():
    error = refused("match.by=none", preset="rivals")
    assert "rivals-seed0-dense_x2: match.times does nothing with match.by none" in error.message


def test_a_wrong_point_is_named():
    assert "(at seed 0, variant 'b')" in refused("sweep.seed=[0,1]", "variants={a: {}, b: {training.lr: x}}").message


def test_every_point_of_every_preset_loads_again_as_itself(tmp_path):
    path = tmp_path / "config.yaml"
    for name in presets():
        if trained_kind(read_tree(name)) is not None:
            continue  # those have no sweep
        for point in plan(load_config(name))[:: 1 if name == "facts" else 11]:
            path.write_text(to_yaml(point.config))
            again = load_config(str(path))
            assert again == point.config and [one.name for one in plan(again)] == [point.name]


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "", "$x", "_a", "-a", "[b]", "a b", "é", "a\nb", "a\n", "~", "x" * 300]
)
def test_what_may_not_begin_the_name_of_a_folder(name):
    with pytest.raises(MemxError, match=r"^name: ") as error:
        load_config("tiny", [("name", name)])
    assert len(error.value.message) < 200 and "\n" not in error.value.message


@pytest.mark.parametrize("variant", ["[red]", "a/b", "..", "$x$", "_a", "-a", "é ü", "x" * 100, "..."])
def test_a_variant_of_any_name_has_a_folder(variant):
    (point,) = plan(load_config("tiny", [("variants", {variant: {"seed": 3}})]))
    assert point.config.variant == variant and "/" not in point.name and point.name.isascii()
    assert run_name(point.config) == point.name and point.name.startswith("tiny-")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("lerning", "training.lr"),
        ("learning_rate", "training.lr"),
        ("Steps", "training.steps"),
        ("slot", "memory.slots"),
        ("top-k", "memory.top_k"),
        ("widht", "model.width"),
        ("training.learningrate", "training.lr"),
        ("epochs", "training.steps"),
        ("memory.lr", "training.lr"),
        ("model.slots", "memory.slots"),
        ("trainig.lr", "training"),
    ],
)
def test_a_wrong_key_has_the_nearest_of_all_sections(key, hint):
    assert refused(f"{key}=1").hint == f"did you mean {hint!r}?"


def test_a_dotted_key_of_a_file_belongs_in_its_section(tmp_path):
    with pytest.raises(MemxError, match=r"unknown key 'training.lr'") as error:
        load(tmp_path, "extends: tiny\ntraining.lr: 0.1")
    assert error.value.hint == "write it in its section, as `training: {lr: VALUE}`"


KEYS = st.sampled_from(
    [
        "training.steps",
        "training.lr",
        "memory.slots",
        "memory.layers",
        "data.facts",
        "sweep",
        "sweep.seed",
        "sweep.memory",
        "variants",
        "variants.a",
        "variants.a.seed",
        "corpus.sources",
        "training",
        "match.by",
        "match.times",
        "name",
        "x",
        "",
        ".",
        "training.",
        "training.betas",
        "training.clip",
        "model",
        "seed",
        "evaluation.every",
        "extends",
        "about",
    ]
)
SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        64,
        1e-3,
        float("inf"),
        float("nan"),
        10**400,
        "a",
        "",
        "1e3",
        "[x]",
        "\udcff",
        "memory.slots",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(KEYS | st.just("a"), one, max_size=3), max_leaves=6
)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_settings_give_a_config_or_one_line(tree):
    for make in (lambda: load_config("tiny", tree.items()), lambda: validate(tree, TrainConfig)):
        try:
            config = make()
        except MemxError as error:
            assert error.message and "\n" not in error.message and len(error.message) < 400
        else:
            assert config_hash(validate(config.model_dump(mode="json"), TrainConfig)) == config_hash(config)


@pytest.mark.parametrize("preset", ["facts", "namm-tiny"])
@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000,
        "x=" + "y" * 10_000,
        "a." * 60 + "b=1",
        "training.steps=" + "[" * 500,
        "training.lr=" + "9" * 5000,
        "name=" + "[a]" * 5000,
        "seed=\udcff",
        "seed=a: b: c",
    ],
)
def test_errors_never_print_a_long_text(preset, text):
    with pytest.raises(MemxError) as error:
        load_any_config(preset, [parse_assignment(text)])
    assert len(error.value.message) < 300 and len(error.value.hint) < 300
