"""Scores and kinds of tokens of hosts that read no text: means over seeds, tables and figures."""

import json
from math import sqrt

import pytest
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.results.selection import PlotOptions, PlotRequest
from memx.results.store.rows import Row, write_rows
from memx.results.universal import figure, kinds_figure
from memx.results.universal.rows import by_host, cells


def row(variant, metric, value, seed=0, budget=None, run=None, **extra):
    return Row(
        run=run or f"eval-{seed}", experiment=run or f"eval-{seed}", kind="decision", model="Pendulum", variant=variant,
        dataset="episodes", metric=metric, value=value, n=100, stderr=2.0, low=value - 4, high=value + 4, seed=seed,
        budget=budget, mode="online", **extra,
    )  # fmt: skip


def rows(seed, lift=0.0):
    made = [row("full", "normalised", 80 + lift, seed), row("full", "held", 100, seed)]
    for variant, value in (("namm", 70.0), ("recency", 60.0)):
        made += [
            row(variant, "normalised", value + lift, seed, 0.5),
            row(variant, "normalised_minus_full", value - 80, seed, 0.5),
            row(variant, "held", 55, seed, 0.5),
            row(variant, "kept_layer", 50, seed, 0.5, layer=0),
            *(row(variant, "kept_kind", 20 + 10 * n, seed, 0.5, token_kind=kind) for n, kind in enumerate("ab")),
            *(row(variant, "kept_kind", 20 + 10 * n, seed, 0.5, token_kind=k, layer=0) for n, k in enumerate("ab")),
        ]
    return made


def test_seeds_of_a_host_are_one_mean_with_the_interval_over_units():
    (found,) = by_host([*rows(0), *rows(1, lift=10)]).values()
    cell = cells(found, "normalised")["namm", 0.5]
    assert (cell.value, cell.values, cell.n) == (75.0, (70.0, 80.0), 200)
    assert cell.high - cell.value == pytest.approx(1.959964 * sqrt(8) / 2, abs=1e-3)


def test_a_seed_that_was_evaluated_twice_counts_once():
    again = [one.model_copy(update={"run": "later", "value": one.value + 1}) for one in rows(0)]
    (found,) = by_host([*rows(0), *again]).values()
    assert cells(found, "normalised")["recency", 0.5].values == (61.0,)


def request(tmp_path, made, **options):
    write_rows(tmp_path / "made.rows.jsonl", made)
    return PlotRequest([tmp_path / "made.rows.jsonl"], tmp_path, "drawn", options=PlotOptions(**options))


def test_the_table_has_every_policy_at_every_size(tmp_path):
    table = figure.draw(request(tmp_path, rows(0))).table
    assert [(fact["policy"], fact["budget"], fact["value"]) for fact in table.facts] == [
        ("full", None, 80.0),
        ("namm", 0.5, 70.0),
        ("recency", 0.5, 60.0),
    ]
    assert table.lines[1] == ["Pendulum", "namm", "50%", "70.0 ±4.0", "-10.0 ±4.0", "55.0%"]


def test_kinds_are_told_apart_at_a_budget_that_was_evaluated(tmp_path):
    drawn = kinds_figure.draw(request(tmp_path, rows(0), budget=0.5))
    assert [fact["b"] for fact in drawn.table.facts] == [30.0, 30.0]
    with pytest.raises(MemxError, match="was not evaluated at it"):
        kinds_figure.draw(request(tmp_path, rows(0), budget=0.3))


def test_other_rows_are_refused(tmp_path, capsys):
    path = tmp_path / "other.rows.jsonl"
    path.write_text(json.dumps({**rows(0)[0].model_dump(), "kind": "dense"}) + "\n")
    for picture in ("universal", "forgotten"):
        assert memx(["plot", picture, str(path), "--out", str(tmp_path)]) == 2
        assert "memx eval-namm --host" in capsys.readouterr().err
