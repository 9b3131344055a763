"""A short part of the campaign; `make campaign` runs all of it. And that its rules notice what they are there for."""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import pytest

from tests.ranks import run_worlds

from . import forks, totals
from .fuzz import run_inputs
from .inputs.draw import input_of, quoted
from .inputs.surface import commands, keys
from .inputs.values import WRONG
from .kills.scenarios import Scenario
from .kills.trials import Kills
from .rules import EXIT, HANG, LEFT, TRACEBACK, WORDS
from .workspace import write_small

LIGHT = ("train", "config show", "config copy", "runs", "presets")  # that are refused before anything is loaded
SEED = 3


@pytest.fixture
def master(tmp_path: Path) -> Path:
    """The files of the workspace that need no run."""
    folder = tmp_path / "master"
    (folder / "results" / "runs").mkdir(parents=True)
    write_small(folder)
    return folder


def try_inputs(root: str, count: int) -> list[str]:
    """Run inputs of light commands; what broke a rule, as text."""
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    forks.warm("memx.cli", "memx.experiments.config", "memx.results.store")
    numbers = (number for number in range(4_000) if _is_light(number, Path(root)))
    chosen = [number for number, _ in zip(numbers, range(count), strict=False)]
    verdicts = list(run_inputs(iter(chosen), SEED, Path(root), Path(root) / "master"))
    assert len(verdicts) == count
    return [f"#{one.input.number} {one.input.line()}: {one.faults}\n{one.ended.err}" for one in verdicts if one.faults]


def _is_light(number: int, root: Path) -> bool:
    given = input_of(number, SEED, root / "master")
    light = given.met == WRONG or given.call.arguments[0] == "config"
    return light and given.command in LIGHT and given.family in ("option", "key", "yaml")


def test_a_part_of_the_inputs(tmp_path, master):
    ((told,),) = run_worlds(try_inputs, (1,), dict(root=str(tmp_path), count=25)).values()
    assert not told, "\n".join(told)


def break_rules() -> None:
    """A program that breaks the rule that its first number asks for."""
    way = int(os.environ["WAY"])
    if way == 1:
        raise ValueError("a traceback")
    if way == 2:
        print("error: 'NoneType' object is not iterable", file=sys.stderr)
        sys.exit(2)
    if way == 3:
        (Path.cwd() / "half").write_text("half")
        print("error: no", file=sys.stderr)
        sys.exit(2)
    if way == 4:
        time.sleep(60)
    if way == 5:
        (Path.cwd() / "small.csv").write_text("another")
        print("error: no", file=sys.stderr)
        sys.exit(2)
    if way == 6:
        (Path.cwd().parents[1] / "user" / "stray").write_text("not asked for")
    print("error: a plain line\nhint: and what to do", file=sys.stderr)
    sys.exit(3 if way == 7 else 2)


@pytest.mark.parametrize(
    ("way", "expected"),
    [(0, set()), (1, {EXIT, TRACEBACK}), (2, {WORDS}), (3, {LEFT}), (4, {HANG}), (5, {LEFT}), (6, {LEFT}), (7, {EXIT})],
)
def test_a_program_that_breaks_a_rule_is_reported(tmp_path, master, monkeypatch, way, expected):
    monkeypatch.setenv("WAY", str(way))
    wall = 0.5 if way == 4 else 60.0
    number = next(number for number in range(1_000) if input_of(number, SEED, master).met == WRONG)
    (verdict,) = run_inputs(iter([number]), SEED, tmp_path, master, run=break_rules, wall=wall)
    kinds = {kind for kind, _ in verdict.faults}
    assert kinds - {EXIT, WORDS} == expected - {EXIT, WORDS} and expected <= kinds, verdict


def write_badly() -> None:
    """A program that adds lines to a file, and begins again where it was stopped without looking at the file."""
    place = Path.cwd() / "out"
    place.mkdir(exist_ok=True)
    if "--whole" in sys.argv:
        with (place / "lines.jsonl.tmp").open("w") as file:
            file.write("".join(f"{i}\n" for i in range(5)))
        (place / "lines.jsonl.tmp").replace(place / "lines.jsonl")
        return
    for number in range(5):
        with (place / "lines.jsonl").open("a") as file:
            file.write(f"{number}\n")


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_kill_loses_is_reported(tmp_path, master, whole):
    words = ("write", *["--whole"][:whole], "--out", "out")
    kills = Kills(tmp_path, master, SEED, [Scenario(words, (words,))], write_badly)
    trials = list(kills.trials(iter(range(8))))
    assert sum(trial.kills for trial in trials) >= 3
    kinds = {kind for trial in trials for kind, _ in trial.faults}
    assert (totals.LOST in kinds) is not whole, [trial.faults for trial in trials]


def test_inputs_are_the_same_each_time_and_meet_everything(tmp_path, master):
    first = [input_of(number, SEED, master) for number in range(4_000)]
    again = [input_of(number, SEED, master) for number in range(0, 4_000, 50)]
    assert [one.line() for one in first[::50]] == [one.line() for one in again]
    given = {word.partition("=")[0] for one in first for word in one.call.arguments}
    assert {one.option for command in commands() for one in command.parameters if one.option} <= given
    assert {key.name for key in keys()} <= given
    assert {command.path[0] for command in commands()} <= {one.command.split()[0] for one in first}


def test_a_line_of_shell_gives_the_words_back(tmp_path):
    import subprocess

    words = ["a b", "it's", "\udcff", "é\n", "$x", "", "[red]"]
    program = "import os, sys, json; print(json.dumps([os.fsencode(word).hex() for word in sys.argv[1:]]))"
    line = f"{sys.executable} -c {quoted(program)} {' '.join(map(quoted, words))}"
    printed = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert [bytes.fromhex(one) for one in json.loads(printed)] == [os.fsencode(word) for word in words]


def test_totals_count_inputs_and_kills(tmp_path):
    lines = [
        {"what": "input", "command": "train", "faults": [[EXIT, "x"], [WORDS, "y"]]},
        {"what": "input", "command": "train", "faults": []},
        {"what": "kill", "command": "prepare", "kills": 3, "faults": [[totals.LOST, "z"]]},
    ]
    rows = totals.totals(lines)
    assert [row["command"] for row in rows] == ["prepare", "train", "all"]
    assert rows[-1] | {"input": 2, "kill": 3, EXIT: 1, WORDS: 1, totals.LOST: 1} == rows[-1]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- campaign: begin -->\nold\n<!-- campaign: end -->\nafter\n")
    totals.write_docs(page, totals.table(rows), "Seed 0.")
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "| all | 2 | 3 |" in text and "old" not in text


def test_forks_are_as_new_processes(tmp_path):
    call = forks.Call(("given",), {"PYTHONIOENCODING": "ascii"}, closed=("stdin",))
    ended = forks.start(call, tmp_path, tmp_path / "printed", run=say).wait()
    assert ended.code == 1 and ended.out.startswith("given None ascii\n") and "UnicodeEncodeError" in ended.err


def say() -> None:
    """A program that prints its surroundings, and then what cannot be printed."""
    print(sys.argv[1], sys.stdin, sys.stdout.encoding)
    print("é")
