"""`memx compare`: groups of seeds, settings that differ, and differences against brute force."""

import json
from itertools import product
from statistics import fmean, stdev

import numpy as np
import pytest
from memx.cli.main import run
from memx.errors import MemxError
from memx.experiments.inspection.answers import Answered, by_question
from memx.experiments.inspection.compare import as_json, compare_runs, group_runs
from memx.experiments.inspection.differences import BY_QUESTION, BY_SEED, UNPAIRED, difference
from memx.results.store.rows import Row
from memx.results.store.runs import RunStore


def row(value, *, metric="exact_match", seed=0, low=None, high=None):
    return Row(run=f"r{seed}", experiment="e", kind="dense", model="m", dataset="seen", metric=metric, value=value, n=9,
               seed=seed, low=low, high=high)  # fmt: skip


def answers(right, nll=None, tokens=None):
    given = zip(right, nll or [1.0] * len(right), tokens or [2] * len(right), strict=True)
    return {f"q{i}": Answered("seen", f"q{i}", "", ("a",), r, x, t, "") for i, (r, x, t) in enumerate(given)}


def test_right_answers_are_paired_by_question_as_the_bootstrap_does():
    one, other = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    found = difference([row(0)], [row(0)], answers(one), answers(other))
    gaps = np.array(one) - np.array(other)
    every = [np.mean([gaps[i] for i in drawn]) * 100 for drawn in product(range(6), repeat=6)]
    assert found.how == BY_QUESTION and found.n == 6 and found.value == pytest.approx(100 * gaps.mean())
    step = 100 / 6  # resamples are whole numbers of questions
    assert abs(found.low - np.quantile(every, 0.025)) <= step and abs(found.high - np.quantile(every, 0.975)) <= step
    mirrored = difference([row(0)], [row(0)], answers(other), answers(one))
    assert mirrored.value == -found.value and abs(mirrored.low + found.high) <= step


def test_the_loss_is_paired_by_question_where_tokens_are_the_same():
    one, other, tokens = [1.0, 3.0, 2.5], [2.0, 2.0, 3.0], [1, 2, 3]
    found = difference(
        [row(0, metric="nll")], [row(0, metric="nll")], answers([1] * 3, one, tokens), answers([1] * 3, other, tokens)
    )
    assert found.how == BY_QUESTION and found.value == pytest.approx((6.5 - 7.0) / 6)
    assert found.low < found.value < found.high
    unlike = difference(
        [row(1.0, metric="nll")], [row(2.0, metric="nll")], answers([1], [1.0], [1]), answers([1], [1.0], [2])
    )
    assert unlike.how == UNPAIRED and unlike.value == -1.0 and unlike.low is None and not unlike.shown


def test_seeds_are_paired_by_seed_in_any_order():
    found = difference([row(5.0, seed=0), row(9.0, seed=1), row(7.5, seed=2)],
                       [row(6.0, seed=2), row(8.0, seed=1), row(2.0, seed=0)])  # fmt: skip
    gaps = [3.0, 1.0, 1.5]
    half = 4.303 * stdev(gaps) / 3**0.5
    assert found.how == BY_SEED and found.n == 3 and found.value == pytest.approx(fmean(gaps))
    assert found.low == pytest.approx(fmean(gaps) - half) and found.high == pytest.approx(fmean(gaps) + half)


def test_other_groups_are_not_paired_and_their_errors_add():
    found = difference([row(10.0, low=7.0, high=13.0)], [row(2.0, low=-2.0, high=6.0)])
    assert found.how == UNPAIRED and (found.low, found.high) == (3.0, 13.0) and found.shown
    other_questions = difference([row(10.0)], [row(2.0)], answers([1.0]), {**answers([1.0, 0.0])})
    assert other_questions.how == UNPAIRED
    assert difference([row(1.0, seed=0), row(2.0, seed=1)], [row(1.0, seed=0), row(2.0, seed=3)]).how == UNPAIRED


def test_runs_that_differ_in_their_seed_are_a_group(runs):
    found = RunStore(runs).runs()
    groups = group_runs(found)
    assert [len(group.runs) for group in groups] == [2, 2] and [group.seeds for group in groups] == [[0, 1], [0, 1]]
    comparison = compare_runs(found)
    settings = dict(comparison.settings)
    assert settings["memory.slots"] == [0, 1024] and not {"seed", "name", "experiment"} & settings.keys()
    line = next(line for line in comparison.lines if (line.where, line.metric) == ("seen facts", "exact_match"))
    means = [fmean(one.value for one in group.rows(line.key)) for group in groups]
    (less,) = line.differences
    assert less.how == BY_SEED and less.value == pytest.approx(means[1] - means[0])


def test_two_runs_are_paired_by_the_answers_that_they_kept(runs):
    dense, memory = (group.runs[0] for group in group_runs(RunStore(runs).runs()))
    comparison = compare_runs([dense, memory])
    lines = {(line.where, line.metric): line.differences[0] for line in comparison.lines}
    assert lines["seen facts", "exact_match"].how == lines["seen facts", "nll"].how == BY_QUESTION
    kept = [by_question(group.answers, "seen") for group in comparison.groups]
    gaps = [kept[1][question].right - kept[0][question].right for question in kept[0]]
    assert lines["seen facts", "exact_match"].value == pytest.approx(100 * fmean(gaps))
    (dense.folder / "answers.jsonl").rename(dense.folder / "aside.jsonl")
    try:
        again = compare_runs([dense, memory])
    finally:
        (dense.folder / "aside.jsonl").rename(dense.folder / "answers.jsonl")
    (line,) = [line for line in again.lines if (line.where, line.metric) == ("seen facts", "exact_match")]
    assert line.differences[0].how == UNPAIRED
    assert line.differences[0].value == pytest.approx(lines["seen facts", "exact_match"].value)


def test_json_is_plain_data(runs):
    said = json.loads(json.dumps(as_json(compare_runs(RunStore(runs).runs()))))
    first, second = (group["name"] for group in said["groups"])
    score = next(one for one in said["scores"] if one["metric"] == "exact_match")
    assert score["minus_first"][second]["how"] == BY_SEED
    assert score["values"][first]["low"] <= score["values"][first]["value"] <= score["values"][first]["high"]


def test_fewer_than_two_runs_are_refused(runs):
    with pytest.raises(MemxError, match="two runs"):
        compare_runs(RunStore(runs).runs()[:1])


def test_the_command_prints_the_comparison_and_draws_the_curves(runs, tmp_path, capsys):
    given = ["compare", "looked", "--runs", str(runs), "--metric", "exact_match"]
    assert run([*given, "--figure", str(tmp_path / "made" / "curves.svg")]) == 0
    shown = capsys.readouterr().out
    for part in ("2 runs, seeds 0, 1", "Settings that differ", "memory.slots", "paired by seed", "1024 minus looked"):
        assert part in shown
    assert "nats per token" not in shown
    assert (tmp_path / "made" / "curves.svg").read_text().lstrip().startswith("<?xml")
    assert run([*given, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["groups"]) == 2
    assert run(["compare", "looked", "--runs", str(runs), "--metric", "exact"]) == 2
    assert "use exact_match" in capsys.readouterr().err
    assert run(["compare", "looked", "--runs", str(runs), "--figure", "curves.gif"]) == 2
    assert "end it in .png" in capsys.readouterr().err
