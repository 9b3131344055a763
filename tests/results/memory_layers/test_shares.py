"""The curve by share: read from rows, averaged over seeds, compared with share 0, drawn and written as a table."""

import pytest
from memx.errors import MemxError
from memx.results.memory_layers.shares import curves_of, shares_of, shares_table
from memx.results.memory_layers.shares_figure import shares_figure
from memx.results.store.rows import Row


def row(share, seed, value, dataset="text/python-docs", metric="nll", kinds=("engram", "moe"), **more) -> Row:
    shares = ", ".join(f"{kind} {part:g}" for kind, part in zip(kinds, (share, 1 - share), strict=True))
    about = dict(run="r", experiment="e", kind="engram", model="m", n=1, parameters_total=10**6, flops=10**6)
    return Row(**about, dataset=dataset, metric=metric, value=value, seed=seed, shares=shares, **more)


ROWS = [
    row(share, seed, value + 0.1 * seed, dataset, metric)
    for dataset, metric, values in (
        ("text/python-docs", "nll", {0: 4.3, 0.5: 4.0, 1: 3.9}),
        ("rephrased", "nll", {0: 0.9, 0.5: 0.2, 1: 0.3}),
        ("rephrased", "exact_match", {0: 20.0, 0.5: 90.0, 1: 88.0}),
        ("seen", "exact_match", {0: 21.0, 0.5: 91.0, 1: 89.0}),
    )
    for share, value in values.items()
    for seed in (0, 1, 2)
]


def test_shares_are_read_from_what_rows_say():
    assert shares_of(ROWS[0]) == {"engram": 0.0, "moe": 1.0}
    plain = ROWS[0].model_copy(update={"shares": ""})
    assert shares_of(plain) == {}


def test_points_are_means_over_seeds_and_differences_are_paired():
    curves = {(curve.dataset, curve.metric): curve for curve in curves_of(ROWS, "rephrased")}
    assert len(curves) == 3  # the tier, and text
    text = curves["text/python-docs", "nll"]
    assert text.name == "engram against moe" and [point.share for point in text.points] == [0, 0.5, 1]
    assert text.points[1].mean == pytest.approx(4.1) and text.points[0].difference is None
    assert text.points[2].difference[0] == pytest.approx(-0.4)
    assert text.points[2].difference[1:] == pytest.approx((-0.4, -0.4), abs=1e-9)  # every seed differs by the same


def test_the_table_and_the_figure_have_every_share():
    more = [row(share, 0, 4.2, kinds=("memory+", "moe")) for share in (0.25, 0.75)]
    curves = curves_of([*ROWS, *more], "rephrased")
    table = shares_table(curves, "rephrased")
    assert [line[1] for line in table.lines] == ["0%", "50%", "100%", "25%", "75%"]
    assert all(len(line) == len(table.columns) for line in table.lines)
    figure = shares_figure([*ROWS, *more], curves, "rephrased")
    assert len(figure.axes) == 3


def test_runs_of_one_share_have_no_curve():
    with pytest.raises(MemxError, match="no two shares"):
        curves_of([row(0.5, seed, 4.0) for seed in (0, 1)], "rephrased")
