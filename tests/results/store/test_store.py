"""Rows, the run store and figures: what is written can be read, and nothing is ever half-written or overwritten."""

import json
from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.files import write_atomically
from memx.results.collecting import collect_rows
from memx.results.labels import short
from memx.results.memory_layers.slots import SlotAxis, memory_figure
from memx.results.plots import draw
from memx.results.published import published_curves, published_points
from memx.results.selection import PlotOptions, PlotRequest
from memx.results.store.rows import Row, read_rows, write_rows
from memx.results.store.runs import Run, RunStore
from memx.results.summary import check_alike, choose_experiment, summarize


def row(**changes) -> Row:
    settings = dict(
        run="r", experiment="e", kind="memory", model="m", dataset="seen", metric="exact_match",
        value=50.0, n=100, low=40.0, high=60.0, memory_slots=1024, parameters_total=10_000,
    )  # fmt: skip
    return Row(**{**settings, **changes})


def sweep_rows(seeds=(0,), experiment="e"):
    return [
        row(run=f"{experiment}-{slots}-{seed}", experiment=experiment, dataset=tier, metric=metric,
            memory_slots=slots, seed=seed,
            kind="memory" if slots else "dense", parameters_total=300_000 + 64 * slots,
            value=10.0 + slots / 4096 + seed, low=9.0 + slots / 4096, high=11.0 + slots / 4096)
        for tier in ("seen", "rephrased", "unseen")
        for metric in ("exact_match", "f1", "nll", "chance_exact_match")
        for slots in (0, 4096, 16384, 65536)
        for seed in seeds
    ]  # fmt: skip


def test_rows_survive_a_file(tmp_path):
    rows = sweep_rows()
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_a_row_has_the_contracts_names():
    wanted = {"run", "kind", "dataset", "metric", "value", "n", "memory_slots", "parameters_total",
              "parameters_active", "seed"}  # fmt: skip
    assert wanted <= set(json.loads(row().model_dump_json()))


@pytest.mark.parametrize(
    ("line", "message"), [("{", "line 2 is not JSON"), ('{"run": 1}', "line 2 is not a valid row: ")]
)
def test_damaged_rows_are_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(row().model_dump_json() + "\n" + line + "\n")
    with pytest.raises(MemxError, match=message):
        read_rows(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f.txt"
    write_atomically(path, "old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MemxError, match="No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_a_seeds_interval_is_students_t():
    rows = [row(value=value, seed=seed, low=0, high=100) for seed, value in enumerate((10.0, 12.0, 14.0))]
    (summary,) = summarize(rows)
    assert summary.value == 12 and summary.runs == 3 and summary.n == 300
    assert summary.high - summary.value == pytest.approx(4.303 * 2 / 3**0.5)
    (single,) = summarize(rows[:1])
    assert (single.low, single.high) == (0, 100)


def test_the_last_experiment_is_chosen_and_any_by_name():
    old, longer, new = "old-00000001", "old-3seeds-00000002", "new-00000003"
    rows = [*sweep_rows(experiment=old), *sweep_rows(experiment=longer), *sweep_rows(experiment=new)]
    assert {r.experiment for r in choose_experiment(rows, None)} == {new}
    assert {r.experiment for r in choose_experiment(rows, "old")} == {old}
    assert {r.experiment for r in choose_experiment(rows, longer)} == {longer}
    with pytest.raises(MemxError, match="unknown experiment 'x'"):
        choose_experiment(rows, "x")
    with pytest.raises(MemxError, match="no rows"):
        choose_experiment([], None)


def test_runs_that_differ_in_something_else_are_not_averaged():
    rows = [row(run="lr-1"), row(run="lr-2")]
    with pytest.raises(MemxError, match="runs lr-1 and lr-2 have the same memory and seed"):
        check_alike(rows)


def test_variants_and_bases_are_points_of_their_own():
    rows = [
        row(run=f"{v}-{m}", variant=v, model=m, value=i)
        for i, (v, m) in enumerate([("a", "x"), ("b", "x"), ("b", "y")])
    ]
    check_alike(rows)
    assert [(s.variant, s.model, s.value, s.seeds) for s in summarize(rows)] == [
        ("a", "x", 0, (0,)), ("b", "x", 1, (0,)), ("b", "y", 2, (0,)),
    ]  # fmt: skip
    with pytest.raises(MemxError, match="runs a-x and again have the same memory and seed"):
        check_alike([*rows, row(run="again", variant="a", model="x")])


def test_models_that_would_share_a_line_are_refused():
    kinds = [row(run=k, kind=k, memory_slots=s) for k, s in (("memory", 4096), ("memory+", 16384))]
    sizes = [row(run=v, kind="dense", variant=v, memory_slots=0) for v in ("dense", "dense x4")]
    for rows in (kinds, sizes):
        with pytest.raises(MemxError, match="differ in more than memory size") as error:
            memory_figure(rows)
        assert "memx plot baselines" in error.value.hint


def test_runs_named_one_by_one_are_drawn_together_and_of_a_folder_one_experiment(tmp_path):
    told = []
    for slots in (0, 4096):
        folder = tmp_path / f"run-{slots}"
        folder.mkdir()
        (folder / "run.json").write_text(f'{{"status": "finished", "started": "{slots}"}}')
        rows = [r for r in sweep_rows(experiment=f"run-{slots}") if r.memory_slots == slots]
        write_rows(folder / "rows.jsonl", rows)
    folders = sorted(tmp_path.iterdir())
    (*_, beside), _ = draw("memory", PlotRequest(folders, tmp_path / "a", "m", log=told.append))
    assert {r.memory_slots for r in read_rows(beside)} == {0, 4096} and told == []
    (*_, beside), _ = draw("memory", PlotRequest([tmp_path], tmp_path / "b", "m", log=told.append))
    assert {r.memory_slots for r in read_rows(beside)} == {4096}
    assert told == ["drawn: run-4096; not drawn: run-0 (choose with --experiment)"]


def test_plotted_rows_plot_again_to_the_same_picture(tmp_path):
    write_rows(tmp_path / "rows.jsonl", sweep_rows(seeds=(0, 1)))
    (first, _), _ = draw("memory", PlotRequest([tmp_path], tmp_path / "a", "m", ["svg"]))
    (second, _), _ = draw("memory", PlotRequest([tmp_path / "a"], tmp_path / "b", "m", ["svg"]))
    assert first.read_bytes() == second.read_bytes()


def test_the_figure_shows_what_the_rows_say():
    figure = memory_figure(sweep_rows(seeds=(0, 1, 2)))
    accuracy, nll = figure.axes[:2]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    guess = "guess by relation and first letter (held-out entities)"
    assert guess in labels and len(labels) == 4
    (dotted,) = [line for line in accuracy.lines if line.get_linestyle() == ":"]
    assert dotted.get_label() == guess
    ticks = [tick.get_text() for tick in accuracy.get_xticklabels()]
    assert ticks == ["dense", "4,096", "16,384", "65,536"]
    curve = accuracy.containers[0].lines[0]
    assert list(curve.get_ydata()) == [11.0, 12.0, 15.0, 27.0]
    assert list(curve.get_xdata()) == [SlotAxis([4096, 16384, 65536]).place(slots) for slots in (0, 4096, 16384, 65536)]
    assert nll.get_ylabel().startswith("answer NLL")


@pytest.mark.parametrize(("published", "formats"), [(False, ["svg"]), (True, ["png", "svg", "pdf"])])
def test_plot_writes_pictures_and_the_plotted_rows(tmp_path, published, formats):
    write_rows(tmp_path / "rows.jsonl", [*sweep_rows(), row(dataset="seen/x", experiment="e")])
    options = PlotOptions(published=published)
    written, _ = draw("memory", PlotRequest([tmp_path], tmp_path / "out", "m", formats, options=options))
    assert [path.name for path in written] == [*(f"m.{kind}" for kind in formats), "m.rows.jsonl"]
    starts = {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}
    assert [path.read_bytes()[:5] for path in written[:-1]] == [starts[kind] for kind in formats]
    assert {r.dataset for r in read_rows(written[-1])} == {"seen", "rephrased", "unseen"}
    assert ("1.3b Memory+" in written[formats.index("svg")].read_text()) is published
    again, _ = draw("memory", PlotRequest([tmp_path], tmp_path / "again", "m", formats, options=options))
    assert [a.read_bytes() for a in written] == [a.read_bytes() for a in again]


def test_loss_curves_of_a_run(tmp_path, tiny_run):
    (picture,), _ = draw("loss", PlotRequest([tiny_run[0].folder.parent], tmp_path, "loss"))
    assert picture.stat().st_size > 5000
    with pytest.raises(MemxError, match="there are no runs to show"):
        draw("loss", PlotRequest([tmp_path], tmp_path, "loss"))


def test_rows_are_collected_from_files_folders_and_runs(tmp_path, tiny_run):
    run, rows = tiny_run
    for source in (run.folder, run.folder / "rows.jsonl", run.folder.parent):
        assert collect_rows([source]) == rows
    with pytest.raises(MemxError, match="nothing at"):
        collect_rows([tmp_path / "no"])


def test_published_table_1_is_whole():
    points = published_points()
    assert len(points) == 45
    best = [p for p in points if p.base == "1.3b" and p.memory_slots == 67_108_864 and p.metric == "f1"]
    assert [p.value for p in best] == [62.14]
    curve = published_curves()["1.3b", "NQ exact match"]
    assert [p.memory_slots for p in curve] == [0, 2**20, 2**22, 2**24, 2**26]
    assert [p.value for p in curve] == [7.76, 13.68, 14.43, 20.14, 20.78]


@pytest.mark.parametrize(
    ("number", "base", "text"),
    [
        (65536, 1024, "64Ki"),
        (36864, 1024, "36Ki"),
        (2**20, 1024, "1Mi"),
        (4_520_000, 1000, "4.52M"),
        (512, 1000, "512"),
    ],
)
def test_short_numbers(number, base, text):
    assert short(number, base) == text


def test_status_of_runs(tmp_path):
    store = RunStore(tmp_path)
    with store.claim("a") as run:
        run.begin("x: 1\n", {})
        assert run.status == "running"
    assert run.status == "interrupted"
    with store.claim("a", resume=True) as run:
        run.finish([row()])
    assert run.status == "finished" and [r.name for r in store.runs()] == ["a"]
    assert Run(tmp_path / "none").status == "empty"


def test_force_empties_and_refusal_keeps(tmp_path):
    store = RunStore(tmp_path)
    with store.claim("a") as run:
        (run.folder / "precious").write_text("x")
    with pytest.raises(MemxError, match="exists"), store.claim("a"):
        pass
    assert (run.folder / "precious").exists()
    with store.claim("a", force=True):
        assert not (run.folder / "precious").exists()


def test_metrics_cut_by_a_kill_are_read_up_to_the_cut(tmp_path):
    run = Run(tmp_path)
    for step in (1, 2, 3):
        run.append_metrics(step=step, loss=1.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    run.rewind_metrics(2)
    run.append_metrics(step=3, loss=2.0)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]


def test_validations_that_a_state_does_not_know_are_dropped_with_all_that_follows(tmp_path):
    run = Run(tmp_path)
    lines = [{"step": 0, "validation": 1.0}, {"step": 1, "best": 1.0}, {"step": 1, "validation": 2.0}]
    for line in lines:
        run.append_metrics(**line)
    run.rewind_metrics(1, 2)
    assert run.metrics() == lines
    run.rewind_metrics(1, 1)
    assert run.metrics() == lines[:2]
    run.rewind_metrics(1, 0)
    assert run.metrics() == []
