"""`memx show`: what it shows of a run is what the run's files say, and what is damaged or missing is named."""

import json
import shutil
from statistics import fmean

import pytest
from memx.cli.main import run
from memx.errors import MemxError
from memx.experiments.inspection.answers import Answered, read_answers, wrong_answers
from memx.experiments.inspection.find import find_run, find_runs
from memx.experiments.inspection.scores import main_scores, worst_relations
from memx.experiments.inspection.settings import changed_settings, differing
from memx.experiments.inspection.show import as_json, view_run
from memx.results.store.rows import Row
from memx.results.store.runs import RunStore


@pytest.fixture
def one(runs):
    return RunStore(runs).runs()[0]


def test_the_answers_that_are_kept_give_the_scores_of_the_rows(runs):
    for one in RunStore(runs).runs():
        answers, rows = read_answers(one.folder), {(row.dataset, row.metric): row for row in one.rows()}
        assert answers
        for tier in ("seen", "rephrased", "unseen"):
            asked = [answer for answer in answers if answer.task == tier]
            assert rows[tier, "exact_match"].n == len(asked)
            assert rows[tier, "exact_match"].value == pytest.approx(100 * fmean(answer.right for answer in asked))
            nll = sum(answer.nll for answer in asked) / sum(answer.tokens for answer in asked)
            assert rows[tier, "nll"].value == pytest.approx(nll)
            assert all(answer.accepted and answer.question and answer.relation for answer in asked)


def test_a_view_has_the_counts_settings_and_files_of_the_run(one):
    view = view_run(one)
    info = one.info()
    assert view.counts["facts trained"] == info["facts_trained"] > view.counts["facts held out"] > 0
    assert view.preset == "tiny" and ("training.steps", 6) in [(key, new) for key, _, new in view.settings]
    assert not {"name", "experiment"} & {key for key, _, _ in view.settings}
    assert {file.name for file in view.files} >= {"answers.jsonl", "checkpoint/", "rows.jsonl"}
    assert "finished, step 6" in view.facts["status"] and not view.resume
    assert all(not answer.right for answer in view.wrong)
    assert view.next[0].startswith(f"memx ask {one.folder} ") and read_answers(one.folder)[0].question in view.next[0]
    assert json.loads(json.dumps(as_json(view)))["counts"] == view.counts


def test_a_stopped_run_says_how_to_continue(one, tmp_path):
    folder = shutil.copytree(one.folder, tmp_path / "runs" / one.name)
    (folder / "rows.jsonl").unlink()
    (stopped,) = RunStore(tmp_path / "runs").runs()
    stopped.end("interrupted")
    view = view_run(stopped)
    assert "--resume" in view.resume and str(folder) in view.resume
    assert "interrupted, step 6 of 6" in view.facts["status"] and view.scores == []


def test_relations_are_those_with_the_lowest_scores():
    rows = [
        Row(run="r", experiment="e", kind="dense", model="m", dataset=f"rephrased/{name}", metric="exact_match",
            value=value, n=4)
        for name, value in (("a", 50.0), ("b", 10.0), ("c", 90.0))
    ]  # fmt: skip
    assert [score.row.value for score in worst_relations(rows, 2)] == [10.0, 50.0]
    assert main_scores(rows) == []


def test_wrong_answers_are_of_trained_facts_first():
    def answered(task, right):
        return Answered(task, "q", "a", ("b",), right, 1.0, 1, "r")

    given = [answered("unseen", 0.0), answered("seen", 1.0), *[answered("seen", 0.0)] * 9]
    assert [one.task for one in wrong_answers(given, 3)] == ["seen"] * 3
    assert len(wrong_answers(given[:2], 3)) == 1


def test_a_run_is_found_by_path_name_beginning_or_as_the_last(runs, one):
    names = [run.name for run in RunStore(runs).runs()]
    last = max(RunStore(runs).runs(), key=lambda run: (run.info()["started"], run.name)).name
    assert find_run(str(one.folder), runs).name == find_run(one.name, runs).name == one.name
    assert find_run(one.name[:-3], runs).name == one.name
    assert find_run(None, runs).name == last
    assert [run.name for run in find_runs(["looked"], runs)] == names
    assert [run.name for run in find_runs([str(runs), one.name], runs)] == names
    for wrong, message in (("look", "4 runs begin"), ("loked", "did you mean"), ("zzz", "memx runs")):
        with pytest.raises(MemxError) as error:
            find_run(wrong, runs)
        assert message in f"{error.value.message} {error.value.hint}"
    for wrong, message in ((runs, "has no run.json"), (runs / "nothing", "is not there")):
        with pytest.raises(MemxError, match=message):
            find_run(str(wrong), runs)
    with pytest.raises(MemxError, match="no runs in"):
        find_run(None, runs / "nothing")


def test_settings_that_differ_are_found_at_any_depth():
    found = differing([{"a": {"b": 1, "c": [1]}, "name": "x"}, {"a": {"b": 1, "c": [2]}, "name": "y"}, {"a": {"b": 1}}])
    assert found == [("a.c", [[1], [2], None])]


def test_a_run_of_a_file_has_no_preset(one, monkeypatch):
    monkeypatch.setattr(type(one), "info", lambda self: {"command": "memx train my.yaml", "status": "finished"})
    assert changed_settings(one) == ("", [])


def test_the_command_shows_a_run_and_names_what_is_damaged(runs, one, tmp_path, capsys):
    assert run(["show", one.name, "--runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    for part in ("Settings that differ from the preset tiny", "exact match %", "Worst relations", "answers.jsonl"):
        assert part in shown
    assert run(["show", one.name, "--runs", str(runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == one.name
    folder = shutil.copytree(one.folder, tmp_path / "damaged")
    (folder / "answers.jsonl").write_text('{"question": 1}\nnot JSON\n{"question": 1}\n')
    assert run(["show", str(folder)]) == 2
    assert "answers.jsonl line 2" in capsys.readouterr().err


def test_scores_of_policies_are_those_of_all_tasks_without_rivals():
    def of(dataset, metric="exact", **more):
        return Row(run="r", experiment="e", kind="eviction", model="m", variant="namm global", dataset=dataset,
                   metric=metric, value=50.0, n=4, allocation="global", budget=0.25, **more)  # fmt: skip

    rows = [of("held-out/all"), of("held-out/people"), of("all/all"), of("all/all", rival="h2o"),
            of("all/all", "kept_layer", layer=1)]  # fmt: skip
    (only,) = main_scores(rows)
    assert (only.where, only.metric, only.text) == ("held-out tasks, namm global at 25%", "right answers %", "50.0")
    assert [score.where.partition(",")[0] for score in main_scores([*rows, of("trained/all")])] == [
        "held-out tasks", "all tasks", "trained tasks"
    ]  # fmt: skip


def test_a_saved_benchmark_is_shown(tmp_path, capsys):
    from memx.results.store.bench_files import save_bench

    row = Row(run="bench", experiment="bench", kind="torch", model="float32", dataset="bag_dot B=2,N=3",
              metric="forward_ms", value=1.5, n=9, low=1.0, high=2.0, device="cpu, 1 thread")  # fmt: skip
    save_bench(tmp_path, [row], {"device": "cpu", "processor": "a processor", "memx": "0.1.0", "packages": {}})
    assert run(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "a processor" in shown.out and "bag_dot B=2,N=3 torch float32" in shown.out and "1.5 ±0.5" in shown.out
    assert "memx plot ops" in shown.err
    (tmp_path / "environment.json").write_text("{")
    assert run(["show", str(tmp_path)]) == 2
