"""A damaged run, row or line of metrics: it is named, the others are listed and drawn, and it alone is refused."""

import json
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.results.collecting import collect_rows, collect_runs
from memx.results.memory_layers.usage import usage_figure
from memx.results.store.json_lines import JsonLines
from memx.results.store.rows import Row, read_rows, write_rows
from memx.results.store.runs import Run, RunStore

ROW = Row(
    run="r", experiment="e", kind="memory", model="m", dataset="seen", metric="exact_match", value=50.0, n=10, low=40.0,
    high=60.0, memory_slots=64, parameters_total=9,
)  # fmt: skip


def changed(**more) -> str:
    return json.dumps({**ROW.model_dump(), **more}) + "\n"


def make_run(root, name: str):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "finished", "started": "2026-01-01T00:00:00", "experiment": "e"}')
    (folder / "config.yaml").write_text("command: train\nmemory:\n  slots: 64\n")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    rows = [(tier, metric) for tier in ("seen", "rephrased", "unseen") for metric in ("exact_match", "nll")]
    write_rows(
        folder / "rows.jsonl", [ROW.model_copy(update={"run": name, "dataset": t, "metric": m}) for t, m in rows]
    )
    return folder


BOMB = "a: &a [1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghij")
)
DAMAGE = [
    ("run.json", "[1]", "is not a section"),
    ("run.json", "{}", "has no status"),
    ("run.json", '{"status": "fin', "is damaged: not JSON"),
    ("run.json", '{"status": "finished", "seconds": NaN}', "NaN is not a JSON number"),
    ("run.json", '{"status": "zzz"}', "unknown status 'zzz'"),
    ("run.json", '{"status": "finished", "started": 5}', "has the started '5'"),
    ("run.json", b"\xff\x00", "is not UTF-8"),
    ("run.json", os.mkdir, "is not a file"),
    ("run.json", os.mkfifo, "is not a file"),
    ("run.json", lambda path: path.symlink_to(path), "cannot read"),
    ("rows.jsonl", "{", "line 1 is not JSON"),
    ("rows.jsonl", changed() + "no\n", "line 2 is not JSON"),
    ("rows.jsonl", changed(value=-5), "value must be from 0 to 100 (percent) for exact_match, not -5"),
    ("rows.jsonl", changed(metric="step_ms", value=-1), "value must not be negative"),
    ("rows.jsonl", changed(value=float("nan")), "NaN is not a JSON number"),
    ("rows.jsonl", changed(value=float("inf")), "Infinity is not a JSON number"),
    ("rows.jsonl", changed(value=None), "value must be a number, not null"),
    ("rows.jsonl", changed(low=61, high=60), "low 61 is above high 60"),
    ("rows.jsonl", changed(n=2.5), "n must be a whole number from 0 on, not 2.5"),
    ("rows.jsonl", changed(n=True), "n must be a whole number from 0 on, not true"),
    ("rows.jsonl", changed(budget=1.5), "budget must be from 0 to 1, or a whole number of tokens, not 1.5"),
    ("rows.jsonl", changed(kind=7), "kind must be text, not 7"),
    ("rows.jsonl", "[1]\n", "it is not a JSON object"),
    ("rows.jsonl", os.mkfifo, "is not a file"),
    ("metrics.jsonl", '{"loss": 1}\n', "line 1 is damaged: it has no step"),
    ("metrics.jsonl", '{"step": 1}\nno\n{"step": 2}\n', "line 2 is damaged: not JSON"),
    ("metrics.jsonl", '{"step": 1, "a": "\\ud800"}\n', "lone surrogate"),
    ("metrics.jsonl", '{"step": "x"}\n', "step must be a whole number"),
    ("metrics.jsonl", '{"step": 1, "loss": []}\n', "loss must be a number"),
    ("metrics.jsonl", '{"step": 1, "memory_use": {"0": 1}}\n', "memory_use must have"),
    ("config.yaml", b"\xff\x00", "is not UTF-8"),
    ("config.yaml", "[1]", "is not a section"),
    ("config.yaml", "a: [", "is not YAML"),
    ("config.yaml", BOMB, "is not YAML"),
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of a good run and of one with each damage."""
    root = tmp_path_factory.mktemp("damaged")
    make_run(root, "good")
    for number, (name, how, _) in enumerate(DAMAGE):
        path = make_run(root, f"bad{number:02d}") / name
        path.unlink()
        if callable(how):
            how(path)
        else:
            path.write_bytes(how if isinstance(how, bytes) else how.encode())
    (root / "notes.txt").write_text("no run")
    (root / "loop").symlink_to(root / "loop")
    return root


def test_the_good_run_is_listed_and_each_damaged_one_named(runs, capsys):
    assert memx(["runs", "--runs", str(runs), "--json"]) == 0
    listed = capsys.readouterr()
    assert [run["run"] for run in json.loads(listed.out)] == ["good"]
    named = [line for line in listed.err.splitlines() if line.startswith("left out: ")]
    assert len(named) == len(DAMAGE) + 1 and "loop" in named[-1]
    for number, (name, _, message) in enumerate(DAMAGE):
        (line,) = [line for line in named if f"bad{number:02d}" in line]
        assert name in line and message in line


@pytest.mark.parametrize("picture", ["memory", "loss"])
def test_the_good_run_is_drawn_and_each_damaged_one_named(runs, picture, tmp_path, capsys):
    assert memx(["plot", picture, "--runs", str(runs), "--out", str(tmp_path), "--formats", "svg"]) == 0
    assert capsys.readouterr().err.count("left out: ") == len(DAMAGE) + 1
    assert (tmp_path / f"{picture}.svg").is_file()


def test_a_damaged_run_that_is_named_alone_is_refused(runs):
    for number, (name, _, message) in enumerate(DAMAGE):
        with pytest.raises(MemxError) as told:
            collect_rows([runs / f"bad{number:02d}"])
        assert name in told.value.message and message in told.value.message and told.value.hint


def test_a_folder_that_is_a_run_a_file_or_empty(runs, tmp_path, capsys):
    for folder, message in ((runs / "good", "is a single run"), (runs / "notes.txt", "is a file")):
        assert memx(["runs", "--runs", str(folder)]) == 2
        assert message in capsys.readouterr().err
    assert memx(["runs", "--runs", str(tmp_path)]) == 0
    assert f"no runs in {tmp_path}; memx train" in capsys.readouterr().err


def test_a_finished_run_without_rows_is_named(tmp_path):
    make_run(tmp_path, "good")
    (make_run(tmp_path, "lost") / "rows.jsonl").unlink()
    heard = []
    assert {row.run for row in collect_rows([tmp_path], heard.append)} == {"good"}
    assert heard == [f"left out: {tmp_path / 'lost'} is finished, but has no rows.jsonl"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_read_is_named():
    with tempfile.TemporaryDirectory() as folder:  # below no folder that is root's alone
        root = Path(folder)
        root.chmod(0o755)
        make_run(root, "good")
        (make_run(root, "secret") / "run.json").chmod(0)
        make_run(root, "closed").chmod(0)
        heard = []
        os.seteuid(65534)
        try:
            found = collect_runs([root], heard.append)
        finally:
            os.seteuid(0)
    assert [run.name for run in found] == ["good"] and len(heard) == 2
    assert all("cannot read" in line and "Permission denied" in line for line in heard)


def test_rows_that_are_not_finite_are_not_written(tmp_path):
    for number in (float("nan"), float("inf")):
        with pytest.raises(RuntimeError, match="exact_match of seen: low is"):
            write_rows(tmp_path / "rows.jsonl", [ROW, ROW.model_copy(update={"low": number})])
    assert not list(tmp_path.iterdir())


def test_metrics_that_are_not_finite_become_null_and_are_left_out_when_read(tmp_path):
    run = Run(tmp_path)
    run.append_metrics(step=1, loss=float("nan"), evaluation={"seen": {"nll": float("inf"), "f1": 1.0}})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] is None
    assert run.metrics() == [{"step": 1, "evaluation": {"seen": {"f1": 1.0}}}]
    run.append_metrics(step=2, memory_use={0: {"used": 0.0, "kl": float("nan")}})
    assert run.metrics()[1]["memory_use"] == {"0": {"used": 0.0}} and len(usage_figure([run]).axes) == 2
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')  # as older versions did
    assert run.metrics()[0]["loss"] != run.metrics()[0]["loss"]


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0b"])
def test_lines_end_with_a_newline_alone(tmp_path, separator):
    row = ROW.model_copy(update={"variant": f"a{separator}b"})
    write_rows(tmp_path / "rows.jsonl", [row, row])
    assert read_rows(tmp_path / "rows.jsonl") == [row, row]
    file = JsonLines(tmp_path / "lines.jsonl")
    file.path.write_text(json.dumps({"answer": f"a{separator}b"}, ensure_ascii=False) + "\n", "utf-8") \
        if separator != "\x0b" else file.append({"answer": f"a{separator}b"})  # fmt: skip
    assert file.lines() == [{"answer": f"a{separator}b"}]


def test_a_damaged_line_hides_no_later_one(tmp_path):
    file = JsonLines(tmp_path / "lines.jsonl")
    file.path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(MemxError, match=r"lines\.jsonl line 2 is damaged"):
        file.lines()
    file.path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert file.lines() == [{"a": 1}, {"a": 2}]


def test_the_step_of_a_stopped_run_is_the_saved_one(tmp_path):
    with RunStore(tmp_path).claim("a") as run:
        run.begin("x: 1\n", {})
        run.append_metrics(step=60, loss=1.0)
        assert run.step() == 60
        (run.folder / "state" / "step-00000064").mkdir(parents=True)
        assert run.step() == 64  # it runs
    assert run.status == "interrupted" and run.step() == 64
    shutil.rmtree(run.folder / "state" / "step-00000064")
    (run.folder / "state" / "evolution-00000007-01234567.safetensors").write_text("")
    assert run.step() == 7
