"""Result tables of training: every part of a split table names its runs, and intervals stay inside 0 to 100."""

import pytest
from memx.cli.output.train_summary import print_training
from memx.results.store.rows import Row


def rows_of(slots: int, value: float, low: float, high: float, n: int = 80) -> list[Row]:
    """Rows of one run: exact match of each tier, the first-letter guess, and NLL."""
    about = dict(run=f"run-{slots}", experiment="tiny", model="llama-4x64", kind="memory" if slots else "dense", seed=0)
    about |= dict(memory_slots=slots, parameters_total=10**6, flops=10**6, n=n)
    found = []
    for tier in ("seen", "rephrased", "unseen"):
        found.append(Row(dataset=tier, metric="exact_match", value=value, low=low, high=high, **about))
        found.append(Row(dataset=tier, metric="chance_exact_match", value=20.0, low=10.0, high=30.0, **about))
        found.append(Row(dataset=tier, metric="nll", value=1.0, low=0.9, high=1.1, **about))
    return found


def test_at_80_columns_every_part_says_how_many_slots(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    sizes = (1024, 4096, 16_384)
    print_training({f"run-{slots}": rows_of(slots, 100.0, 95.4, 100.0) for slots in sizes}, tmp_path)
    lines = capsys.readouterr().out.split("\n")
    assert max(len(line) for line in lines if not line.startswith("Guessing")) <= 80
    parts = [line for line in lines if line.split()[:2] == ["kind", "slots"]]
    assert len(parts) > 1
    for slots in sizes:
        assert sum(line.split()[:2] == ["memory", f"{slots:,}"] for line in lines) == len(parts)
    assert any("100.0 [95.4, 100.0]" in line for line in lines)
    assert "Questions asked (n): seen 80, paraphrased 80, held-out 80." in lines
    assert "Guessing by relation and first letter: seen 20.0%, paraphrased 20.0%, held-out 20.0%." in lines


@pytest.mark.parametrize("n", [1, 80])
def test_one_question_has_no_interval(capsys, tmp_path, n):
    print_training({"run-0": rows_of(0, 50.0, 40.0, 60.0, n)}, tmp_path)
    assert ("50.0 ±10.0" in (told := capsys.readouterr().out)) == (n > 1) and "50.0" in told


@pytest.mark.parametrize(("value", "low", "high", "below"), [(5.0, 1.0, 12.0, True), (15.0, 9.0, 24.0, False)])
def test_a_run_that_knows_less_than_guessing_is_named(capsys, tmp_path, value, low, high, below):
    print_training({"run-0": rows_of(0, value, low, high)}, tmp_path)
    assert ("Below guessing on seen facts: run-0. " in capsys.readouterr().out) == below
