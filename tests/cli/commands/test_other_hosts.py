"""`memx train decision` and `memx eval-namm --host`: exit codes, dry runs, JSON, tables, and what is refused."""

import json

import pytest
from memx.cli.main import run as memx

from ...experiments.decision.tiny_host import ARGUMENTS, trained


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("cli")).parent


@pytest.fixture(scope="module")
def name(runs):
    return trained(runs).name


def mistake(capsys, *arguments):
    assert memx(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


def test_presets_and_configs_are_shown(capsys):
    assert memx(["presets"]) == 0
    shown = capsys.readouterr().out
    assert "decision-hopper" in shown
    assert memx(["config", "show", "decision-hopper", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["trains"] == "decision" and tree["environment"]["name"] == "Hopper-v5"


def test_a_dry_run_trains_nothing(capsys, tmp_path):
    assert (
        memx(["train", "decision", *ARGUMENTS, "--seed", "1", "--seed", "2", "--runs", str(tmp_path), "--dry-run"]) == 0
    )
    out = capsys.readouterr().out
    assert "decision-seed1-" in out and "decision-seed2-" in out and "would write" in out
    assert not list(tmp_path.iterdir())
    assert memx(["train", "decision", *ARGUMENTS, "--runs", str(tmp_path), "--dry-run", "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["tokens of an episode"] == 48 and plan["training tokens"] == 6 * 3 * 48


def test_training_prints_scores_and_what_comes_next(capsys, tmp_path):
    arguments = ["train", "decision", *ARGUMENTS, "--name", "mine", "--runs", str(tmp_path)]
    assert memx(arguments) == 0
    captured = capsys.readouterr()
    assert "normalised (episodes)" in captured.out and "memx eval-namm --host decision:mine-" in captured.err
    assert "exists" in mistake(capsys, *arguments)
    assert memx([*arguments, "--resume"]) == 0
    capsys.readouterr()
    assert memx(["runs", "--runs", str(tmp_path)]) == 0
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--slots", "16"], ["--corpus", "x"], ["--facts", "airports"], ["--init-from", "smollm2"], ["--variant", "x"]],
)
def test_options_of_language_models_are_refused(capsys, arguments):
    told = mistake(capsys, "train", "decision", *arguments)
    assert arguments[0] in told and "means nothing" in told


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("environment.name=Chess-v1", "no environment"),
        ("environment.hidden=[goals, goals]", "twice"),
        ("environment.stpes=3", "environment.steps"),
        ("episodes.random=0.9", "add up to more than 1"),
        ("model.heads=5", "heads of an even size"),
        ("trains=video", "trains"),
    ],
)
def test_wrong_settings_are_named(capsys, setting, what):
    assert what in mistake(capsys, "train", "decision", "--set", setting, "--dry-run")


def test_goals_need_an_environment_that_has_them(capsys):
    told = mistake(capsys, "train", "decision-hopper", "--set", "environment.hidden=[goals]", "--dry-run")
    assert "Hopper-v5 has no goals" in told


def test_policies_are_compared_on_the_host(capsys, runs, name):
    host = ["eval-namm", "--host", f"decision:{name}", "--runs", str(runs)]
    small = ["--policy", "recency", "--budget", "0.5", "--prompts", "4", "--interval", "32"]
    assert memx([*host, *small, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["namms"] == "universal" and plan["units in all"] == 5 * 4
    assert memx([*host, *small, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "namm global" in out and "minus full cache" in out
    found = [path for path in runs.glob("eval-*") if (path / "rows.jsonl").is_file()]
    assert memx(["eval-namm", str(found[0] / "config.yaml"), "--runs", str(runs), "--resume", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"decision"}
    for picture in ("universal", "forgotten"):
        assert memx(["plot", picture, str(found[0]), "--out", str(runs / "figures"), "--formats", "png"]) == 0
        assert (runs / "figures" / f"{picture}.png").is_file()
        assert "recency" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--model", "smollm2"], ["--task", "facts"], ["--third-party"], ["--mode", "online"], ["--generate"]]
)
def test_options_of_texts_are_refused(capsys, runs, name, arguments):
    told = mistake(capsys, "eval-namm", "--host", f"decision:{name}", "--runs", str(runs), *arguments)
    assert arguments[0] in told and "means nothing with --host" in told


def test_hosts_that_are_not_there_are_named(capsys, runs):
    assert "no run" in mistake(capsys, "eval-namm", "--host", "decision:nothing", "--runs", str(runs))
    assert "is not KIND:RUN" in mistake(capsys, "eval-namm", "--host", "decision:", "--runs", str(runs))
