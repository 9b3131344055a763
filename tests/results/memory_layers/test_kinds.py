"""Models of equal cost: read from rows, averaged over seeds, compared with one of them on each base, drawn, tabled."""

import pytest
from memx.errors import MemxError
from memx.results.memory_layers.kinds import kinds_of, kinds_table, measures_of
from memx.results.memory_layers.kinds_figure import kinds_figure
from memx.results.store.rows import Row

SCORES = {
    ("rephrased", "exact_match"): {"dense": 20.0, "engram": 80.0, "moe": 30.0},
    ("names/5+/rephrased", "exact_match"): {"dense": 10.0, "engram": 70.0, "moe": 15.0},
    ("rephrased", "nll"): {"dense": 0.9, "engram": 0.2, "moe": 0.7},
    ("text/python-docs", "nll"): {"dense": 4.3, "engram": 3.9, "moe": 4.2},
    ("seen", "exact_match"): {"dense": 21.0, "engram": 81.0, "moe": 31.0},
}


def row(variant, base, seed, dataset, metric, value, slots=0) -> Row:
    kind = "dense" if variant == "dense" else variant
    flops = 10**5 if base == "small" else 10**6
    about = dict(run=f"{variant}-{base}-{seed}", experiment="kinds", n=100, parameters_total=10**6, flops=flops)
    return Row(**about, kind=kind, model=base, variant=variant, dataset=dataset, metric=metric, value=value,
               memory_slots=slots, seed=seed)  # fmt: skip


ROWS = [
    row(variant, base, seed, *key, value + seed * (1 if variant == "engram" else 2) / 10)
    for base in ("large", "small")
    for key, values in SCORES.items()
    for variant, value in values.items()
    for seed in (0, 1, 2)
]


def test_measures_are_facts_long_names_answers_and_text():
    found = [(measure.dataset, measure.metric) for measure in measures_of(ROWS, "rephrased")]
    assert found == [
        ("rephrased", "exact_match"),
        ("names/5+/rephrased", "exact_match"),
        ("rephrased", "nll"),
        ("text/python-docs", "nll"),
    ]
    assert len(measures_of([r for r in ROWS if r.dataset == "seen"], "seen")) == 1  # what rows do not have is left out


def test_bases_come_by_cost_and_differences_are_paired_with_the_baseline_of_the_same_base():
    bases = kinds_of(ROWS, "rephrased", "dense")
    assert [base.base for base in bases] == ["small", "large"]
    for base in bases:
        dense, engram, moe = base.models
        assert list(engram.scores) == measures_of(ROWS, "rephrased")  # as panels and columns are ordered
        exact, *_, text = measures_of(ROWS, "rephrased")
        assert engram.scores[exact].value == pytest.approx(80.1)
        assert engram.differences[exact].value == pytest.approx(59.9)  # seeds differ by 60, 59.9 and 59.8
        assert engram.differences[exact].values == pytest.approx((60, 59.9, 59.8))
        assert engram.differences[exact].verdict == "better" and dense.differences[exact].verdict == "first"
        assert engram.differences[text].verdict == "better"  # less loss
        assert moe.differences[text].values == pytest.approx((-0.1,) * 3)


def test_without_a_name_the_first_variant_is_the_baseline():
    assert kinds_of(ROWS, "rephrased")[0].baseline == ROWS[0].variant


def test_the_table_and_the_figure_have_every_model_of_every_base():
    bases = kinds_of(ROWS, "rephrased", "dense")
    table = kinds_table(bases, "rephrased")
    assert [line[:2] for line in table.lines] == [
        [base, name] for base in ("small", "large") for name in ("dense", "engram", "moe")
    ]
    assert all(len(line) == len(table.columns) for line in table.lines)
    assert table.lines[0][-2:] == ["", ""] and table.lines[1][-1].startswith("-0.5")
    assert len(table.facts) == 2 * 3 * 4
    figure = kinds_figure(ROWS, bases)
    assert len(figure.axes) == 8
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["dense", "engram", "moe"]


def test_a_base_without_the_baseline_has_scores_and_no_differences():
    rows = [r for r in ROWS if (r.variant, r.model) != ("dense", "large")]
    small, large = kinds_of(rows, "rephrased", "dense")
    assert len(large.models) == 2 and not any(model.differences for model in large.models)
    assert all(len(line) == 10 for line in kinds_table([small, large], "rephrased").lines)
    assert kinds_figure(rows, [small, large]).axes


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(MemxError, match="only the variant 'moe'"):
        kinds_of([r for r in ROWS if r.variant == "moe"], "rephrased")
    with pytest.raises(MemxError, match="unknown variant 'peer'"):
        kinds_of(ROWS, "rephrased", "peer")
    with pytest.raises(MemxError, match="were not asked held-out entities questions"):
        kinds_of([r for r in ROWS if not r.labels.text], "unseen")
    twice = [*ROWS, row("moe", "small", 0, "rephrased", "nll", 0.5, slots=16)]
    with pytest.raises(MemxError, match="several memory sizes"):
        kinds_of(twice, "rephrased")
