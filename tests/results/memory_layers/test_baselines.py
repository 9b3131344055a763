"""The rivals' figure and table: dense models by compute, memories by kind, and the compute that each is worth."""

from math import inf

import pytest
from memx.errors import MemxError
from memx.results.memory_layers.baselines import baselines_table, bases_of, dense_worth
from memx.results.memory_layers.baselines_figure import baselines_figure
from memx.results.plots import draw
from memx.results.selection import PlotOptions, PlotRequest
from memx.results.store.rows import Row, read_rows, write_rows
from memx.results.style import KIND_COLOURS, spread

# kind, variant, slots, total parameters, FLOPs, exact match
RIVALS = [
    ("dense", "dense", 0, 300_000, 1000, 20.0),
    ("dense", "dense x4", 0, 1_200_000, 4000, 40.0),
    ("memory", "memory 4k", 4096, 600_000, 1000, 25.0),
    ("memory", "memory 16k", 16384, 1_400_000, 1000, 30.0),
    ("memory+", "memory+ 4k", 4096, 600_000, 1000, 50.0),
    ("moe", "moe 4", 0, 700_000, 1000, 15.0),
]


def row(**changes) -> Row:
    settings = dict(
        run="r", experiment="e", kind="memory", model="llama-4x64", dataset="rephrased", metric="exact_match",
        value=50.0, n=100, memory_slots=1024, parameters_total=10_000, flops=1000,
    )  # fmt: skip
    return Row(**{**settings, **changes})


def rival_rows(models=("llama-4x64",), seeds=(0,), variants=True):
    return [
        row(
            run=f"{model}-{variant}-{seed}", model=model, kind=kind, variant=variant if variants else "",
            memory_slots=slots, parameters_total=total, flops=flops * scale, seed=seed, metric=metric,
            value=7.0 if metric.startswith("chance") else value + seed,
            low=None if metric.startswith("chance") else value - 5, high=value + 5,
        )
        for scale, model in enumerate(models, start=1)
        for kind, variant, slots, total, flops, value in RIVALS
        for seed in seeds
        for metric in ("exact_match", "chance_exact_match")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "times", "said"),
    [(20.0, 1.0, "1x"), (30.0, 2.0, "2x"), (40.0, 4.0, "4x"), (40.1, inf, ">4x"), (19.9, 0.0, "<1x")],
)
def test_the_dense_line_is_linear_in_log_flops(accuracy, times, said):
    worth = dense_worth([(4000, 40.0), (1000, 20.0)], accuracy, 1000)
    assert worth.times == pytest.approx(times) and str(worth) == said


def test_worth_counts_the_models_own_flops_and_the_first_time_the_line_is_there():
    line = [(1000, 20.0), (2000, 30.0), (4000, 25.0), (8000, 30.0)]
    assert dense_worth(line, 30.0, 500).times == pytest.approx(4.0)
    assert dense_worth(line, 25.0, 1000).times == pytest.approx(2**0.5)
    assert str(dense_worth([(1000, 20.0)], 21.0, 800)) == ">1.25x"


def test_the_table_of_rivals_names_the_best_of_each_kind():
    table = baselines_table(bases_of(rival_rows(), "rephrased"), "rephrased")
    facts = {fact["kind"]: fact for fact in table.facts}
    assert [fact["variant"] for fact in table.facts] == ["memory 16k", "memory+ 4k", "moe 4"]
    assert facts["memory"]["times_compute"] == pytest.approx(2.0) and facts["memory"]["gain"] == 10.0
    assert facts["memory"]["times_range"] == ["1.4x", "2.8x"]
    assert facts["memory+"]["times_compute"] is None and facts["memory+"]["times_said"] == ">4x"
    assert facts["moe"]["times_said"] == "<1x" and facts["moe"]["gain"] == -5.0
    assert table.lines[0][-2:] == ["2x", "1.4x to 2.8x"]
    assert table.lines[1][-2] == ">4x (above the largest measured)"
    assert all(len(line) == len(table.columns) for line in table.lines)


def test_the_rivals_figure_holds_the_rows():
    rows = rival_rows(seeds=(0, 1, 2))
    left, right = baselines_figure(rows, bases_of(rows, "rephrased"), "rephrased").axes[:2]
    by_kind = {container.get_label(): container.lines[0] for container in left.containers}
    assert list(by_kind) == ["memory", "memory+", "MoE"]
    assert list(by_kind["memory"].get_xdata()) == [600_000, 1_400_000]
    assert list(by_kind["memory"].get_ydata()) == [26.0, 31.0]
    dashed = [line.get_ydata()[0] for line in left.lines if line.get_linestyle() == "--"]
    assert dashed == [21.0, 41.0]
    assert [text.get_text() for text in left.texts] == ["dense, 1x FLOPs", "dense, 4x FLOPs", "first-letter guess 7%"]
    assert [line.get_ydata()[0] for line in left.lines if line.get_linestyle() == ":"] == [7.0]
    legend = [text.get_text() for text in left.figure.legends[0].get_texts()]
    assert legend[-1] == "guess by relation and first letter (paraphrased)"
    dense = {container.get_label(): container.lines[0] for container in right.containers}["dense"]
    assert (list(dense.get_xdata()), list(dense.get_ydata())) == ([1000, 4000], [21.0, 41.0])
    guides = {line.get_color(): line.get_xdata() for line in right.lines if line.get_zorder() == 1}
    assert list(guides[KIND_COLOURS["memory"]]) == pytest.approx([1000, 2000])  # ends on the dense line
    assert list(guides[KIND_COLOURS["memory+"]]) == [1000, 4000]
    assert KIND_COLOURS["moe"] not in guides
    caption = left.figure.legends[0].get_title().get_text()
    assert "memory 2x, memory+ >4x, MoE <1x" in caption and "mean of 3 seeds" in caption


def test_each_base_has_its_panels_and_its_own_dense_model():
    rows = rival_rows(models=("llama-4x64", "llama-4x128"))
    bases = bases_of(rows, "rephrased")
    assert [base.name for base in bases] == ["llama-4x64", "llama-4x128"]
    assert [base.reference.flops for base in bases] == [1000, 2000]
    figure = baselines_figure(rows, bases, "rephrased")
    assert [axis.get_title() for axis in figure.axes[2:4]] == [
        "llama-4x128: accuracy by parameters", "llama-4x128: accuracy by compute",
    ]  # fmt: skip
    table = baselines_table(bases, "rephrased")
    assert table.columns[0] == "base" and [line[0] for line in table.lines] == ["llama-4x64"] * 3 + ["llama-4x128"] * 3


def test_1x_is_the_dense_model_that_costs_what_memories_cost():
    rows = [*rival_rows(), row(run="small", kind="dense", variant="dense x0.5", memory_slots=0, flops=500, value=10.0)]
    (base,) = bases_of(rows, "rephrased")
    assert [s.flops for s in base.dense] == [500, 1000, 4000] and base.reference.variant == "dense"


def test_rivals_without_dense_models_or_variants_still_draw():
    kept = [r for r in rival_rows() if r.kind != "dense"]
    bases = bases_of(kept, "rephrased")
    assert {line[-2] for line in baselines_table(bases, "rephrased").lines} == {"no dense"}
    baselines_figure(kept, bases, "rephrased")
    old = [r for r in rival_rows(variants=False) if r.flops == 1000]
    lines = baselines_table(bases_of(old, "rephrased"), "rephrased").lines
    assert [line[0] for line in lines] == ["memory 16,384", "memory+ 4,096", "MoE"]


def test_labels_are_spread_and_stay_in_order():
    assert spread([0, 10, 20], 5) == [0, 10, 20]
    moved = spread([10.0, 10.0, 11.0, 30.0], 4)
    assert moved == pytest.approx([19 / 3, 31 / 3, 43 / 3, 30.0])


def test_rivals_that_cannot_be_drawn(tmp_path):
    dense = [r for r in rival_rows() if r.kind == "dense"]
    with pytest.raises(MemxError, match="no memory model here was evaluated on the rephrased questions"):
        bases_of(dense, "rephrased")
    with pytest.raises(MemxError, match="have no parameter count or FLOPs"):
        bases_of([row(flops=None)], "rephrased")
    write_rows(tmp_path / "rows.jsonl", rival_rows())
    with pytest.raises(MemxError, match="no memory model here was evaluated on the seen questions"):
        draw("baselines", PlotRequest([tmp_path / "rows.jsonl"], tmp_path, "r", options=PlotOptions(tier="seen")))
    assert not list(tmp_path.glob("*.png"))


def test_rivals_are_written_with_their_rows_and_draw_again(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [*rival_rows(), row(dataset="seen/x"), row(metric="f1")])
    files, table = draw("baselines", PlotRequest([tmp_path / "rows.jsonl"], tmp_path / "out", "r", ["svg"]))
    assert [path.name for path in files] == ["r.svg", "r.rows.jsonl"]
    assert read_rows(files[-1]) == rival_rows()
    again, same = draw("baselines", PlotRequest([files[-1]], tmp_path / "again", "r", ["svg"]))
    assert again[0].read_bytes() == files[0].read_bytes() and same == table
