"""Every number of every config: finite, no truth value, no text, and bounded; and YAML's ways of writing one."""

from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from memx.errors import MemxError
from memx.experiments.config.base import assign, config_hash, to_tree, validate
from memx.experiments.config.eviction.evolution import EvolveConfig
from memx.experiments.config.eviction.policy_eval import EvalConfig
from memx.experiments.config.loading import load_config, parse_assignment
from memx.experiments.config.question_answering import QaConfig
from memx.experiments.config.training import TrainConfig
from pydantic import BaseModel

NAMM = {"folder": "f", "sha256": "0"}
TREES = {
    TrainConfig: {"corpus": {"sources": [{"path": "p"}]}, "memory": {"also": [{"kind": "memory", "layers": [0]}]}},
    EvolveConfig: {
        "evolution": {"stages": [{"tasks": ["needles"]}]},
        "tasks": {"train": ["needles"]},
        "more_hosts": [{"name": "gemma3-270m"}],
    },
    EvalConfig: {"namms": [NAMM], "host": {"name": "smollm2"}, "tasks": ["needles"]},
    QaConfig: {"name": "n", "model": "m"},
}
WRONG = (
    float("inf"),
    float("-inf"),
    float("nan"),
    True,
    False,
    "abc",
    "10",
    "1e400",
    10**400,
    -(10**400),
    10**13,
    [],
    {},
)
BELOW_ZERO = {"namm.threshold", "namms.0.seed"}  # keys that may be


def numbers(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, int]]:
    """Each key with numbers, and how many there are in its value: 0 for one by itself, or of a list."""
    for name, field in model.model_fields.items():
        union = get_origin(field.annotation) in (Union, UnionType)
        for kind in get_args(field.annotation) if union else [field.annotation]:
            of_list = get_args(kind) if get_origin(kind) is tuple else ()
            for one in of_list[:1] or [kind]:
                if isinstance(one, type) and issubclass(one, BaseModel):
                    yield from numbers(one, f"{above}{name}{'.0' if of_list else ''}.")
                elif one in (int, float):
                    yield above + name, sum(part is not Ellipsis for part in of_list)


def with_value(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The tree with the key set; `sources.0.weight` is the weight of the first source."""
    section, _, rest = key.partition(".0.")
    if not rest:
        return assign(tree, key, value)
    parts = section.split(".")
    inside: Any = tree
    for part in parts:
        inside = inside[part]
    return assign(tree, section, [{**inside[0], rest: value}])


ALL = [(model, key, count) for model in TREES for key, count in numbers(model)]


def test_there_are_as_many_keys_as_the_configs_have():
    keys = [key for model, key, _ in ALL if model is TrainConfig]
    assert {"training.lr", "training.betas", "memory.layers", "corpus.sources.0.weight", "match.times"} <= set(keys)
    assert len(ALL) > 90


@pytest.mark.parametrize("model", TREES, ids=lambda model: model.__name__)
def test_no_key_takes_what_is_no_number(model):
    for key, count in ((key, count) for of, key, count in ALL if of is model):
        for wrong in WRONG if key in BELOW_ZERO else (*WRONG, -1, -0.5):
            if count and wrong in ([], {}):
                continue
            value = [0.5] * (count - 1) + [wrong] if count else wrong
            with pytest.raises(MemxError) as error:
                validate(with_value(TREES[model], key, value), model)
                print("accepted", key, wrong)
            message = error.value.message
            assert key.partition(".")[0] in message and len(message) < 250 and "\n" not in message, (key, message)


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", "0.001", ".001", "+1e-3"])
def test_numbers_as_people_write_them(written):
    assert load_config("tiny", [parse_assignment(f"training.lr={written}")]).training.lr == 0.001


def test_whole_numbers_with_an_exponent():
    assert load_config("tiny", [parse_assignment("training.steps=1e3")]).training.steps == 1000


@pytest.mark.parametrize(
    ("written", "shown"), [("010", "'010'"), ("1:30", "'1:30'"), ("yes", "'yes'"), ("true", "true")]
)
def test_what_is_no_number_is_shown_as_it_was_written(written, shown):
    with pytest.raises(MemxError, match=rf"training\.steps: must be a whole number, not {shown}"):
        load_config("tiny", [parse_assignment(f"training.steps={written}")])


def test_a_negative_zero_is_the_same_run():
    zeros = [load_config("tiny", [("training.weight_decay", zero)]) for zero in (0, 0.0, -0.0)]
    assert len({config_hash(config) for config in zeros}) == 1
    assert str(to_tree(zeros[2])["training"]["weight_decay"]) == "0.0"


def test_yes_and_no_are_truth_values_where_one_is_needed_and_texts_elsewhere():
    config = load_config("tiny", [parse_assignment("memory.qk_norm=no"), parse_assignment("data.relations=[no, on]")])
    assert config.memory.qk_norm is False and config.data.relations == ("no", "on")


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.layers", 10**9), ("data.biographies", 10**9), ("data.vocabulary", 10**9), ("corpus.lanes", 10**9),
     ("training.threads", 10**6), ("training.batch", 10**9), ("model.width", 10**9), ("evaluation.max_answer", 10**5)],
)  # fmt: skip
def test_sizes_that_no_machine_has_are_refused_by_name(key, value):
    with pytest.raises(MemxError, match=f"^{key}: must be at most"):
        load_config("tiny", [(key, value)])


def test_a_base_frequency_below_1_turns_no_position_into_an_angle():
    with pytest.raises(MemxError, match=r"^model\.rope_theta: must be at least 1"):
        load_config("tiny", [("model.rope_theta", 1e-320)])


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"])
def test_a_text_that_no_file_can_hold(text):
    with pytest.raises(MemxError, match=r"training\.device: .* has a character that no text file can hold"):
        load_config("tiny", [("training.device", text)])
