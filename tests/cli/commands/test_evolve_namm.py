"""`memx evolve-namm`: exit codes, presets of two commands, the dry run, JSON and what a pipe is told."""

import json

import pytest
import yaml
from memx.cli.main import run as memx
from memx.experiments.config.base import to_yaml
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.config.presets import all_presets, presets

from ...experiments.evolution.tiny_evolution import settings, write_host

COMMAND = "evolve-namm"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host"))


def mistake(capsys, *arguments):
    assert memx(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    lines = lines[[line.startswith("error: ") for line in lines].index(True) :]  # a host is looked for on the way
    assert captured.out == "" and len(lines) <= 2 and "Traceback" not in captured.err, captured
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["facts"], "facts is a config for `memx train`, not for `memx evolve-namm`", "memx train facts"),
        (["namm-smolm2"], "no preset or file 'namm-smolm2'", "'namm-smollm2'"),
        (["--set", "evolution.sigmas=1"], "unknown key 'evolution.sigmas'", "'evolution.sigma'"),
        (["--set", "namm.every=100"], "namm.every: ", ""),
        (["--budget", "1.5"], "namm.budget: ", ""),
        (["--population", "2"], "evolution.population: ", ""),
        (["--set", "tasks.train=[nedles]"], "unknown training task 'nedles'", "did you mean 'needles'?"),
        (["--set", "tasks.train=[passkey]"], "unknown training task 'passkey'", "others are held out"),
        (["--set", "tasks.train=[prose_next]", "--set", "fitness.kind=score"], "prose_next has no score", ""),
        (["--set", "tasks.per_generation=99"], "per_generation 99 is above pool", ""),
        (["--set", "evolution.stages=[{tasks: [prose_next]}]"], "prose_next is not in tasks.train", "add it"),
        (["--set", "fitness.price=1", "--set", "fitness.target=0.5"], "price and target exclude each other", ""),
        (["--set", "host.preset=tiny"], "host.name and host.preset exclude each other", ""),
        (["namm-smollm2", "--set", "namm.hidden=[8]"], "hidden needs scorer mlp", "scorer"),
        (["--resume", "--force"], "exclude each other", ""),
        (["--model", "no-such-host"], "no model or folder 'no-such-host'", "smollm2"),
        (["namm-tiny", "--set", "host.preset=facts", "--runs", "none"], "facts trains 4 models", "a single model"),
        (["--set", "host.device=tpu"], "host.device: no device 'tpu'", "cpu"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_exit_2_with_one_line_and_a_hint(capsys, tmp_path, monkeypatch, arguments, message, hint):
    monkeypatch.chdir(tmp_path)
    told = mistake(capsys, COMMAND, *arguments)
    assert message in told and hint in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_presets_say_whose_they_are(capsys):
    known = {"namm-universal", "namm-smollm2", "namm-smollm2-heads", "namm-tiny", "namm-llama-3-8b"}
    assert known == set(presets(COMMAND))
    for name in presets(COMMAND):
        assert load_evolution_config(name).name == name
    assert "memx evolve-namm namm-tiny" in mistake(capsys, "train", "namm-tiny")
    assert memx(["presets", "--json"]) == 0
    found = {one["name"]: one["command"] for one in json.loads(capsys.readouterr().out)}
    assert found == {name: command for name, (command, _) in all_presets().items()}
    assert memx(["config", "show", "namm-tiny", "--set", "seed=3"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["seed"] == 3 and shown["host"]["preset"] == "namm-host"


def test_a_copied_config_says_its_command(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    assert memx(["config", "copy", "namm-smollm2", str(path)]) == 0
    assert f"memx evolve-namm {path}" in capsys.readouterr().err
    assert load_evolution_config(str(path)) == load_evolution_config("namm-smollm2")
    path.write_text("evolution: {generations: 3}\n")
    assert "command: evolve-namm" in mistake(capsys, COMMAND, str(path))
    path.write_text("extends: namm-tiny\nevolution: {generations: 3}\n")
    assert load_evolution_config(str(path)).evolution.generations == 3


def test_a_dry_run_loads_and_writes_nothing(capsys, tmp_path, monkeypatch, host):
    from memx.experiments.eviction import base_model as evolve_host
    from memx.experiments.eviction import tasks as evolve_prompts

    def never(*arguments, **options):
        raise AssertionError("a dry run builds nothing")

    monkeypatch.setattr(evolve_host, "load_host", never)
    monkeypatch.setattr(evolve_prompts, "examples", never)
    runs = ["--runs", str(tmp_path / "runs"), "--dry-run"]
    for which in (["namm-tiny"], ["namm-llama-3-8b"], ["namm-smollm2", "--model", str(host)]):
        assert memx([COMMAND, *which, *runs, "--json"]) == 0
        cost = json.loads(capsys.readouterr().out)
        assert cost["hours"] > cost["base_model_hours"] and "FLOP/s" in cost["assumption"]
        assert (cost["base_model_hours"] > 0) == (which == ["namm-tiny"]) and not (tmp_path / "runs").exists()
    weights = sum(path.stat().st_size for path in host.glob("*.safetensors")) / 4
    assert cost["host_parameters"] == pytest.approx(weights, rel=0.05) and cost["namm_parameters"] == 4172
    assert cost["prefills"] == 50 + 40 + 20
    assert cost["answers"] == 16 * 5 * cost["generations"] + 40 * (cost["generations"] // 10 + 3) + 2 * 20
    assert cost["bytes_per_token"] == 2 * 2 * (2 * 8 * 4 + 17 * 4 + 4)
    assert memx([COMMAND, "--model", str(host), *runs, "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["namm_parameters"] == cost["evolved"] == 153
    assert memx([COMMAND, "namm-smollm2-heads", "--model", str(host), *runs]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "5,349 parameters by 77 evolved numbers" in shown  # 8 factors, 65 of the last layer, 4 heads
    assert memx([COMMAND, "namm-llama-3-8b", *runs]) == 0
    shown = capsys.readouterr().out
    assert "8.03B parameters in bfloat16" in shown and "would write" in shown and "expected time" in shown


def test_several_base_models(capsys, tmp_path, host):
    other = write_host(tmp_path / "other", layers=3)
    runs = ["--runs", str(tmp_path / "runs"), "--dry-run"]
    assert memx([COMMAND, "--model", str(host), "--model", str(other), *runs, "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["host"] == f"{host} + {other}" and both["train_prompts"] == 2 * 120
    half = ["--set", "host.dtype=bfloat16", "--set", "host.device=cpu", "--set", "host.threads=1"]
    assert memx([COMMAND, "--model", str(host), "--model", str(other), *half, *runs]) == 0  # all alike
    shown = " ".join(capsys.readouterr().out.split())
    assert "in bfloat16" in shown and "on 1 CPU thread " in shown
    # a model by option stands in place of all that a file names
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(load_evolution_config("namm-universal", [("more_hosts", [{"name": str(other)}])])))
    assert memx([COMMAND, str(path), "--model", str(host), *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host"] == str(host)
    assert "names a base model twice" in mistake(capsys, COMMAND, "--model", str(host), "--model", str(host), *runs)
    several = ["--set", f"more_hosts=[{{name: {other}}}]"]
    told = mistake(capsys, COMMAND, "--model", str(host), "--model", str(other), *several, *runs)
    assert "--model is given several times, and more_hosts is set too" in told
    told = mistake(capsys, COMMAND, "namm-smollm2-heads", "--model", str(host), "--model", str(other), *runs)
    assert "more_hosts needs a NAMM without numbers for each head" in told


def test_a_dry_run_refuses_a_length_that_prompts_do_not_fit_in(capsys, tmp_path, host):
    tasks = ["--set", "tasks.length=64", "--set", "tasks.train=[prose_next]"]
    told = mistake(capsys, COMMAND, "--model", str(host), *tasks, "--runs", str(tmp_path / "runs"), "--dry-run")
    assert "prose_next does not fit in 64 tokens" in told and "use tasks.length " in told


def test_a_base_model_that_is_trained_costs_no_more_time(tmp_path):
    from memx.experiments.config.loading import load_evolution_config
    from memx.experiments.eviction.base_model import base_model_point
    from memx.experiments.evolution.cost import evolution_cost
    from memx.results.store.runs import RunStore

    config = load_evolution_config("namm-tiny")
    before = evolution_cost(config, tmp_path)
    with RunStore(tmp_path).claim(base_model_point(config.host).name) as run:
        run.begin("", {})
        run.finish([])
    after = evolution_cost(config, tmp_path)
    assert after.base_model_hours == 0 and after.hours == pytest.approx(before.hours - before.base_model_hours)


def test_from_the_command_line_to_a_namm(capsys, tmp_path, host):
    path, runs = tmp_path / "mine.yaml", tmp_path / "runs"
    path.write_text(to_yaml(load_evolution_config("namm-smollm2", settings(host, evolution__generations=1))))
    arguments = [COMMAND, str(path), "--name", "mine", "--runs", str(runs)]
    assert memx(arguments) == 0
    captured = capsys.readouterr()
    (run,) = runs.iterdir()
    assert run.name.startswith("mine-") and (run / "namm" / "namm.json").is_file()
    assert "difference [95% CI]" in captured.out and "key_values" in captured.out and "Fitness: " in captured.out
    assert f"memx evict --file prompt.txt --model {host} --namm {run / 'namm'}" in captured.err
    assert "generation 1/1: fitness" in captured.err and "/min, " in captured.err
    assert "exists" in mistake(capsys, *arguments)
    assert memx([*arguments, "--resume", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["run"] for row in rows} == {run.name} and {"all", "validation/all", "test/prose_next"} <= {
        row["dataset"] for row in rows
    }
    prompt = tmp_path / "long.txt"
    prompt.write_text("a word and another word. " * 30)
    assert memx(["evict", "--file", str(prompt), "--model", str(host), "--namm", str(run / "namm"), "--new-tokens", "2",
                 "--out", str(tmp_path / "evicted")]) == 0  # fmt: skip


@pytest.mark.parametrize("more", [["--dry-run"], []], ids=["dry run", "run"])
def test_prompts_longer_than_the_models_positions_are_refused(capsys, tmp_path, host, more):
    told = mistake(capsys, COMMAND, "--model", str(host), "--runs", str(tmp_path), "--set", "tasks.length=20000", *more)
    assert "2,048 positions" in told and "tasks.length 20,000" in told and "lower tasks.length" in told
    assert not list(tmp_path.iterdir())
