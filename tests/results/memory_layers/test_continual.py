"""Rows of continual-learning runs -> what each method learned and kept, and the picture of it."""

from math import sqrt
from pathlib import Path

import pytest
from memx.cli.main import run
from memx.errors import MemxError
from memx.results.memory_layers.finetuning.continual import by_trained, continual_methods, continual_table, is_wanted
from memx.results.store.rows import Row, read_rows, write_rows


def rows_of(method: str, seed: int, learned: list[float], earlier: float, known: float, model: str = "m") -> list[Row]:
    """The rows of a run: exact match of each part, and after the last what is kept, of 50 questions each."""
    common = dict(run=f"{method}-{seed}", experiment="e", kind="memory", model=model, variant=method, seed=seed, n=50)

    def row(dataset, part, value, metric="exact_match"):
        share = value / 100
        error = 100 * sqrt(share * (1 - share) / 50) if metric == "exact_match" else 0.1
        ends = dict(low=value - error, high=value + error)
        return Row(**common, dataset=dataset, metric=metric, value=value, stderr=error, after_part=part, **ends)

    rows = [row("parts/new/rephrased", part, value) for part, value in enumerate(learned, 1)]
    rows += [row("parts/new/seen", part, 99.0) for part in range(1, len(learned) + 1)]
    rows += [row("parts/earlier/rephrased", part, earlier + 5 * (len(learned) - part)) for part in range(2, 4)]
    rows += [row("parts/known", part, 100.0 - (100 - known) * part / 3) for part in range(4)]
    rows += [row("parts/text", part, 2.0 + 0.1 * part, "nll") for part in range(4)]
    return [*rows, Row(**common, dataset="seen", metric="exact_match", value=1.0)]


def methods_of(rows):
    return {m.name: m for m in continual_methods(by_trained([row for row in rows if is_wanted(row)]))}


def test_learned_is_the_mean_of_parts_and_kept_is_that_after_the_last():
    found = methods_of([*rows_of("a", 0, [90, 80, 70], 40, 60), *rows_of("b", 0, [50, 50, 50], 90, 95)])
    a = found["a"].figures
    assert (a["new/rephrased"].value, a["earlier/rephrased"].value, a["known"].value) == (80, 40, 60)
    assert a["text"].value == pytest.approx(0.3)
    error = sqrt(sum(p * (1 - p) / 50 for p in (0.9, 0.8, 0.7))) / 3
    assert a["new/rephrased"].high - 80 == pytest.approx(196 * error, rel=1e-3)
    assert found["b"].figures["known"].value == 95


def test_intervals_of_several_seeds_are_over_seeds():
    rows = [row for seed, known in enumerate((60, 66, 72)) for row in rows_of("a", seed, [90, 80, 70], 40, known)]
    known = methods_of(rows)["a"].figures["known"]
    assert known.value == 66
    assert known.high - known.value == pytest.approx(4.303 * 6 / sqrt(3), rel=1e-3)
    (line,) = continual_table(list(methods_of(rows).values())).lines
    assert line[:2] == ["a", "3"]


def test_runs_that_do_not_belong_together():
    with pytest.raises(MemxError, match="different models"):
        methods_of([*rows_of("a", 0, [1, 2, 3], 4, 5), *rows_of("b", 0, [1, 2, 3], 4, 5, model="other")])
    with pytest.raises(MemxError, match="different numbers of parts"):
        methods_of([*rows_of("a", 0, [1, 2, 3], 4, 5), *rows_of("b", 0, [1, 2, 3, 4], 4, 5)])


def test_the_picture_is_drawn_with_all_parts_of_its_rows(tmp_path: Path):
    rows = [row for seed in (0, 1) for row in rows_of("a", seed, [90, 80, 70], 40, 60 + seed)]
    write_rows(tmp_path / "mine.rows.jsonl", rows)
    assert run(["plot", "continual", str(tmp_path / "mine.rows.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "continual.png").stat().st_size > 5000
    drawn = read_rows(tmp_path / "out" / "continual.rows.jsonl")
    assert len(drawn) == len([row for row in rows if is_wanted(row)])


def test_rows_without_parts_are_refused(tmp_path: Path, capsys):
    write_rows(tmp_path / "mine.rows.jsonl", rows_of("a", 0, [1, 2, 3], 4, 5)[-1:])
    assert run(["plot", "continual", str(tmp_path / "mine.rows.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "learned its facts in parts" in capsys.readouterr().err
