"""The command line: exit codes, one line and a hint for every mistake, JSON, and what --help costs."""

import json
import os
import resource
import shlex
import subprocess
import sys

import pytest
import yaml
from memx.cli.main import run as memx
from memx.experiments.config.base import run_name, to_yaml
from memx.experiments.config.loading import load_any_config
from memx.experiments.config.points import plan
from memx.experiments.distributed.process_group import without_torchrun
from memx.results.store.resuming import resume_command
from memx.results.store.runs import RunStore

from tests.ranks import end_worlds

SETTINGS = ("training.steps=4", "training.threads=1", "evaluation.final_questions=10", "data.biographies=20")
QUICK = [part for setting in SETTINGS for part in ("--set", setting)]


def mistake(capsys, *arguments: str) -> str:
    assert memx(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == "" and lines[0].startswith("error: ") and len(lines) <= 2, captured
    assert all(line.startswith("hint: ") for line in lines[1:])
    return captured.err


@pytest.fixture
def facts_file(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text("subject,relation,object\n" + "".join(f"s{i},likes,o{i % 7}\n" for i in range(60)))
    return path


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["train", "fact"], "no preset or file 'fact'", "did you mean 'facts'?"),
        (["train", "tiny", "--set", "training.step=3"], "unknown key 'training.step'", "'training.steps'"),
        (["train", "tiny", "--set", "training.steps=x"], "training.steps: ", ""),
        (["train", "tiny", "--slots", "1000"], "slots 1000 is not a square", "use the nearest, 1024"),
        (["train", "tiny", "--set", "memory.top_k=40"], "top_k 40 is not in 1..32", "lower top_k to 32"),
        (["train", "tiny", "--tokenizer", "no/such"], "--tokenizer needs --corpus", "leave out --tokenizer"),
        (["train", "tiny", "--facts", "no.csv"], "no file no.csv", "check the path"),
        (["train", "tiny", "--facts", "airprots"], "no fact table or file 'airprots'", "'airports'"),
        (["train", "tiny", "--corpus", "no/where.txt", "--dry-run"], "no file, folder or built-in text", "give files"),
        (["train", "tiny", "--set", "text.source=no.txt", "--dry-run"], "no text file no.txt", "existing"),
        (["train", "tiny", "--init-from", "./no", "--dry-run"], "no model or folder './no'", "smollm2"),
        (
            ["train", "tiny", "--corpus", "python-docs", "--tokenizer", "./no", "--dry-run"],
            "no model or folder './no'",
            "smollm2",
        ),
        (["train", "tiny", "--set", "training.device=tpu"], "training.device: no device 'tpu'", "cpu"),
        (["train", "tiny", "--resume", "--force"], "exclude each other", ""),
        (["train", "tiny", "--steps", "x"], "--steps must be a whole number, not 'x'", "memx train --help"),
        (["evict", "text", "--budget", "x"], "--budget must be a number, not 'x'", "memx evict --help"),
        (["evict", "text", "--new-tokens", "0"], "--new-tokens must be at least 1, not", "memx evict --help"),
        (["evict", "text", "--grouping", "x"], "--grouping: 'x' is not one of 'layer_max'", "memx evict --help"),
        (["version"], "no command 'version'", "use `memx --version`"),
        (["train", "tiny", "--set", "training.learning_rate=1"], "unknown key 'training.learning_rate'", "training.lr"),
        (["train", "tiny", "--stepps", "3"], "No such option", "memx train --help"),
        (["trian"], "No such command", "memx --help"),
        (["plot", "nowhere"], "'nowhere' is neither a picture nor a path", "memx plot --help"),
        (["plot", "baselins"], "neither a picture nor a path", "did you mean `memx plot baselines`?"),
        (["plot", "no/where"], "nothing at no/where", ""),
        (["plot", "--formats", "gif"], "no format gif", "png, svg, pdf"),
        (["config", "show", "nothing"], "no preset or file", "memx presets"),
        (["bench", "ops", "embeding_bag"], "no op 'embeding_bag'", "'embedding_bag'"),
        (["train", "--config", "no.yaml"], "cannot read no.yaml", ""),
        (["train", "tiny", "--config", "no.yaml"], "both", ""),
        (["train", "tiny", "--device", "tpu", "--dry-run"], "no device 'tpu'", "cpu"),
        (["train", "tiny", "--device", "cuda:x", "--dry-run"], "no device 'cuda:x'", "cpu"),
        (["train", "tiny", "--seed", "18446744073709551616"], "seed: ", ""),
        (["train", "tiny", "--name", "x" * 300], "name: ", ""),
        (["train", "tiny", "--set", "sweep={memory.slots: []}"], "sweep.memory.slots has no values", ""),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_exit_2_with_one_line_and_a_hint(capsys, tmp_path, monkeypatch, arguments, message, hint):
    monkeypatch.chdir(tmp_path)
    told = mistake(capsys, *arguments)
    assert message in told and hint in told
    assert not list(tmp_path.rglob("checkpoint"))


def test_an_existing_run_is_refused_and_untouched(capsys, tiny_run):
    run, _ = tiny_run
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    told = mistake(capsys, "train", "--config", str(run.folder / "config.yaml"), "--runs", str(run.folder.parent))
    assert "exists" in told and "--resume" in told
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("name", ["missing", "empty", "malformed"])
def test_facts_files_that_cannot_be_read(capsys, tmp_path, name):
    path = tmp_path / "f.csv"
    if name != "missing":
        path.write_text("" if name == "empty" else "subject,relation,object\na,b\n")
    told = mistake(capsys, "train", "tiny", "--facts", str(path), "--runs", str(tmp_path / "runs"))
    assert str(path) in told


def test_no_permission_to_write(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in mistake(capsys, "train", "tiny", *QUICK, "--runs", str(tmp_path / "file" / "runs"))
    assert "cannot write" in mistake(capsys, "train", "tiny", *QUICK, "--runs", "/proc/memx")


def run_in_fork(given: list[str], size: int = 0) -> None:
    """Run memx as this process, with the rank as the seed; no file may grow beyond the size, if one is given."""
    seed = os.environ["RANK"]
    if size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    with without_torchrun():
        sys.exit(memx([*given, "--seed", seed]))


@pytest.mark.parametrize("size", [3_000, 60_000])
def test_a_full_disk_is_one_line_and_leaves_no_part(tmp_path, size):
    """A file-size limit stands for the full disk: the tokenizer, or the state, is the first that does not fit."""
    given = ["train", "tiny", *QUICK, "--set", "training.checkpoint_every=2", "--runs", str(tmp_path / "runs")]
    (ended,) = end_worlds(run_in_fork, (1,), dict(given=given, size=size))[1]
    assert ended.code == 2, ended
    assert "error: cannot write" in ended.printed and "Traceback" not in ended.printed + ended.error
    assert not list((tmp_path / "runs").iterdir())


def test_users_facts_from_file_to_figure(capsys, tmp_path, facts_file):
    runs = tmp_path / "runs"
    assert memx(["train", "tiny", "--facts", str(facts_file), *QUICK, "--runs", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"seen", "seen/likes"} <= {row["dataset"] for row in rows}
    assert memx(["plot", "--runs", str(runs), "--out", str(tmp_path / "figures"), "--formats", "png"]) == 0
    assert memx(["runs", "--runs", str(runs), "--json"]) == 0
    assert '"finished"' in capsys.readouterr().out


@pytest.mark.parametrize(("command", "preset"), [("train", "facts"), ("evolve-namm", "namm-tiny")])
def test_the_command_of_a_stopped_run_names_the_same_run(capsys, tmp_path, command, preset):
    config = load_any_config(preset)
    config = plan(config)[1].config if command == "train" else config
    run = RunStore(tmp_path / "runs").run(run_name(config))
    run.folder.mkdir(parents=True)
    run.begin(to_yaml(config), {})
    assert memx(["runs", "--runs", str(tmp_path / "runs")]) == 0
    told = next(line for line in capsys.readouterr().err.splitlines() if "was interrupted" in line)
    name, _, line = told.partition(" was interrupted; continue it with: ")
    assert name == run.name and line == resume_command(run)
    program, *arguments = shlex.split(line)
    assert program == "memx" and arguments[0] == command and arguments[-1] == "--resume"
    assert memx([*arguments[:-1], "--dry-run"]) == 0
    assert f"{tmp_path / 'runs' / run.name} (exists: " in capsys.readouterr().out


def test_dry_run_counts_and_writes_nothing(capsys, tmp_path):
    runs = tmp_path / "runs"
    assert memx(["train", "facts", "--dry-run", "--json", "--runs", str(runs)]) == 0
    costs = json.loads(capsys.readouterr().out)
    assert costs[0]["memory_slots"] == 0 and all(
        c["parameters_total"] > costs[0]["parameters_total"] for c in costs[1:]
    )
    assert all(cost["flops_per_token"] <= costs[0]["flops_per_token"] for cost in costs)
    assert not runs.exists()


def test_config_show_and_copy(capsys, tmp_path):
    assert memx(["config", "show", "tiny", "--set", "seed=5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5
    target = tmp_path / "mine.yaml"
    assert memx(["config", "copy", "tiny", str(target)]) == 0
    assert "exists" in mistake_after(capsys, "config", "copy", "tiny", str(target))
    assert memx(["train", str(target), "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("target", "force", "message"),
    [
        ("there.yaml", False, "there.yaml exists"),
        ("folder.yaml", True, "folder.yaml exists and is no file"),
        ("link.yaml", False, "link.yaml exists and is no file"),
        ("no/where.yaml", False, "cannot write"),
        ("name", False, "name is no name of a config file"),
        ("name.txt", True, "name.txt is no name of a config file"),
    ],
)
def test_config_copy_replaces_nothing_unasked(capsys, tmp_path, target, force, message):
    (tmp_path / "there.yaml").write_text("mine")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "link.yaml").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    given = ["config", "copy", "tiny", str(tmp_path / target), *(["--force"] if force else [])]
    assert message in mistake(capsys, *given)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "there.yaml").read_text() == "mine"


def test_a_config_may_say_that_it_is_for_training(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: tiny\ncommand: train")
    (tmp_path / "odd.yaml").write_text("command: trian")
    assert memx(["config", "show", str(tmp_path / "mine.yaml")]) == 0
    capsys.readouterr()
    assert "no command 'trian'" in mistake(capsys, "config", "show", str(tmp_path / "odd.yaml"))


@pytest.mark.parametrize("preset", ["facts", "namm-tiny", "8b-64m-1t"])
def test_config_show_describes_each_key(capsys, preset):
    """Comments stand above their keys, and what is loaded is what --json prints."""
    assert memx(["config", "show", preset, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert memx(["config", "show", preset]) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown) == tree
    lines = shown.splitlines()
    assert all(len(line) <= 108 for line in lines if line.lstrip().startswith("#"))
    place = next(place for place, line in enumerate(lines) if line.strip().startswith("seed:"))
    assert lines[place - 1].lstrip().startswith("# ")


def mistake_after(capsys, *arguments: str) -> str:
    capsys.readouterr()
    return mistake(capsys, *arguments)


def test_debug_shows_the_traceback():
    result = subprocess.run([sys.executable, "-m", "memx", "train", "fact", "--debug"], capture_output=True, text=True)
    assert "Traceback" in result.stderr and "error: no preset" in result.stderr and result.returncode == 2


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_display_of_a_terminal(tmp_path, jobs):
    """The same run behind a pseudo-terminal: bars, scores on the way, exit 0."""
    import pty

    sweep = ["--set", "sweep={memory.slots: [0, 64]}", "--set", "evaluation.every=2", "--jobs", jobs]
    command = [sys.executable, "-m", "memx", "train", "tiny", *QUICK, *sweep, "--runs", str(tmp_path)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown.decode()
    assert b"4/4" in shown and b"step 2: seen" in shown


@pytest.mark.parametrize(
    "command",
    [[], ["train"], ["plot"], ["plot", "namm"], ["bench"], ["bench", "ops"], ["config"], ["config", "show"]],
)
def test_every_help_ends_in_three_examples(command):
    result = subprocess.run([sys.executable, "-m", "memx", *command, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.rsplit("Examples:", 1)[1].count("memx ") >= 3


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["plot", "--help"],
        ["plot", "memory", "--help"],
        ["bench", "eviction", "--help"],
        ["train", "--help"],
        ["evolve-namm", "--help"],
        ["presets"],
        ["config", "show", "facts"],
    ],
)
def test_light_commands_import_no_torch(command):
    code = (
        "import sys; from memx.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else code)"
    )
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_two_runs_at_once_in_one_folder(tmp_path):
    given = ["train", "tiny", *QUICK, "--runs", str(tmp_path)]
    ended = end_worlds(run_in_fork, (2,), dict(given=given), seconds=120)[2]
    assert [one.code for one in ended] == [0, 0], ended
    result = subprocess.run(
        [sys.executable, "-m", "memx", "runs", "--runs", str(tmp_path), "--json"], capture_output=True
    )
    assert [run["status"] for run in json.loads(result.stdout)] == ["finished", "finished"]


def test_the_module_runs_from_any_folder(tmp_path):
    result = subprocess.run([sys.executable, "-m", "memx", "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.startswith("memx ") and result.returncode == 0
