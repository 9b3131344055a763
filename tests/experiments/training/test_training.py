"""Training: equal to plain torch where it should be, exact after kill and resume, clean when stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from memx import MemoryLlamaForCausalLM
from memx.cli.main import run
from memx.errors import MemxError
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.config.training import TrainingConfig
from memx.experiments.distributed.process_group import without_torchrun
from memx.experiments.optim.optimizer import Optimizer, parameter_groups
from memx.experiments.optim.schedule import learning_rate_share
from memx.experiments.runtime.options import Options
from memx.experiments.training.sweep import train_points
from memx.results.store.runs import RunStore
from safetensors.torch import load_file

from tests.exact import float64
from tests.ranks import Ended, end_worlds

SETTINGS = {"training.steps": 60, "training.checkpoint_every": 15, "training.threads": 1, "evaluation.every": 25}


def quiet(index, event):
    pass


def arguments(runs: Path, *more: str) -> list[str]:
    changed = {one.partition("=")[0] for one in more}
    sets = [part for key, value in SETTINGS.items() if key not in changed for part in ("--set", f"{key}={value}")]
    return ["train", "tiny", "--runs", str(runs), *sets, *more]


def command(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "memx", *arguments(runs, *more)]


def folder(runs: Path) -> Path:
    (point,) = plan(load_config("tiny", SETTINGS.items()))
    return runs / point.name


def run_in_fork(given: list[str], metrics: str = "", step: int = 0, number: int = 0) -> None:
    """Run memx as this process, which gets the signal `number`, if one is named, once the metrics have the step."""

    def send() -> None:
        path = Path(metrics)
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
                return os.kill(os.getpid(), number)
            time.sleep(0.01)

    if number:
        threading.Thread(target=send, daemon=True).start()
    with without_torchrun():
        sys.exit(run(given))


def end_run(runs: Path, *more: str, step: int = 0, number: int = 0) -> Ended:
    """How `memx train` ended in a process of its own, which is a fork of one that has imported all."""
    metrics = str(folder(runs) / "metrics.jsonl")
    given = dict(given=arguments(runs, *more), metrics=metrics, step=step, number=number)
    (ended,) = end_worlds(run_in_fork, (1,), given, seconds=120)[1]
    return ended


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The same run, never stopped."""
    runs = tmp_path_factory.mktemp("straight")
    train_points(plan(load_config("tiny", SETTINGS.items())), Options(runs), quiet)
    return folder(runs)


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(path / "checkpoint" / "model.safetensors") for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_kill_and_resume_end_bit_identical(tmp_path, straight):
    killed = end_run(tmp_path, step=35, number=signal.SIGKILL)
    assert killed.code == -signal.SIGKILL, killed
    assert RunStore(tmp_path).run(folder(tmp_path).name).status == "interrupted"
    assert not (folder(tmp_path) / "checkpoint").exists()
    resumed = end_run(tmp_path, "--resume")
    assert resumed.code == 0, resumed
    assert "resumed at step" in resumed.printed
    assert same_weights(straight, folder(tmp_path))
    steps = [json.loads(line)["step"] for line in (folder(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)

    def losses(path):
        lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        return [(line["step"], line.get("loss"), line.get("evaluation")) for line in lines]

    assert losses(folder(tmp_path)) == losses(straight)


def test_an_older_state_that_a_kill_left_is_removed_on_resume(tmp_path, straight):
    run = Path(shutil.copytree(straight, tmp_path / straight.name))
    (newest,) = (run / "state").iterdir()
    shutil.copytree(newest, run / "state" / "step-00000010")
    shutil.rmtree(run / "checkpoint")
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "status": "running"}))
    train_points(plan(load_config("tiny", SETTINGS.items())), Options(tmp_path, resume=True), quiet)
    assert [state.name for state in (run / "state").iterdir()] == [newest.name]
    assert same_weights(straight, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_and_exits_130_and_resumes(tmp_path, straight, number):
    stopped = end_run(tmp_path, step=20, number=number)
    assert stopped.code == 130, stopped
    assert "interrupted" in stopped.printed and "Traceback" not in stopped.printed and not stopped.error
    train_points(plan(load_config("tiny", SETTINGS.items())), Options(tmp_path, resume=True), quiet)
    assert same_weights(straight, folder(tmp_path))


def test_interrupting_a_sweep_of_processes_leaves_all_resumable(tmp_path):
    sweep = ["--set", "sweep={memory.slots: [0, 64, 256]}", "--jobs", "2"]
    process = subprocess.Popen(
        command(tmp_path, *sweep), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for _ in range(1200):
        if len(list(tmp_path.glob("*/metrics.jsonl"))) == 2:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    config = load_config("tiny", [*SETTINGS.items(), ("sweep", {"memory.slots": [0, 64, 256]})])
    rows = train_points(plan(config), Options(tmp_path, resume=True), quiet)
    assert {row.memory_slots for found in rows.values() for row in found} == {0, 64, 256}


def start_two(tmp_path, **options) -> tuple[subprocess.Popen, list[str]]:
    """A sweep of a small and a large model in two processes, once both have begun to train."""
    # neither model may end before the test has stopped it
    sweep = ["--set", "sweep={memory.slots: [64, 65536]}", "--set", "training.steps=3000", "--jobs", "2"]
    process = subprocess.Popen(
        command(tmp_path, *sweep), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **options,
    )  # fmt: skip
    for _ in range(2400):
        if len(list(tmp_path.glob("*/metrics.jsonl"))) == 2:
            return process, sweep
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the sweep made no progress")


def states(runs: Path) -> list[str]:
    return [path.name for path in runs.glob("*/state/*")]


def test_one_stop_ends_all_workers_and_keeps_each_state(tmp_path):
    process, _ = start_two(tmp_path)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "checkpoints saved" in errors and "Traceback" not in errors, errors
    assert len(states(tmp_path)) == 2 and all(name.startswith("step-") for name in states(tmp_path))
    assert {run.status for run in RunStore(tmp_path).runs()} == {"interrupted"}


def test_workers_whose_parent_was_killed_save_and_let_go(tmp_path):
    process, _ = start_two(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    runs = RunStore(tmp_path).runs()
    for _ in range(400):
        if all(json.loads((run.folder / "run.json").read_text())["status"] == "interrupted" for run in runs):
            break
        time.sleep(0.05)
    assert len(states(tmp_path)) == 2
    with RunStore(tmp_path).claim(runs[0].name, resume=True):
        pass


def test_a_killed_worker_ends_the_sweep_and_says_so(tmp_path):
    process, _ = start_two(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs Linux's /proc to find a worker")
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()}
    worker = next(pid for pid, line in commands.items() if b"spawn_main" in line)
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "a worker process died (exit -9)" in errors, errors


def test_changed_facts_are_not_mixed_into_a_run(tmp_path):
    path = tmp_path / "f.csv"

    def write(answer):
        path.write_text("subject,relation,object\n" + "".join(f"s{i},r,{answer}{i % 5}\n" for i in range(80)))

    write("a")
    config = load_config("tiny", {**SETTINGS, "training.steps": 4, "data.facts": [str(path)]}.items())
    train_points(plan(config), Options(tmp_path / "runs"), quiet)
    train_points(plan(config), Options(tmp_path / "runs", resume=True), quiet)
    write("b")
    with pytest.raises(MemxError, match="the facts file changed"):
        train_points(plan(config), Options(tmp_path / "runs", resume=True), quiet)
    train_points(plan(config), Options(tmp_path / "runs", force=True), quiet)


def test_a_run_that_never_began_leaves_the_way_free(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("subject,relation,object\na,b\n")
    config = load_config("tiny", {**SETTINGS, "training.steps": 4, "data.facts": [str(path)]}.items())
    with pytest.raises(MemxError, match="bad row"):
        train_points(plan(config), Options(tmp_path / "runs"), quiet)
    assert not list((tmp_path / "runs").iterdir())
    path.write_text("subject,relation,object\n" + "".join(f"s{i},r,o{i % 5}\n" for i in range(80)))
    train_points(plan(config), Options(tmp_path / "runs"), quiet)


def test_an_answer_longer_than_the_limit_can_still_be_right(tmp_path):
    path = tmp_path / "f.csv"
    long = " ".join(f"w{i}" for i in range(8))
    path.write_text("subject,relation,object\n" + "".join(f"s{i},r,{long}\n" for i in range(40)))
    settings = {**SETTINGS, "training.steps": 100, "data.facts": [str(path)], "evaluation.max_answer": 2}
    rows = train_points(plan(load_config("tiny", settings.items())), Options(tmp_path / "runs"), quiet)
    (found,) = rows.values()
    assert [row.value for row in found if (row.dataset, row.metric) == ("seen", "exact_match")] == [100.0]


def test_jobs_change_nothing(tmp_path):
    config = load_config("tiny", {**SETTINGS, "training.steps": 15, "sweep": {"memory.slots": [0, 64]}}.items())
    for name, jobs in (("one", 1), ("two", 2)):
        train_points(plan(config), Options(tmp_path / name, jobs=jobs), quiet)
    for point in plan(config):
        assert same_weights(tmp_path / "one" / point.name, tmp_path / "two" / point.name)


def test_a_finished_run_is_kept_or_refused(tmp_path, tiny_run):
    run, _ = tiny_run
    config = load_config(str(run.folder / "config.yaml"))
    options = dict(runs=run.folder.parent)
    with pytest.raises(MemxError, match="exists") as error:
        train_points(plan(config), Options(**options), quiet)
    assert "--resume" in error.value.hint and "--force" in error.value.hint
    before = (run.folder / "rows.jsonl").read_bytes()
    train_points(plan(config), Options(**options, resume=True), quiet)
    assert (run.folder / "rows.jsonl").read_bytes() == before


def test_the_saved_config_repeats_the_run(tmp_path, tiny_run):
    run, _ = tiny_run
    config = load_config(str(run.folder / "config.yaml"))
    train_points(plan(config), Options(tmp_path), quiet)
    assert same_weights(run.folder, tmp_path / run.name)


def test_two_processes_cannot_own_one_run(tmp_path):
    store = RunStore(tmp_path)
    with (
        store.claim("run-1"),
        pytest.raises(MemxError, match="in use by another process"),
        store.claim("run-1", resume=True),
    ):
        pass


def test_rows_say_what_the_contract_says(tiny_run):
    run, rows = tiny_run
    asked = {"exact_match", "f1", "nll", "majority_exact_match", "chance_exact_match"}
    assert {row.metric for row in rows} == asked | {"slots_used", "usage_kl"}
    assert {"seen", "rephrased", "unseen", "seen/hobby", "layer 0"} <= {row.dataset for row in rows}
    for row in rows:
        assert row.run == run.name and row.kind == "memory" and row.memory_slots == 1024 and row.seed == 0
        assert row.n > 0 and (row.low is None or row.low <= row.value <= row.high)
        assert row.parameters_active < row.parameters_total
    model = MemoryLlamaForCausalLM.from_pretrained(run.folder / "checkpoint")
    assert rows[0].parameters_total == sum(p.numel() for p in model.parameters())


def test_seen_and_rephrased_ask_of_the_same_facts():
    from memx.experiments.data.facts.biographies import biographies
    from memx.experiments.data.facts.questions import question_sets, split_entities
    from memx.experiments.training.fact_qa import sample_questions

    drawn = sample_questions(question_sets(split_entities(biographies(100), 0.1, 0)), 50, seed=0)
    asked = [[(q.subject, q.relation) for q in drawn[tier]] for tier in ("seen", "rephrased")]
    assert asked[0] == asked[1] and len(asked[0]) == 50


def test_the_loss_falls(tiny_run):
    losses = [line["loss"] for line in tiny_run[0].metrics() if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]


def test_accumulation_gives_the_same_steps(tmp_path):
    weights = []
    for parts in (1, 4):
        config = load_config("tiny", {**SETTINGS, "training.steps": 5, "training.accumulate": parts}.items())
        with float64():
            train_points(plan(config), Options(tmp_path / str(parts)), quiet)
        (point,) = plan(config)
        weights.append(load_file(tmp_path / str(parts) / point.name / "checkpoint" / "model.safetensors"))
    for name, first in weights[0].items():
        torch.testing.assert_close(first, weights[1][name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("damage", ["truncate", "other model", "json"])
def test_a_state_that_is_damaged_or_another_models_is_one_line(tmp_path, damage):
    from memx.experiments.runtime.signals import Interrupted, StopRequest
    from memx.experiments.training.run import train

    config = load_config("tiny", SETTINGS.items())
    (point,) = plan(config)
    stop = StopRequest()
    with RunStore(tmp_path).claim(point.name) as run:
        stop.asked = True
        with pytest.raises(Interrupted):
            train(config, run, lambda event: None, stop, 1)
    (state,) = (run.folder / "state").iterdir()
    weights = state / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "json":
        (state / "state.json").write_text('{"step": ')
    else:
        config = load_config("tiny", [*SETTINGS.items(), ("memory.slots", 4096)])
    expected = (
        "is from a different model: model.layers.0.mlp" if damage == "other model" else "the state cannot be read"
    )
    with (
        RunStore(tmp_path).claim(point.name, resume=True) as run,
        pytest.raises(MemxError, match=expected) as error,
    ):
        train(config, run, lambda event: None, StopRequest(), 1)
    assert "\n" not in error.value.message


def test_groups_hold_every_parameter_once_and_decay_only_matrices(tiny_run):
    model = MemoryLlamaForCausalLM.from_pretrained(tiny_run[0].folder / "checkpoint")
    groups = parameter_groups(model)
    names = [name for group in groups.values() for name, _ in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert [name for name, _ in groups["values"]] == ["model.layers.0.mlp.table.weight"]
    assert "model.layers.0.mlp.keys" in {name for name, _ in groups["others"]}
    optimizer = Optimizer(model, TrainingConfig(weight_decay=0.1, value_optimizer="dense"))
    decays = {group["peak"]: group["weight_decay"] for group in optimizer.adam.param_groups}
    assert decays[TrainingConfig().value_lr] == 0.0


def test_values_are_clipped_by_their_own_norm(tiny_run):
    model = MemoryLlamaForCausalLM.from_pretrained(tiny_run[0].folder / "checkpoint")
    optimizer = Optimizer(model, TrainingConfig(clip=1.0, value_optimizer="dense"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    (_, table) = parameter_groups(model)["values"][0]
    norms = optimizer.step(0)
    assert norms["value_gradient_norm"] == pytest.approx(table.numel() ** 0.5)
    rest = sum(p.numel() for p in model.parameters()) - table.numel()
    assert norms["gradient_norm"] == pytest.approx(rest**0.5, rel=1e-5)


def test_schedules():
    cosine = TrainingConfig(steps=100, warmup=10, final_lr=0.1)
    shares = [learning_rate_share(step, cosine) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == 1.0 == max(shares)
    assert shares[9:] == sorted(shares[9:], reverse=True) and shares[-1] == pytest.approx(0.1, abs=0.01)
    wsd = TrainingConfig(steps=100, warmup=10, schedule="wsd", decay=0.2, final_lr=0.0)
    shares = [learning_rate_share(step, wsd) for step in range(100)]
    assert shares[10:80] == [1.0] * 70 and shares[90] == pytest.approx(0.5) and shares[99] == pytest.approx(0.05)
