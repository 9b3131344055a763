"""The figure of NQ-open and TriviaQA: a line for each base and kind, published curves beside, and what it refuses."""

import pytest
from memx.errors import MemxError
from memx.results.memory_layers.questions import is_wanted, lines_of, qa_figure, qa_table
from memx.results.plots import draw
from memx.results.published import published_curves
from memx.results.selection import PlotOptions, PlotRequest
from memx.results.store.rows import Row, write_rows
from memx.results.summary import summarize


def row(slots, value, dataset="nq", metric="exact_match", model="base", kind=None, shots=5, **more):
    kind = kind or ("memory+" if slots else "dense")
    low, high, run = value - 0.5, value + 0.5, f"eval-{model}-{kind}-{slots}-{more.get('variant')}-{more.get('seed')}"
    fixed = dict(run=run, experiment="e", model=model, kind=kind, n=100, low=low, high=high, parameters_total=10**6)
    return Row(**fixed, dataset=dataset, metric=metric, value=value, memory_slots=slots, shots=shots, **more)


ROWS = [row(0, 1.0), row(4096, 2.0), row(65536, 4.0), row(4096, 3.0, kind="peer"), row(0, 9.0, model="other")]
TQA = [row(0, 11.0, "tqa", "f1"), row(4096, 12.0, "tqa", "f1"), row(4096, 2.5, "tqa", "nll")]


def curves(axis):
    """Label -> heights of the line."""
    return {
        label: list(handle.lines[0].get_ydata() if hasattr(handle, "lines") else handle.get_ydata())
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }


def test_a_line_for_each_base_and_kind_from_its_dense_model_on():
    figure = qa_figure([*ROWS, *TQA])
    nq, tqa = figure.axes
    assert curves(nq) == {"base, memory+": [1.0, 2.0, 4.0], "base, PEER": [1.0, 3.0], "other, dense": [9.0]}
    assert curves(tqa) == {"base, memory+": [11.0, 12.0]}
    assert nq.get_ylabel() == "exact match (%)" and tqa.get_ylabel() == "F1 (%)"
    assert not nq.child_axes and len(tqa.child_axes) == 1  # parameters of one base, by its memory sizes
    assert len(qa_figure(ROWS).axes) == 1


def test_published_curves_lie_in_both_panels():
    nq, tqa = qa_figure(ROWS, published=True).axes
    for axis, title in ((nq, "NQ exact match"), (tqa, "TQA F1")):
        for base in ("134m", "373m", "1.3b"):
            wanted = [point.value for point in published_curves()[base, title]]
            assert curves(axis)[f"published: {base}"] == wanted and len(wanted) >= 2
    assert "base, memory+" in curves(nq) and "base, memory+" not in curves(tqa)


def test_seeds_are_averaged_and_variants_refused():
    (point,) = lines_of(summarize([row(4096, 2.0, seed=0), row(4096, 4.0, seed=1)]))["base, memory+"]
    assert point.value == 3.0 and point.runs == 2
    with pytest.raises(MemxError, match="two models of base, memory"):
        qa_figure([row(4096, 2.0, variant="a"), row(4096, 4.0, variant="b")])
    with pytest.raises(MemxError, match="differ in the number of shots: 0, 5"):
        qa_figure([row(4096, 2.0), row(0, 2.0, shots=0)])
    with pytest.raises(MemxError, match="neither exact match of nq nor F1 of tqa"):
        qa_figure([row(0, 2.0, "tqa", "nll")])


def test_own_questions_have_a_panel_of_their_first_metric():
    asked = {"asked_with_seed": 0, "shots": 0}
    own = [row(0, 30.0, "mine", "rouge_score", **asked), row(0, 20.0, "mine", "exact_match", **asked)]
    own += [row(0, 2.0, "mine", "nll", **asked), row(0, 9.0, "mine", "answer_nll", **asked)]
    (axis,) = qa_figure(own).axes
    assert curves(axis) == {"base, dense": [30.0]} and axis.get_ylabel() == "rouge (%)"
    assert [axis.get_ylabel() for axis in qa_figure([*ROWS, *own]).axes] == ["exact match (%)", "rouge (%)"]
    table = qa_table([one for one in own if is_wanted(one)])
    assert table.columns[-1] == "rouge %" and table.lines[0][1] == "mine" and table.lines[0][-1] == "30.00 ±0.50"
    assert not is_wanted(own[3]) and not is_wanted(row(0, 1.0, "seen"))
    with pytest.raises(MemxError, match="some of these runs used --chat"):
        qa_figure([*own, row(4096, 1.0, "mine", "rouge_score", chat=True, **asked)])


def test_the_table_has_every_score():
    table = qa_table([*ROWS, *TQA])
    assert ["base, memory+", "tqa", "4,096", "", "12.00 ±0.50", "2.50 ±0.50"] in table.lines
    assert len(table.facts) == len(ROWS) + len(TQA)


def test_plot_writes_pictures_and_rows_and_says_what_is_missing(tmp_path):
    source, unrelated = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    write_rows(source, [*ROWS, *TQA])
    files, _ = draw("qa", PlotRequest([source], tmp_path / "out", "qa", ("svg",), options=PlotOptions(published=True)))
    assert [path.name for path in files] == ["qa.svg", "qa.rows.jsonl"]
    assert "published: 1.3b" in files[0].read_text()
    write_rows(unrelated, [row(0, 1.0, "seen")])
    with pytest.raises(MemxError) as told:
        draw("qa", PlotRequest([unrelated], tmp_path / "out", "qa"))
    assert "memx eval" in told.value.hint
    with pytest.raises(MemxError) as told:
        draw("memory", PlotRequest([source], tmp_path / "out", "memory"))
    assert "memx plot qa" in told.value.hint
