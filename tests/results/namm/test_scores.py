"""Figures of NAMMs: they draw what rows and metrics say, their tables tell the same, and wrong sources get a hint."""

from itertools import pairwise
from statistics import fmean

import pytest
from memx.errors import MemxError
from memx.results.namm.curves import Point, curves, full_cache, pareto_front
from memx.results.namm.looks import evaluation_caption
from memx.results.namm.rows import prepared
from memx.results.namm.scores_figure import namm_figure
from memx.results.namm.scores_table import namm_table
from memx.results.plots import draw
from memx.results.selection import PlotOptions, PlotRequest
from memx.results.store.rows import read_rows, write_rows

from . import namm_rows as made

HELD, TRAINED, LIKELIHOOD = "held-out/all", "trained/all", "relative_log_likelihood"
SEEDS = (("namm a-00000001", 0, 0.1), ("namm a-00000002", 1, 0.2), ("namm a-00000003", 2, 0.3))
SHARES = [100 * budget - 0.1 for budget in sorted(made.BUDGETS)]


def line_of(axis, label):
    """What is drawn under a label: x and y of a line, or of the points of error bars."""
    found = [line for line in axis.lines if line.get_label() == label]
    found += [container.lines[0] for container in axis.containers if container.get_label() == label]
    (line,) = found
    return [float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]


def order(tmp_path, rows, **more):
    write_rows(tmp_path / "rows.jsonl", rows)
    return PlotRequest([tmp_path / "rows.jsonl"], tmp_path / "out", "f", ["svg"], **more)


def test_panels_hold_the_rows():
    rows = prepared(made.evaluation(presses=("kvpress SnapKVPress",)))
    figure = namm_figure(rows, [LIKELIHOOD, "exact"])
    held, trained, exact, _ = figure.axes
    assert [axis.get_title() for axis in (held, trained)] == ["Held-out tasks", "Trained tasks"]
    for axis, dataset, scale in ((held, HELD, 1), (trained, TRAINED, 1), (exact, HELD, made.EXACT)):
        for policy, loss in {"_namm": 0.2, "_namm per head": 0.25, "_tova": 0.45, "_kvpress SnapKVPress": 0.32}.items():
            x, y = line_of(axis, policy)
            assert x == pytest.approx(SHARES)
            assert y == pytest.approx([scale * made.score(loss, share / 100, dataset) for share in SHARES])
        assert line_of(axis, "full cache")[1] == [scale, scale]
        x, y = line_of(axis, "NAMM at its own cache size")
        assert x == [made.OWN + made.HELD] and y == pytest.approx([scale * made.score(0.2, made.OWN / 100, dataset)])
        assert line_of(axis, "_h2o, own size")[0] == [made.OWN + made.HELD]
        assert axis.get_ylim()[0] == 0 and axis.get_xlabel() == "share of the cache kept, in bytes (log scale)"
    assert [tick.get_text() for tick in held.get_xticklabels()] == ["100%", "75%", "50%", "25%", "12.5%"]
    (band,) = [one for one in held.collections if one.get_alpha() == 0.16]
    ends = band.get_paths()[0].vertices[:, 1]
    assert ends.max() == pytest.approx(made.score(0.2, SHARES[-1] / 100, HELD) + 0.05)
    said = figure.legends[0].get_title().get_text().splitlines()
    assert said[1].startswith("96 test prompts of held-out tasks · 96 test prompts of trained tasks")
    assert (
        said[2]
        == "NAMM: layers may keep different shares; NAMM per head and other policies: the same share in every head"
    )
    dashed = {container.get_label(): container.lines[0].get_linestyle() for container in held.containers}
    assert dashed["_kvpress SnapKVPress"] == "--" and dashed["_snapkv"] == "-"


def test_budgets_in_tokens_are_drawn_by_tokens_and_shares_are_left_out(tmp_path):
    plain = made.evaluation(own=None, budgets=(0.5, 0.25))
    tokens = [row.model_copy(update={"budget": 512 * row.labels.budget}) if row.labels.budget else row for row in plain]
    shares = [row for row in made.evaluation(own=None, budgets=(0.25,)) if row.variant != "full"]
    told: list[str] = []
    draw("namm", order(tmp_path, [*tokens, *shares], log=told.append))
    assert any("not drawn: 25%, as other budgets are in tokens" in line for line in told)
    axis = namm_figure(prepared(tokens), [LIKELIHOOD]).axes[0]
    assert line_of(axis, "_namm")[0] == [128, 256] and axis.get_xlabel().startswith("tokens that each head may hold")
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["256", "128"]
    sizes = {line[0] for line in namm_table(prepared(tokens), [LIKELIHOOD]).lines}
    assert sizes == {"full cache", "256 tokens", "128 tokens"}
    sized = [("full", 100.0, 1.0), ("512", 100.0, 1.0), ("256", 100.0, 0.9), ("64", 60.0, 0.4), ("32", 60.0, 0.4)]
    points = [Point("p", size, kept, value, None, None, 1) for size, kept, value in sized]
    assert [point.size for point in pareto_front(points)] == ["32", "256", "512"]  # as good with fewer tokens


def test_names_of_lines_do_not_touch_and_stay_in_the_panel():
    rows = prepared(made.evaluation(presses=tuple(made.PRESSES)))
    figure = namm_figure(rows, [LIKELIHOOD])
    figure.canvas.draw()
    for axis in figure.axes:
        boxes = sorted((text.get_window_extent() for text in axis.texts), key=lambda box: box.y0)
        assert len(boxes) == 11 and all(low.y1 <= high.y0 + 0.5 for low, high in pairwise(boxes))
        panel = axis.get_window_extent()
        assert panel.y0 <= boxes[0].y0 and boxes[-1].y1 <= panel.y1 and all(box.x0 > panel.x0 for box in boxes)


def test_the_table_tells_each_size_and_the_front():
    over = [made.over_rival(HELD, 0.25, 0.1, "snapkv"), made.over_rival(HELD, None, -0.2, "tova")]
    table = namm_table(prepared([*made.evaluation(), *over]), [LIKELIHOOD, "exact"])
    assert all(len(line) == len(table.columns) for line in table.lines)
    facts = {(fact["policy"], fact["size"]): fact for fact in table.facts}
    assert list(dict.fromkeys(size for _, size in facts)) == ["full", "0.75", "0.5", "0.25", "0.125", "own"]
    assert facts["namm", "0.25"]["held-out"][LIKELIHOOD]["value"] == pytest.approx(made.score(0.2, 0.249, HELD))
    on = {key for key, fact in facts.items() if fact["held-out"]["exact"]["front"]}
    assert on == {("full", "full"), *(("namm", size) for size in ("0.75", "0.5", "0.25", "0.125", "own"))}
    assert (facts["namm", "own"]["held"], facts["namm", "own"]["kept"]) == (made.OWN + made.HELD, made.OWN)
    assert facts["namm", "own"]["held-out"]["log_likelihood_over_best_rival"]["rival"] == "tova"
    lines = {(line[0], line[1]): line for line in table.lines}
    assert lines["25%", "NAMM"][-2:] == ["+0.100 [+0.080, +0.130] SnapKV", ""] and lines["own size", "NAMM"][2:4] == [
        "40.0",
        "34.0",
    ]
    assert table.columns[2:4] == ["cache size %", "tokens kept %"] and lines["own size", "TOVA"][2:4] == [
        "40.0",
        "40.0",
    ]
    assert lines["50%", "H2O"][5] == f"{made.EXACT * made.score(0.5, 0.499, HELD):.1f} ±5.0  "


def test_the_table_s_cache_sizes_are_those_over_all_prompts():
    rows = made.evaluation()
    own = [row for row in rows if (row.dataset, row.variant, row.labels.size) == (HELD, "namm", "own")]
    over_all = {"held": 8.9, "kept": 7.9}
    rows += [
        row.model_copy(update={"dataset": "all/all", "value": over_all[row.metric], "low": None, "high": None})
        for row in own
        if row.metric in over_all
    ]
    table = namm_table(prepared(rows), [LIKELIHOOD, "exact"])
    (line,) = [line for line in table.lines if (line[0], line[1]) == ("own size", "NAMM")]
    assert line[2:4] == ["8.9", "7.9"]


def test_a_front_is_of_points_that_nothing_beats():
    def point(name, kept, value):
        return Point(name, "", kept, value, None, None, 1)

    points = [point("a", 50, 0.9), point("b", 50, 0.8), point("c", 25, 0.8), point("d", 25, 0.8), point("e", 60, 0.9)]
    assert [one.policy for one in pareto_front(points)] == ["c", "d", "a"]
    assert [one.policy for one in pareto_front(points, rises=False)] == ["c", "d"]


def test_seeds_of_a_namm_are_one_line_with_students_t():
    rows = prepared(made.evaluation(namms=(*SEEDS, ("namm cheap", 0, 0.5))))
    first, second, alike, other, *rivals = curves(rows, HELD, "exact")
    assert (first.policy, second.policy) == ("namm a", "namm cheap") and len(rivals) == len(made.LOSS)
    assert (alike.policy, other.policy) == ("namm a per head", "namm cheap per head") and len(alike.members) == 3
    half = first.points[1]
    values = [made.EXACT * made.score(loss, 0.249, HELD) for _, _, loss in SEEDS]
    assert half.values == pytest.approx(values) and half.value == pytest.approx(values[1])
    assert half.high - half.value == pytest.approx(4.303 * (values[0] - values[1]) / 3**0.5, rel=1e-3)
    assert len(first.members) == 3 and not second.members
    assert {(point.size, point.kept, point.share) for point in first.own} == {
        ("own namm a", made.OWN + 1, made.OWN + 1 + made.HELD)
    }
    tova = next(curve for curve in rivals if curve.policy == "tova")
    assert [(point.size, point.kept) for point in tova.own] == [
        ("own namm a", made.OWN + 1 + made.HELD),
        ("own namm cheap", made.OWN + made.HELD),
    ]
    assert tova.own[0].high - tova.own[0].value == pytest.approx(5.0)  # of prompts, which are the same ones
    (axis, _) = namm_figure(rows, ["exact"]).axes
    assert line_of(axis, "_namm a")[1][1] == pytest.approx(values[1])
    assert [text.get_text() for text in axis.texts][:4] == [
        "NAMM a", "NAMM cheap", "NAMM a per head", "NAMM cheap per head",
    ]  # fmt: skip
    same = prepared(made.evaluation(namms=(("namm a-00000001", 0, 0.1), ("namm a-00000002", 0, 0.2))))
    assert [curve.policy for curve in curves(same, HELD, "exact")][:2] == ["namm a-00000001", "namm a-00000002"]


def test_the_full_cache_holds_what_its_rows_say_and_shares_in_bytes_are_told_by_all_or_none():
    rows = [
        row.model_copy(update={"value": 80.0 + 5 * (row.metric == "held")})
        if row.variant == "full" and row.metric in ("kept", "held") else row
        for row in made.evaluation()
    ]  # fmt: skip
    full = full_cache(prepared(rows), HELD, "exact")
    assert (full.kept, full.held, full.share, full.value) == (80.0, 85.0, 85.0, made.EXACT)
    lines = {(line[0], line[1]): line for line in namm_table(prepared(rows), ["exact"]).lines}
    assert lines["full cache", "full cache"][2:4] == ["85.0", "80.0"]
    older = prepared([row for row in rows if row.metric != "held" or row.variant != "tova"])
    assert full_cache(older, HELD, "exact").share == 80.0
    (namm, *_) = curves(older, HELD, "exact")
    assert [point.share for point in namm.own] == [made.OWN]
    (axis, _) = namm_figure(older, ["exact"]).axes
    assert axis.get_xlabel() == "share of the cache kept (log scale)"
    assert "cache size %" not in namm_table(older, ["exact"]).columns


def test_what_is_missing_is_left_out(tmp_path):
    told = []
    alone = made.evaluation(policies=("random",), namms=(), budgets=(0.5,), datasets=("all/all",), own=None)
    options = PlotOptions(metrics=["score", "exact"])
    files, table = draw("namm", order(tmp_path, alone, log=told.append, options=options))
    assert table.columns == ["size", "policy", "cache size %", "tokens kept %", "all\nexact match %"]
    assert [line[:2] for line in table.lines] == [["full cache", "full cache"], ["50%", "random"]]
    assert told == ["not drawn: no policy here has score", "there is no NAMM among these policies"]
    assert [path.name for path in files] == ["f.svg", "f.rows.jsonl"] and read_rows(files[-1]) == alone
    ragged = [r for r in made.evaluation() if not (r.variant == "tova" and r.model_extra["budget"] == 0.25)]
    rows = prepared([r for r in ragged if r.variant != "full" and r.dataset == HELD])
    (axis,) = namm_figure(rows, ["exact"]).axes
    assert len(line_of(axis, "_tova")[0]) == 3 and full_cache(rows, HELD, "exact") is None
    bare = prepared(
        [
            r.model_copy(update={"low": None, "high": None})
            for r in made.evaluation()
            if r.metric not in ("kept", "held")
        ]
    )
    (axis, _) = namm_figure(bare, ["exact"]).axes
    assert line_of(axis, "_namm")[0] == pytest.approx([12.5, 25, 50, 75])  # not measured: the budget


def test_namms_with_as_many_seeds_each_are_named_once_below_the_figure():
    namms = [(f"namm {name}-{seed}{'0' * 7}", seed, 0.1 * seed) for name in ("one", "other") for seed in range(3)]
    said = namm_figure(prepared(made.evaluation(namms=namms)), [LIKELIHOOD]).figure.legends[0].get_title().get_text()
    assert "95% CI over prompts, NAMMs: over 3 seeds (thin lines)" in said


def test_axes_hold_every_score_and_say_when_intervals_are_cut():
    rows = prepared(made.evaluation(namms=(("namm a", 0, -0.3), ("namm a seed1", 1, 0.8), ("namm a seed2", 2, 0.7))))
    figure = namm_figure(rows, [LIKELIHOOD])
    low, high = figure.axes[0].get_ylim()
    assert low == 0 and max(line_of(figure.axes[0], "_namm a")[1]) < high < 2
    said = figure.legends[0].get_title().get_text()
    assert (
        "NAMM: over 3 seeds (thin lines) (widest intervals clipped)" in said
        and "96 test prompts of held-out tasks" in said
    )
    nothing = [
        r.model_copy(update={"value": 0.0, "low": 0.0, "high": 0.0}) for r in rows if r.metric not in ("kept", "held")
    ]
    figure = namm_figure([r.model_copy(update={"model": "/some/folder/host"}) for r in nothing], ["exact"])
    assert figure.axes[0].get_ylim()[1] == pytest.approx(10.4)
    assert " · host · evicted once after prefill · " in figure.legends[0].get_title().get_text()
    moved = [r.model_copy(update={"evolved_on": "/other/llama"}) for r in rows]
    assert "smollm2 · NAMM evolved on llama · " in namm_figure(moved, ["exact"]).legends[0].get_title().get_text()
    rows = prepared(made.evaluation(datasets=(HELD,)))
    assert len(namm_figure(rows, [LIKELIHOOD, "exact", "lost_nats"]).axes) == 3
    assert namm_figure(rows, ["log_likelihood"]).axes[0].get_ylim()[1] == 0


def test_evaluations_that_do_not_belong_together_are_refused():
    online = made.evaluation(mode="online", run="other-00000002")
    with pytest.raises(MemxError, match="these evaluations differ in mode: online, post_hoc"):
        prepared([*made.evaluation(), *online])
    with pytest.raises(MemxError, match="these evaluations differ in split: test, train"):
        prepared([*made.evaluation(), *made.evaluation(split="train", run="other-00000002")])
    first = [row.model_copy(update={"question": "before"}) for row in made.evaluation(run="other-00000002")]
    with pytest.raises(MemxError, match="these evaluations differ in question: after, before"):
        prepared([*made.evaluation(), *first])  # of which the former, of an older version, do not tell
    assert " · question read before eviction · " in evaluation_caption(first)
    others = made.evaluation(run="other-00000002", namms=(("namm", 1, 0.4),))
    assert len({r.seed for r in prepared([*made.evaluation(), *others]) if r.variant == "namm"}) == 2
    wrong = made.evaluation(run="other-00000002", namms=(("namm", 0, 0.4),))
    with pytest.raises(MemxError, match="eval-00000001 and other-00000002 disagree on namm at 75%"):
        prepared([*made.evaluation(), *wrong])


def test_some_policies_are_drawn_alone_and_the_rows_stay_whole(tmp_path):
    rows = made.evaluation()
    request = order(tmp_path, rows, options=PlotOptions(policies=("namm", "tova")))
    files, table = draw("namm", request)
    assert {fact["policy"] for fact in table.facts} == {"full", "namm", "tova"}
    assert {row.variant for row in read_rows(files[-1])} == {row.variant for row in rows}
    wrong = order(tmp_path, rows, options=PlotOptions(policies=("tovva",)))
    with pytest.raises(MemxError, match="--policies: no policy 'tovva' here") as raised:
        draw("namm", wrong)
    assert "tova" in raised.value.hint


def test_two_seeds_have_an_interval_over_prompts():
    rows = prepared(made.evaluation(namms=SEEDS[:2]))
    half = next(curve for curve in curves(rows, HELD, "exact") if curve.policy == "namm a").points[1]
    own = [row for row in rows if (row.variant, row.dataset, row.metric) == ("namm a", HELD, "exact")]
    bounds = [(row.low, row.high) for row in own if row.labels.budget == 0.25]
    assert len(half.values) == 2 and (half.low, half.high) == pytest.approx(
        [fmean(ends) for ends in zip(*bounds, strict=True)]
    )
    assert "seeds" not in namm_figure(rows, ["exact"]).legends[0].get_title().get_text()
