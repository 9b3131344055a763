"""`memx eval`: exit codes, the dry run, tables, JSON, what it does with runs of memx train, and missing lm-eval."""

import json
import sys

import pytest
from memx.cli.main import run as memx
from memx.results.store.runs import RunStore

from ...experiments.evolution.tiny_evolution import write_host
from ...experiments.qa.taught_model import nq_files, tqa_file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    nq_files(folder)
    tqa_file(folder / "unfiltered-web-dev.json", [("who is it", ["The Band", "Band"])])
    own = [{"question": "who is it", "answer": ["The Band", "Band"]}, {"question": "and who", "answer": "Bo"}]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    (folder / "own.csv").write_text("question,answer,context\nwho is it,Bo|Beau,It is Bo.\n")
    (folder / "no-answers.jsonl").write_text('{"question": "a"}\n')
    (folder / "bad.jsonl").write_text('{"question": "a", "answer": ["b"]}\nno JSON\n')
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host") / "tiny-host")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["nowhere"], "no model or folder 'nowhere'", "save_pretrained"),
        (["HOST", "--file", "nq=FILES", "--task", "nq", "--limit", str(2**64)], "--limit: ", ""),
        (["HOST", "--harness", "\udcff"], "--harness: ", ""),
        (["runs/of/NOPE"], "no model or folder 'runs/of/NOPE'", "save_pretrained"),
        (["."], "has no model", "save_pretrained"),
        (["HOST", "--task", "squad"], "no question set 'squad'", "--harness"),
        (["HOST", "--task", "mine", "--file", "nq=FILES"], "no question set 'mine'", "--file mine=PATH"),
        (["HOST", "--file", "nq"], "'nq' is not NAME=PATH", "--file nq=PATH"),
        (["HOST", "--file", "q.jsonl"], "'q.jsonl' is not NAME=PATH", "--file mine=q.jsonl"),
        (["HOST", "--file", "mine=q.jsonl"], "no file or folder q.jsonl", ""),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--file", "mine=FILES/own.csv"], "names mine twice", "no other"),
        (["HOST", "--file", "NQ-open=FILES/own.jsonl"], "'NQ-open' means NQ-open", "write nq"),
        (["HOST", "--file", "Trivia_QA=FILES/own.jsonl"], "'Trivia_QA' means TriviaQA", "write tqa"),
        (["HOST", "--file", "seen=FILES/own.jsonl"], "another meaning in the rows", "another name"),
        (["HOST", "--file", "a/b=FILES/own.jsonl"], "cannot name a question set", "letters, digits"),
        (["HOST", "--file", "mine=FILES/no-answers.jsonl"], "no-answers.jsonl: 1 bad row (line 1: no answers", "fix"),
        (["HOST", "--file", "mine=HOST"], "has no files of mine", "test.jsonl"),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--shots", "2"], "to take 2 few-shot", "--train mine=PATH"),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--train", "x=FILES/own.jsonl"], "names x, which", "--file x=PATH"),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--metric", "rogue"], "no metric 'rogue'", "did you mean 'rouge'?"),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--metric", "nq=f1"], "metrics of nq are fixed", "use mine"),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--metric", "min=f1"], "no question file 'min'", "'mine'"),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--metric", "math_find"], "math_find_score cannot score the answer",
         "another --metric"),
        (["HOST", "--task", "nq", "--metric", "f1"], "--metric is for your own questions", "--file mine="),
        (["HOST", "--file", "piqa=FILES/own.jsonl", "--harness", "piqa"], "both name piqa", "another name"),
        (["HOST", "--file", "mine=FILES/own.jsonl", "--chat"], "has no chat template", "leave out --chat"),
        (["HOST", "--file", "nq=gone.jsonl"], "no file or folder gone.jsonl", ""),
        (["HOST", "--file", "tqa=FILES/NQ-open.dev.jsonl", "--task", "nq"], "tqa, which is not", "--task tqa"),
        (["HOST", "--task", "nq", "--file", "nq=HOST"], "has no files of NQ-open", "NQ-open.dev.jsonl"),
        (["HOST", "--task", "nq", "--file", "nq=FILES/NQ-open.dev.jsonl"], "to take 5 few-shot", "--train nq=PATH"),
        (["HOST", "--task", "nq", "--file", "nq=FILES"], "3 training questions for 5 few-shot", "lower --shots"),
        (["HOST", "--task", "nq", "--file", "nq=FILES/bad.jsonl", "--shots", "0"], "bad.jsonl: 1 bad row (line", ""),
        (["HOST", "--task", "nq", "--file", "nq=FILES", "--shots", "1", "--device", "tpu"], "tpu", "auto"),
        (["HOST", "--harness", ","], "has no task names", "piqa"),
        (["HOST", "--harness-tasks", "FILES"], "needs --harness", ""),
        (["HOST", "--harness", "a", "--harness-tasks", "gone"], "no folder gone", ""),
        (["HOST", "--name", "a/b"], "not a valid folder name", ""),
        (["HOST", "--limit", "0"], "--limit", ""),
        (["HOST", "--answer-tokens", "100000"], "--answer-tokens", ""),
        (["HOST", "--seed", "9999999999"], "--seed", ""),
        (["HOST", "--resume", "--force"], "exclude each other", ""),
        (["HOST", "--budget", "0.5"], "--budget needs --policy or --namm", "--policy snapkv"),
        (["HOST", "--interval", "64"], "--interval needs --policy or --namm", "--policy snapkv"),
        (["HOST", "--task", "nq", "--file", "nq=FILES", "--shots", "1", "--policy", "snap"], "unknown policy", "snap"),
        (["HOST", "--task", "nq", "--file", "nq=FILES", "--shots", "1", "--policy", "a.py:B"], "no file a.py", ""),
        (["HOST", "--namm", "univers"], "no NAMM", "universal"),
        (["HOST", "--task", "nq", "--file", "nq=FILES", "--shots", "1", "--policy", "knorm", "--policy", "snapk"],
         "unknown policy 'snapk'", "snapkv"),
        (["HOST", "--policy", "full", "--interval", "64"], "--interval has no effect with the policy full", "remove"),
        (["HOST", "--policy", "knorm", "--shares", "gone.json"], "gone.json", "check the path"),
        (["HOST", "--policy", "knorm", "--budget", "1.5"], "--budget: ", ""),
        (["HOST", "--task", "nq", "--file", "nq=FILES", "--shots", "1", "--policy", "knorm", "--interval", "20"],
         "multiple of 16", ""),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_mistakes_exit_2_with_one_line_and_a_hint(capsys, tmp_path, monkeypatch, host, files, arguments, message, hint):
    monkeypatch.chdir(tmp_path)
    given = [one.replace("HOST", str(host)).replace("FILES", str(files)) for one in arguments]
    if arguments == ["."]:  # only the model is wrong
        given += ["--task", "nq", "--shots", "0", "--file", f"nq={files}"]
    assert memx(["eval", *given]) == 2
    captured = capsys.readouterr()
    told = [line for line in captured.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert captured.out == "" and "Traceback" not in captured.err
    assert message in told[0] and hint in " ".join(told[1:]), captured.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_help_ends_in_three_examples(capsys):
    assert memx(["eval", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--harness" in shown and shown.partition("Examples:")[2].count("memx eval") >= 3


def test_without_lm_eval_the_extra_is_named(capsys, tmp_path, monkeypatch, host):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    for more in ([], ["--dry-run"]):
        assert memx(["eval", str(host), "--harness", "piqa", "--runs", str(tmp_path / "runs"), *more]) == 2
        told = capsys.readouterr().err
        assert "--harness needs the package lm-eval" in told and "pip install 'memx[eval]'" in told
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_without_files_and_without_the_hub_the_way_out_is_told(capsys, tmp_path, monkeypatch, host):
    from types import ModuleType

    def load_dataset(path, **options):
        raise ConnectionError(f"Couldn't reach {path!r} on the Hub (OfflineModeIsEnabled)")

    module = ModuleType("datasets")
    monkeypatch.setattr(module, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert memx(["eval", str(host), "--runs", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "cannot load google-research-datasets/nq_open" in told
    assert "hf download google-research-datasets/nq_open" in told and "--file nq=nq_open" in told
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert memx(["eval", str(host), "--runs", str(tmp_path)]) == 2
    assert "pip install 'memx[data]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_loads_no_weights_and_writes_nothing(capsys, tmp_path, host, files):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in host.iterdir():
        if path.suffix != ".safetensors":
            (bare / path.name).write_bytes(path.read_bytes())
    runs = tmp_path / "runs"
    given = ["eval", str(bare), "--file", f"nq={files}", "--file", f"tqa={files}", "--train", f"tqa={files}"]
    given = [*given, "--shots", "0", "--limit", "5", "--runs", str(runs), "--dry-run"]
    assert memx([*given, "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["questions"] == {"nq": 5, "tqa": 1} and plan["shots"] == 0 and plan["kind"] == "llama"
    assert memx([*given, "--answer-tokens", "9000"]) == 2
    assert "is too short for a question and 9000 answer tokens" in capsys.readouterr().err
    assert memx(given) == 0
    assert "nq 5, tqa 1" in capsys.readouterr().out and not runs.exists()


def test_a_dry_run_asks_no_hub_for_questions(capsys, tmp_path, monkeypatch, host):
    monkeypatch.setattr("memx.experiments.data.long_context.rows.import_module", None)
    assert memx(["eval", str(host), "--runs", str(tmp_path), "--dry-run", "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["questions"] == {"nq": None, "tqa": None}
    assert memx(["eval", str(host), "--runs", str(tmp_path), "--dry-run"]) == 0
    assert "nq (from the hub when it runs)" in " ".join(capsys.readouterr().out.split())


def test_bad_rows_are_skipped_with_a_note(capsys, tmp_path, host, files):
    given = ["eval", str(host), "--task", "nq", "--file", f"nq={files / 'bad.jsonl'}", "--shots", "0", "--dry-run"]
    assert memx([*given, "--runs", str(tmp_path), "--skip-bad-rows", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["questions"] == {"nq": 1} and "skipped 1 bad row (line 2: not JSON" in told.err


def test_cuts_are_told_with_their_size(capsys):
    from memx.cli.output.eval_summary import print_questions
    from memx.results.store.rows import Row

    about = {"run": "r", "experiment": "e", "kind": "dense", "model": "m", "dataset": "nq_open", "value": 1.0, "n": 20}
    cut = {"harness": "lm-eval 1", "cut_questions": 12, "cut_tokens": 856, "answer_tokens": 32}
    print_questions([Row(**about, metric="exact_match", **cut)], {})
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "nq_open: 12 of 20 prompts do not fit in the context of m and were cut at the start, the longest by 856"
        in shown
    )
    assert "answers end after 32 tokens" in shown


def test_a_run_of_memx_train_is_asked_told_of_and_drawn(capsys, tmp_path, tiny_run, files):
    run, _ = tiny_run
    runs = tmp_path / "runs"
    given = ["eval", str(run.folder), "--file", f"nq={files}", "--file", f"tqa={files}", "--shots", "0"]
    given += ["--answer-tokens", "4", "--runs", str(runs)]
    assert memx([*given, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    trained = run.rows()[0]
    assert {(row["dataset"], row["metric"]) for row in rows} == {
        (name, metric) for name in ("nq", "tqa") for metric in ("exact_match", "f1", "nll", "answer_nll")
    }
    for row in rows:
        same = ("model", "kind", "memory_slots", "parameters_total", "parameters_active", "flops", "experiment")
        assert all(row[name] == getattr(trained, name) for name in same)
        assert row["n"] == (9 if row["dataset"] == "nq" else 1) and row["low"] <= row["value"] <= row["high"]
    (found,) = RunStore(runs).runs()
    assert found.name.startswith(f"eval-{run.name}-") and found.status == "finished"
    assert len((found.folder / "answers.jsonl").read_text().splitlines()) == 10
    assert memx(given) == 2
    assert "--resume" in capsys.readouterr().err
    assert memx([*given, "--resume"]) == 0
    told = capsys.readouterr()
    assert f"{run.name} (" in told.out  # the evaluated run
    assert "already finished" in told.err and "exact match %" in told.out and "memx plot qa" in told.err
    out = tmp_path / "figures"
    assert memx(["plot", "qa", str(found.folder), "--published", "--out", str(out), "--formats", "png"]) == 0
    assert (out / "qa.png").stat().st_size > 10_000 and "memory" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_is_said_to_have_none(capsys, tmp_path, files):
    folder = tmp_path / "runs" / "cut-12345678"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "interrupted"}')
    (folder / "config.yaml").write_text("name: cut")
    assert memx(["eval", "cut-12345678", "--file", f"nq={files}", "--task", "nq", "--runs", str(folder.parent)]) == 2
    told = capsys.readouterr().err
    assert "has no checkpoint" in told
    assert f"memx train --config {folder / 'config.yaml'} --runs {folder.parent} --resume" in told


def test_the_help_says_that_the_code_of_own_tasks_runs(capsys):
    assert memx(["eval", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "the Python code that they name is run" in shown
