"""Figures of what layers keep and of what kinds of token go: drawn where policies differ, at the size asked for."""

import pytest
from memx.errors import MemxError
from memx.results.namm.evicted_tokens import chance_of, choose_size, evicted_tokens_table, texts_of
from memx.results.namm.evicted_tokens_figure import evicted_tokens_figure
from memx.results.namm.layers import by_layer, layers_figure, layers_table
from memx.results.namm.rows import prepared
from memx.results.plots import draw

from . import namm_rows as made
from .test_scores import line_of, order


def test_layers_are_drawn_where_they_differ(tmp_path):
    rows = prepared(made.layer_rows())
    found = by_layer(rows)
    *budgets, axis = layers_figure(rows, found).axes
    assert [one.get_title() for one in budgets] == [
        f"Cache kept by layer, at {100 * share:g}% of the cache" for share in made.BUDGETS
    ]
    assert line_of(budgets[1], "NAMM")[1] == [90, 60, 30, 20] and line_of(budgets[2], "NAMM")[1] == [45, 30, 15, 10]
    assert line_of(budgets[2], "same in every layer: NAMM per head, random, SnapKV")[1] == [25, 25]
    assert axis.get_title() == "Cache kept by layer, at the NAMM's own size" and axis.get_ylim() == (0, 103)
    assert line_of(axis, "NAMM") == ([0, 1, 2, 3], [90, 60, 30, 20])
    assert line_of(axis, "same in every layer: random, SnapKV")[1] == [50, 50]
    *_, line = layers_table(found).lines
    assert line == ["own size", "NAMM", "50.0", "20.0", "3", "90.0", "0"]
    with pytest.raises(MemxError, match="every policy here keeps the same share of each layer"):
        draw("layers", order(tmp_path, made.layer_rows(shares=(50.0, 50.0))))
    assert not (tmp_path / "out").exists()


def test_kinds_of_token_are_bars_from_the_most_dropped():
    rows = choose_size(prepared(made.kind_rows()), None, print)
    texts = texts_of(rows)
    code, prose, code_runs, _ = evicted_tokens_figure(rows, texts).axes
    labels = [tick.get_text() for tick in code.get_yticklabels()]
    assert labels[0] == "whitespace  (20%)" and labels[-1] == "number  (3%)" and len(labels) == len(made.CODE)
    bars = [patch.get_width() for patch in code.patches]
    assert bars == sorted((dropped for _, dropped in made.CODE.values()), reverse=True)
    mean = sum(share * dropped for share, dropped in made.PROSE.values()) / 100
    assert line_of(prose, "mean of all tokens")[0] == pytest.approx([mean, mean])
    assert line_of(prose, "random eviction at the same cache size")[0] == pytest.approx([mean] * len(made.PROSE))
    assert [patch.get_width() for patch in code_runs.patches] == [6.5, 3.0]
    assert "6 documents per text type · thin lines: 95% CI" in code.figure.legends[0].get_title().get_text()
    fact = evicted_tokens_table(texts).facts[0]
    assert (fact["name"], fact["dropped"], fact["share"]) == ("whitespace", 88.0, 20.0)


def test_the_size_of_what_is_dropped_is_chosen():
    told = []
    rows = prepared([*made.kind_rows(), *made.kind_rows(budget=0.5), *made.kind_rows(budget=0.25)])
    assert {r.model_extra["size"] for r in choose_size(rows, None, told.append)} == {"own"}
    assert told == ["drawn: own size; not drawn: 50%, 25% (choose with --budget)"]
    assert {r.model_extra["budget"] for r in choose_size(rows, 0.25, told.append)} == {0.25}
    with pytest.raises(MemxError, match=r"no NAMM was evaluated at 0\.3"):
        choose_size(rows, 0.3, told.append)
    told.clear()
    mixed = prepared([*made.kind_rows(namms=(("namm a", 0, 0.0),)), *made.kind_rows(0.25, (("namm b", 7, 5.0),))])
    chosen = choose_size(mixed, None, told.append)
    assert {(r.variant, r.model_extra["size"]) for r in chosen if r.variant != "random"} == {
        ("namm a", "own"), ("namm b", "budget"),
    }  # fmt: skip
    assert told == []
    several = prepared(made.kind_rows(namms=(("namm a", 0, 0.0), ("namm b", 7, 5.0))))
    texts = texts_of(choose_size(several, None, told.append))
    assert [one.policy for one in texts[:2]] == ["namm a", "namm b"]
    assert {chance_of(texts, one).size for one in texts[:2]} == {"own namm a", "own namm b"}
