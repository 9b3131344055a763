"""The figure of what training changed: means over trained models, paired changes, policies that are asked for."""

import pytest
from memx.errors import MemxError
from memx.results.namm.before_after import AFTER, BEFORE, CHANGE, before_after_figure, before_after_table, changes
from memx.results.plots import draw
from memx.results.selection import PlotOptions
from memx.results.store.rows import Row

from . import namm_rows as made
from .test_scores import line_of, order

BUDGETS = (0.25, 0.125)


def trained(seed: int, gain: float) -> list[Row]:
    """Rows of a model that answers better at small sizes by `gain`, and as before with the full cache."""
    common = dict(
        run=f"eval-{seed:08}", experiment=f"eval-{seed:08}", kind="eviction", model=f"seed{seed}", n=40, size="budget",
        mode="post_hoc", length=512, every=512, split="test", device="cpu", dataset="held-out/all",
    )  # fmt: skip
    rows = []
    for policy, budget in (("full", None), *((name, one) for name in ("namm global", "keydiff") for one in BUDGETS)):
        before = 1.0 if budget is None else 0.5 + budget
        change = 0.0 if budget is None else gain
        for metric, value in ((BEFORE, before), (AFTER, before + change), (CHANGE, change)):
            more = dict(variant=policy, budget=budget, metric=metric, value=value, low=value - 0.1, high=value + 0.1)
            rows.append(Row(**common, **more))
    return rows


def test_lines_are_means_over_trained_models_with_each_of_them():
    rows = [*trained(0, 0.1), *trained(1, 0.2)]
    found = [one for one in changes(rows) if one.policy != "keydiff"]
    (axis,) = before_after_figure(rows, found).axes
    assert line_of(axis, "NAMM global, before") == ([12.5, 25.0, 100.0], pytest.approx([0.625, 0.75, 1.0]))
    assert line_of(axis, "NAMM global, after")[1] == pytest.approx([0.775, 0.9, 1.0])
    thin = [list(line.get_ydata()) for line in axis.lines if line.get_linewidth() < 1]
    assert thin == [pytest.approx([0.725, 0.85, 1.0]), pytest.approx([0.825, 0.95, 1.0])]
    lines = {(line[1], line[2]): line[3:] for line in before_after_table(found).lines}
    before, after, change, models, prompts = lines["NAMM global", "25%"]
    assert (before, after, models, prompts) == ("0.750", "0.900", "2", "40")
    assert change.startswith("+0.150") and "0.15" in change  # from the lowest to the highest end of both


def test_all_baselines_are_drawn_where_they_are_named(tmp_path):
    rows = trained(0, 0.1)
    drawn = draw("before-after", order(tmp_path, rows, options=PlotOptions(policies=("keydiff",))))
    assert {line[1] for line in drawn.table.lines} == {"KeyDiff", "full cache"}
    assert all(path.is_file() for path in drawn.files)
    with pytest.raises(MemxError, match="no policy 'keydif' here"):
        draw("before-after", order(tmp_path, rows, options=PlotOptions(policies=("keydif",))))


def test_an_evaluation_without_a_comparison_is_refused(tmp_path):
    with pytest.raises(MemxError, match="no comparisons with a model before training"):
        draw("before-after", order(tmp_path, made.evaluation()))
    assert not (tmp_path / "out").exists()
