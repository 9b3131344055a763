"""An option that takes one value is refused where it is given twice, in every command; some make a sweep."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from memx.cli.main import app
from memx.cli.main import run as memx
from memx.errors import MemxError
from typer.main import get_command


def options(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """The words of each command, the command, and each of its options that takes one value."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, words if name == "default" else (*words, name))
    for param in command.params:
        if param.param_type_name == "option" and not (param.is_flag or param.multiple or hasattr(command, "commands")):
            yield words, command, param


ALL = list(options(get_command(app)))


def test_there_are_options_of_every_command():
    assert len(ALL) > 60 and {words[0] for words, *_ in ALL} >= {"train", "evict", "eval", "plot", "bench", "prepare"}


def test_no_option_of_one_value_is_given_twice():
    for _, command, param in ALL:
        for option in param.opts:
            value = "decision:RUN" if option == "--host" else "1"  # other values are those of --model's old spelling
            given = [option, value, max(param.opts, key=len), value]
            with pytest.raises(MemxError, match="is given twice, but takes one value"):
                command.make_context("memx", given)


def test_short_and_long_spellings_are_one_option(capsys):
    assert memx(["train", "-c", "a.yaml", "--config", "b.yaml"]) == 2
    assert "--config is given twice" in capsys.readouterr().err


def test_an_old_and_a_new_spelling_are_one_option(capsys):
    assert memx(["evict", "text", "--host", "a", "--model", "b"]) == 2
    assert "--model is given twice" in capsys.readouterr().err


def test_slots_and_seeds_given_twice_are_a_sweep(capsys, tmp_path):
    given = ["--slots", "0", "--slots", "64", "--seed", "1", "--seed", "2", "--runs", str(tmp_path)]
    assert memx(["train", "tiny", *given, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["memory_slots"] for run in found] == [0, 0, 64, 64]
    assert [run["run"].rpartition("-")[0] for run in found][:2] == ["tiny-slots0-seed1", "tiny-slots0-seed2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--slots", "64", "--slots", "64"], "sweep.memory.slots has 64 twice"),
        (["--steps", "5", "--set", "training.steps=6"], "training.steps is given two values, 5 and 6"),
        (["--slots", "64", "--slots", "256", "--set", "memory.slots=64"], "memory.slots is given a value and a sweep"),
        (["--seed", "1", "--set", "seed=2"], "seed is given two values, 1 and 2"),
    ],
)
def test_options_that_contradict_each_other(capsys, given, message):
    assert memx(["train", "tiny", *given, "--dry-run"]) == 2
    assert message in capsys.readouterr().err
