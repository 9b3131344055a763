"""Figures of evolutions: what metrics and answers say is drawn, seeds together, unfinished runs too."""

import json

import pytest
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.results.namm.evolution import course_labels, course_of, evolution_figure, evolution_table
from memx.results.namm.pareto import answers_of, is_answer, pareto_table
from memx.results.namm.pareto_figure import pareto_figure
from memx.results.plots import draw
from memx.results.selection import PlotRequest
from memx.results.store.rows import write_rows
from memx.results.store.runs import Run

from . import namm_rows as made
from .test_scores import line_of


def course(tmp_path, name="namm-00000001", **more):
    return course_of(Run(made.evolution_run(tmp_path / name, made.evolution_metrics(**more), seed=more.get("seed", 0))))


def test_a_course_is_drawn_by_generation_with_its_stages(tmp_path):
    one = course(tmp_path, generations=(20, 10), every=5)
    assert one.stages == [20] and one.chosen["step"] == 25 and not one.finished
    figure = evolution_figure([one], "about")
    fitness, validation, sigma, kept = figure.axes
    steps = list(range(1, 31))
    drawn = [line for line in fitness.lines if list(line.get_xdata()) == steps]
    assert [list(line.get_ydata()) for line in drawn] == [
        [g[name] for g in one.generations] for name in ("mean", "best")
    ]
    star = next(line for line in validation.lines if line.get_marker() == "*")
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([25], [one.chosen["validation"]])
    assert [list(line.get_xdata()) for line in validation.lines[:2]] == [[0, 5, 10, 15, 20], [20, 25, 30]]
    assert sigma.get_yscale() == "log" and kept.get_ylim() == (0, 105)
    assert list(kept.lines[0].get_ydata()) == pytest.approx([100 * g["kept"] for g in one.generations])
    for axis in figure.axes:
        assert [20, 20] in [list(line.get_xdata()) for line in axis.lines] and axis.texts[0].get_text() == "stage 2"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "best so far" in legend and "± one standard deviation" in legend


def test_runs_share_panels_and_are_told_apart(tmp_path):
    seeds = [course(tmp_path, f"namm-0000000{seed}", seed=seed) for seed in range(4)]
    assert course_labels(seeds) == ["seed 0", "seed 1", "seed 2", "seed 3"]
    other = course(tmp_path, "cheap-00000009", seed=1)
    assert course_labels([seeds[0], other]) == ["namm", "cheap"]
    assert course_labels([seeds[0], seeds[1], other]) == ["namm, seed 0", "namm, seed 1", "cheap, seed 1"]
    figure = evolution_figure(seeds, "about")
    assert not any(one.get_alpha() == 0.15 for one in figure.axes[0].collections)  # bands would hide each other
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries[-4:] == ["seed 0", "seed 1", "seed 2", "seed 3"] and "± one standard deviation" not in entries
    assert [fact["chosen"] for fact in evolution_table(seeds).facts] == [35] * 4


def test_metrics_with_gaps_and_runs_without_any(tmp_path):
    lines = made.evolution_metrics(generations=(4,), every=2)
    first = lines.pop(1)
    bare = {name: value for name, value in first.items() if name != "kept"}
    filled = course_of(Run(made.evolution_run(tmp_path / "a-00000001", [*lines, bare])))  # written after a kill
    assert [line["step"] for line in filled.generations] == [1, 2, 3, 4]
    kept = evolution_figure([filled], "about").axes[3].lines[0]
    assert list(kept.get_xdata()) == [2, 3, 4]
    begun = course_of(Run(made.evolution_run(tmp_path / "b-00000001", lines[:1])))
    assert begun.generations == [] and evolution_table([begun]).lines[0][1] == "0, unfinished"
    evolution_figure([begun], "about")
    made.evolution_run(tmp_path / "c" / "c-00000001", [])
    with pytest.raises(MemxError, match="no run here has finished a generation") as error:
        draw("evolution", PlotRequest([tmp_path / "c"], tmp_path / "out", "e"))
    assert "--resume" in error.value.hint


def test_of_a_folder_the_last_evolution_and_its_seeds_are_drawn(tmp_path):
    lines = made.evolution_metrics(generations=(4,), every=2)
    for started, (name, seed, price) in enumerate((("namm", 0, 0.1), ("namm", 1, 0.1), ("namm", 0, 0.3))):
        folder = tmp_path / "runs" / f"{name}-0000000{started}"
        made.evolution_run(folder, lines, seed=seed, started=str(9 - started), fitness={"price": price})
    told = []
    order = PlotRequest([tmp_path / "runs"], tmp_path / "out", "e", ["svg"], log=told.append)
    _, table = draw("evolution", order)
    assert [line[0] for line in table.lines] == ["namm-00000001", "namm-00000000"]
    assert told == ["drawn: namm-00000000, namm-00000001; not drawn: namm-00000002 (choose with --experiment)"]
    _, table = draw("evolution", PlotRequest([tmp_path / "runs"], tmp_path / "out", "e", ["svg"], "namm-00000002"))
    assert [line[0] for line in table.lines] == ["namm-00000002"]
    with pytest.raises(MemxError, match="unknown experiment 'x'"):
        draw("evolution", PlotRequest([tmp_path / "runs"], tmp_path / "out", "e", ["svg"], "x"))


FRONT = (("free-00000001", 0.95, 80.0), ("dear-00000002", 0.7, 20.0), ("poor-00000003", 0.6, 40.0))


def test_the_front_is_of_answers_and_the_full_cache():
    rows = [row for name, value, kept in FRONT for row in made.answer_rows(name, value, kept) if is_answer(row)]
    answers, split = answers_of(rows, print)
    assert split == "test" and [answer.run for answer in answers] == ["dear-00000002", "poor-00000003", "free-00000001"]
    (axis,) = pareto_figure(answers, split, rows).axes
    assert line_of(axis, "Pareto front") == ([20, 80, 100], [0.7, 0.95, 1])
    assert line_of(axis, "_poor-00000003") == ([40], [0.6])
    assert [text.get_text() for text in axis.texts] == ["dear", "poor", "free"]
    table = pareto_table(answers, split)
    assert [fact["front"] for fact in table.facts] == [True, False, True]
    assert table.lines[1] == ["poor-00000003", "0", "", "40.0 ±1.5", "0.60 ±0.06", "1.00 at 100%", ""]


def test_answers_without_test_prompts_are_compared_on_validation():
    told = []
    both = made.answer_rows("a-00000001", 0.9, 50, splits=("test", "validation"))
    rows = [row for row in [*both, *made.answer_rows("b-00000002", 0.8, 30, splits=("validation",))] if is_answer(row)]
    answers, split = answers_of(rows, told.append)
    assert split == "validation" and [answer.point.value for answer in answers] == pytest.approx([0.85, 0.95])
    assert told == ["using validation prompts: no test prompts in b-00000002"]
    scored = [row.model_copy(update={"metric": "relative_score"}) for row in rows if row.metric != "kept"]
    with pytest.raises(MemxError, match="these evolutions differ in kind of fitness"):
        answers_of([*rows, *scored], print)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "online"}, "differ in mode: online, post_hoc"),
        ({"n": 64}, "differ in number of test prompts: 32, 64"),
        ({"tasks": ("needles", "count")}, "differ in tasks: only some have count, quote"),
        ({"tasks": ()}, "differ in tasks: only some have needles, quote"),
        ({"model": "other"}, "differ in model: other, smollm2"),
    ],
)
def test_answers_of_other_prompts_or_modes_are_not_mixed(tmp_path, changes, message):
    first, other = made.answer_rows("a-00000001", 0.9, 50), made.answer_rows("b-00000002", 0.8, 30, **changes)
    write_rows(tmp_path / "both.jsonl", [*first, *other])
    with pytest.raises(MemxError, match=message) as refused:
        draw("pareto", PlotRequest([tmp_path / "both.jsonl"], tmp_path / "out", "f"))
    assert "give only run folders" in refused.value.hint and not (tmp_path / "out").exists()
    made.evolution_run(tmp_path / "runs" / "b-00000002", [], other, started="0")
    made.evolution_run(tmp_path / "runs" / "a-00000001", [], first, started="1")
    told = []
    _, table = draw("pareto", PlotRequest([tmp_path / "runs"], tmp_path / "out", "f", ["svg"], log=told.append))
    assert [line[0] for line in table.lines] == ["a-00000001"]
    assert told == ["drawn: a-00000001; not drawn: b-00000002 (choose with --experiment)"]


def test_points_are_named_by_what_they_evolved_under():
    under = [{"target": 0.4, "price": 0.0}, {"price": 0.3}, {"budget": 0.5, "price": 0.0}, {"price": 0.3, "seed": 1}]
    rows = [
        row for place, changes in enumerate(under)
        for row in made.answer_rows(f"namm-0000000{place}", 0.5 + 0.1 * place, 30.0 + 10 * place, **changes)
    ]  # fmt: skip
    rows += [*made.answer_rows("cheap-00000008", 0.4, 20, price=0.1), *made.answer_rows("old-00000009", 0.3, 10)]
    answers, split = answers_of([row for row in rows if is_answer(row)], print)
    (axis,) = pareto_figure(answers, split, rows).axes
    assert [text.get_text() for text in axis.texts] == ["old", "price 0.1", "target 0.4", "price 0.3", "budget 0.5"]
    assert [line[2] for line in pareto_table(answers, split).lines][2:] == [
        "target 0.4", "price 0.3", "budget 0.5", "price 0.3",
    ]  # fmt: skip
    rows += made.answer_rows("long-00000007", 0.9, 90, price=0.3)
    answers, split = answers_of([row for row in rows if is_answer(row)], print)
    (axis,) = pareto_figure(answers, split, rows).axes
    assert {"namm, price 0.3", "long, price 0.3", "price 0.1"} < {text.get_text() for text in axis.texts}


def test_a_front_of_a_folder_is_of_one_host(tmp_path):
    for number, (name, value, kept) in enumerate(FRONT):
        rows = made.answer_rows(name, value, kept)
        if name.startswith("poor"):
            rows = [row.model_copy(update={"model": "other"}) for row in rows]
        made.evolution_run(tmp_path / "runs" / name, [], rows, started=str(-number))
    told = []
    order = PlotRequest([tmp_path / "runs"], tmp_path / "out", "f", ["svg"], log=told.append)
    files, table = draw("pareto", order)
    assert [line[0] for line in table.lines] == ["dear-00000002", "free-00000001"] and files[-1].name == "f.rows.jsonl"
    assert "not drawn: poor-00000003" in told[0]
    again, same = draw("pareto", PlotRequest([files[-1]], tmp_path / "again", "f", ["svg"]))
    assert again[0].read_bytes() == files[0].read_bytes() and same == table


@pytest.mark.parametrize(
    ("rows", "arguments", "message", "hint"),
    [
        (made.evaluation(), ["memory"], "there are no rows to show", "memx plot namm`, layers or evicted"),
        (
            made.answer_rows("a-00000001", 0.9, 50),
            ["memory"],
            "there are no rows to show",
            "memx plot evolution` or pareto",
        ),
        (made.evaluation(), ["layers"], "there are no layers' caches here", "memx eval-namm RUN"),
        (made.answer_rows("a-00000001", 0.9, 50), ["namm"], "no policies' scores here", "memx eval-namm RUN"),
        (made.evaluation(), ["namm", "--metrics", "f1"], "--metrics: unknown metric f1", "exact"),
        (made.evaluation(), ["namm", "--metrics", "score"], "no policy here has score", "--metrics relative"),
        (made.evaluation(), ["pareto"], "no finished evolutions here", "memx plot evolution"),
        (made.evaluation(), ["evolution"], "there is no run of `memx evolve-namm` here", "run folder"),
        (made.kind_rows(), ["evicted", "--budget", "0.5"], "no NAMM was evaluated at 0.5", "own size"),
    ],
)
def test_wrong_sources_are_one_line_and_a_hint(capsys, tmp_path, rows, arguments, message, hint):
    write_rows(tmp_path / "rows.jsonl", rows)
    assert memx(["plot", *arguments, str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == "" and message in lines[0] and hint in lines[1] and len(lines) == 2
    assert not (tmp_path / "out").exists()


def test_the_command_prints_tables_and_json(capsys, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [*made.evaluation(), *made.layer_rows(), *made.kind_rows()])
    source = [str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--formats", "svg"]
    assert memx(["plot", "namm", *source, "--metrics", "exact"]) == 0
    told = capsys.readouterr().out
    assert "own size" in told and "SnapKV" in told and "namm.svg" in told and max(map(len, told.splitlines())) <= 160
    assert memx(["plot", "evicted", *source, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["table"][0]["policy"] == "namm" and found["files"][-1].endswith("evicted.rows.jsonl")
    assert memx(["plot", "evicted", found["files"][-1], "--out", str(tmp_path / "again")]) == 0
