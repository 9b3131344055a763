"""Figures that compare: ablations, use of slots and fine-tuning say what the rows say."""

import pytest
from memx.errors import MemxError
from memx.results.memory_layers.ablation import ablation_table, variants_of
from memx.results.memory_layers.ablation_figure import ablation_figure
from memx.results.memory_layers.finetuning.finetune import by_method, finetune_table, methods_of
from memx.results.memory_layers.finetuning.finetune_figure import finetune_figure
from memx.results.memory_layers.loss import run_label
from memx.results.memory_layers.usage import usage_figure
from memx.results.plots import draw
from memx.results.published import published_ablations
from memx.results.selection import PlotRequest
from memx.results.store.rows import Row, read_rows, write_rows
from memx.results.store.runs import Run


def row(**changes) -> Row:
    settings = dict(
        run="r", experiment="e", kind="memory", model="llama-4x64", dataset="rephrased", metric="exact_match",
        value=50.0, n=100, memory_slots=1024, parameters_total=10_000, flops=1000,
    )  # fmt: skip
    return Row(**{**settings, **changes})


def ablation_rows(seeds=(0, 1, 2), drop=()):
    """Against "one layer": "three layers" is 4, 5, 6 better by seed, "no norm" 5, 5, 5.3 worse, "two heads" unclear."""
    by_seed = {
        "one layer": (10, 20, 30),
        "three layers": (14, 25, 36),
        "no norm": (5, 15, 24.7),
        "two heads": (9, 22, 29),
    }
    return [
        row(run=f"{name}-{seed}", variant=name, seed=seed, metric=metric, value=values[seed] if metric == "exact_match"
            else 5 - values[seed] / 10)
        for seed in seeds
        for name, values in by_seed.items()
        for metric in ("exact_match", "nll")
        if (name, seed) not in drop
    ]  # fmt: skip


def test_differences_are_paired_by_seed():
    first, three, *_ = variants_of(ablation_rows(drop={("three layers", 1)}), "rephrased")
    assert first.name == "one layer" and first.differences["exact_match"].verdict == "first"
    assert three.differences["exact_match"].values == (4, 6)
    (_, three, norm, heads) = variants_of(ablation_rows(), "rephrased")
    difference = three.differences["exact_match"]
    assert difference.value == 5 and difference.verdict == "better"
    assert difference.high - 5 == pytest.approx(4.303 * 1 / 3**0.5)
    assert three.summaries["exact_match"].high - 25 == pytest.approx(4.303 * 11 / 3**0.5)
    assert three.differences["nll"].value == pytest.approx(-0.5) and three.differences["nll"].verdict == "better"
    assert [v.differences["exact_match"].verdict for v in (norm, heads)] == ["worse", "no clear difference"]


def test_a_single_seed_and_seeds_apart_tell_nothing():
    _, three, *_ = variants_of(ablation_rows(seeds=(0,)), "rephrased")
    assert three.differences["exact_match"].value == 4 and three.differences["exact_match"].verdict == "one seed"
    apart = ablation_rows(drop={("one layer", 1), ("one layer", 2), ("three layers", 0)})
    (three,) = (variant for variant in variants_of(apart, "rephrased") if variant.name == "three layers")
    assert three.differences["exact_match"].verdict == "no common seed"
    ablation_figure(apart, variants_of(apart, "rephrased"), "rephrased")


def test_the_ablation_table_prints_published_losses_beside_ours():
    table = ablation_table(variants_of(ablation_rows(), "rephrased"), "rephrased")
    lines = {line[0]: line for line in table.lines}
    assert lines["three layers"][2:5] == ["25.0 ±27.3", "+5.0 ±2.5", "better"]
    assert lines["three layers"][-1] == "2.06/11.32/7.20" and lines["no norm"][-1] == ""
    assert table.facts[0]["published"] == {"train_nll": 2.11, "nq_nll": 12.13, "tqa_nll": 8.34}
    other = variants_of([r for r in ablation_rows() if r.variant in ("no norm", "two heads")], "rephrased")
    assert "373M" not in " ".join(ablation_table(other, "rephrased").columns)
    assert list(published_ablations()) == ["one layer", "three layers", "six layers", "one layer, gated"]


def test_the_ablation_figure_holds_the_rows_and_the_named_baseline():
    rows = ablation_rows()
    figure = ablation_figure(rows, variants_of(rows, "rephrased", "two heads"), "rephrased")
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["two heads", "one layer", "three layers", "no norm"]
    means = [container.lines[0].get_xdata()[0] for container in figure.axes[0].containers]
    assert means == pytest.approx([20, 20, 25, 44.7 / 3])
    differences = [container.lines[0].get_xdata()[0] for container in figure.axes[2].containers]
    assert differences == pytest.approx([0, 5, 44.7 / 3 - 20])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row()], "these runs have no variants"),
        ([row(variant="a")], "only the variant 'a'"),
        ([*ablation_rows(), row(run="x", variant="one layer", memory_slots=4)], "several bases or memory sizes"),
    ],
)
def test_ablations_that_cannot_be_drawn(rows, message):
    with pytest.raises(MemxError, match=message) as error:
        variants_of(rows, "rephrased")
    assert error.value.hint
    with pytest.raises(MemxError, match="unknown variant 'z'"):
        variants_of(ablation_rows(), "rephrased", "z")


def tuned_rows(seeds=(0, 1), texts=("text/python-docs",), variants=False):
    rows = []
    for place, (trained, learned, forgot) in enumerate((("all", 80, 0.9), ("slots", 60, 0.1), ("lora", 70, 0.4))):
        for seed in seeds:
            common = dict(run=f"{trained}-{seed}", seed=seed, trained=trained, variant=f"v{place}" if variants else "")
            for tier in ("seen", "rephrased"):
                rows.append(row(**common, dataset=tier, metric="exact_match_before", value=1.0))
                rows.append(row(**common, dataset=tier, value=learned + seed, low=learned - 3, high=learned + 3))
            for metric, value in (("nll_before", 2.0 + seed), ("nll", 2.0 + seed + forgot + seed / 100)):
                rows.append(row(**common, dataset=texts[place % len(texts)], metric=metric, value=value))
    return rows


def test_fine_tuning_says_what_was_learned_and_forgotten():
    rows = by_method([*tuned_rows(), row(run="scratch")])
    methods = {method.name: method for method in methods_of(rows)}
    assert list(methods) == ["all weights", "top slots", "LoRA"]
    slots = methods["top slots"]
    mean, low, high = slots.change
    assert slots.changes == pytest.approx((0.1, 0.11)) and mean == pytest.approx(0.105)
    assert high - mean == pytest.approx(12.706 * 0.005) and mean - low == pytest.approx(12.706 * 0.005)
    table = finetune_table(list(methods.values()))
    assert table.lines[1] == [
        "top slots", "2", "1.0 → 60.5 ±6.4", "1.0 → 60.5 ±6.4", "2.500 → 2.605 ±6.417", "+0.105 ±0.064",
    ]  # fmt: skip
    seen = finetune_figure(rows, list(methods.values())).axes[0]
    points = [(c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in seen.containers]
    assert points == [pytest.approx(p) for p in ((0.905, 80.5), (0.105, 60.5), (0.405, 70.5))]


def test_fine_tuning_of_one_seed_and_of_named_variants():
    rows = by_method(tuned_rows(seeds=(0,), variants=True))
    methods = methods_of(rows)
    assert [method.name for method in methods] == ["v0", "v1", "v2"]
    assert methods[0].change == (pytest.approx(0.9), None, None)
    assert finetune_table(methods).lines[0][2] == "1.0 → 80.0 ±3.0"
    finetune_figure(rows, methods)
    two = [*rows, *(r.model_copy(update={"run": r.run + "b", "memory_slots": 4096}) for r in tuned_rows(seeds=(0,)))]
    assert len({r.variant for r in by_method([*tuned_rows(seeds=(0,)), *two[len(rows) :]])}) == 6


def test_fine_tuning_that_cannot_be_drawn():
    with pytest.raises(MemxError, match="no run here started from a trained model"):
        by_method([row()])
    with pytest.raises(MemxError, match="different texts: text/a, text/b"):
        by_method(tuned_rows(texts=("text/a", "text/b")))
    bare = by_method([r for r in tuned_rows() if not r.dataset.startswith("text/")])
    with pytest.raises(MemxError, match="no run here has text loss"):
        finetune_figure(bare, methods_of(bare))
    bases = by_method([r.model_copy(update={"model": f"m{r.seed}"}) for r in tuned_rows()])
    with pytest.raises(MemxError, match="was run on several models"):
        methods_of(bases)


def use_run(folder, variant, layers, seed=0):
    run = Run(folder / f"{variant}-{seed}".replace(" ", "_"))
    run.folder.mkdir(parents=True)
    run.begin(f"variant: {variant}\nmemory: {{slots: 64}}\n", {"experiment": "u", "seed": seed, "started": "1"})
    for step in (0, 10):
        use = {"memory_use": {layer: {"used": 0.1 * step / 10 + 0.2, "kl": 2.0 - step / 10} for layer in layers}}
        run.append_metrics(step=step, loss=1.0, **(use if layers else {}))
    run.end("finished")
    return run


def test_use_of_slots_by_layer_and_step(tmp_path):
    runs = [
        use_run(tmp_path, "a", ["10", "2"]),
        use_run(tmp_path, "a", ["10", "2"], seed=1),
        use_run(tmp_path, "d", []),
    ]
    used, kl = usage_figure(runs).axes
    assert len(used.lines) == 4 and run_label(runs[0]) == "a"
    assert list(used.lines[0].get_ydata()) == pytest.approx([20, 30]) and list(kl.lines[0].get_ydata()) == [2.0, 1.0]
    (legend,) = used.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a, layer 2", "a, layer 10"]
    with pytest.raises(MemxError, match="no run here has metrics of slot usage"):
        usage_figure(runs[2:])


def test_comparisons_are_written_with_their_rows_and_draw_again(tmp_path):
    tuned = tuned_rows()
    for name, rows, what in (
        ("a", ablation_rows(), "ablation"),
        ("f", tuned, "finetune"),
    ):
        write_rows(tmp_path / f"{name}.rows.jsonl", [*rows, row(dataset="seen/x"), row(metric="f1")])
        files, table = draw(what, PlotRequest([tmp_path / f"{name}.rows.jsonl"], tmp_path / "out", name, ["svg"]))
        assert [path.name for path in files] == [f"{name}.svg", f"{name}.rows.jsonl"]
        assert table.lines and len(read_rows(files[-1])) == len(rows)
        again, same = draw(what, PlotRequest([files[-1]], tmp_path / "again", name, ["svg"]))
        assert again[0].read_bytes() == files[0].read_bytes() and same == table
    use_run(tmp_path / "runs", "a", ["0"])
    (picture,), _ = draw("usage", PlotRequest([tmp_path / "runs"], tmp_path / "out", "u"))
    assert picture.stat().st_size > 5000
