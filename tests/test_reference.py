"""The committed figure: its rows say what the README says, and what an honest figure must show."""

import re
from pathlib import Path

import pytest
from memx.experiments.settings import experiment_name, load_config
from memx.results.rows import read_rows
from memx.results.summary import summarize

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "reference" / "facts" / "memory.rows.jsonl"


@pytest.fixture(scope="module")
def found():
    return {(s.dataset, s.metric, s.memory_slots): s for s in summarize(read_rows(ROWS))}


def test_the_rows_are_of_the_named_preset():
    config = load_config("facts-3seeds")
    rows = read_rows(ROWS)
    assert {row.experiment for row in rows} == {experiment_name(config)}
    assert {row.memory_slots for row in rows} == set(config.sweep["memory.slots"])
    assert {row.seed for row in rows} == set(config.sweep["seed"])


@pytest.mark.parametrize("tier", ["seen", "rephrased"])
def test_accuracy_rises_and_loss_falls_with_memory(found, tier):
    sizes = load_config("facts").sweep["memory.slots"]
    accuracy = [found[tier, "exact_match", slots].value for slots in sizes]
    loss = [found[tier, "nll", slots].value for slots in sizes]
    assert accuracy == sorted(accuracy) and accuracy[-1] - accuracy[0] >= 20
    assert loss == sorted(loss, reverse=True)


def test_nobody_knows_unseen_entities(found):
    for (dataset, metric, slots), summary in found.items():
        if (dataset, metric) == ("unseen", "exact_match"):
            assert summary.low <= found["unseen", "chance_exact_match", slots].value


def test_memory_spends_no_more_flops_than_dense(found):
    dense = found["seen", "nll", 0].flops
    assert all(summary.flops <= dense for summary in found.values())


def test_the_readme_states_the_rows(found):
    readme = (ROOT / "README.md").read_text("utf-8")
    for slots in load_config("facts").sweep["memory.slots"]:
        name = f"{slots:,}" if slots else "dense"
        (line,) = re.findall(rf"^\| {name} \|.*$", readme, flags=re.MULTILINE)
        for tier in ("seen", "rephrased", "unseen"):
            assert f"{found[tier, 'exact_match', slots].value:.1f}" in line
        assert f"{found['seen', 'nll', slots].value:.2f}" in line


def test_the_readme_example_answers_a_question(tiny_run, capsys, monkeypatch):
    readme = (ROOT / "README.md").read_text("utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL) if "generate" in block)
    assert len([line for line in code.splitlines() if line]) == 5
    exec(code.replace("results/runs/RUN", str(tiny_run[0].folder)), {})
    assert capsys.readouterr().out.startswith("LHR is in which country?")
