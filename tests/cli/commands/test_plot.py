"""`memx plot PICTURE` and the tables of training runs: what they print, and mistakes in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from memx.cli.main import run as memx
from memx.cli.output.train_summary import plot_command, print_costs, print_training
from memx.experiments.planning.cost import RunCost
from memx.results.store.rows import Row, read_rows, write_rows


def rows_of(variants=(("dense", "dense", 0, 20.0), ("memory 4k", "memory", 4096, 30.0)), seeds=(0, 1), **more):
    return [
        Row(
            run=f"{variant or kind}-{seed}", experiment="e", kind=kind, model=more.get("model", "llama-4x64"),
            variant=variant, dataset=tier, metric=metric, value=value + seed, low=value - 1, high=value + 1, n=10,
            memory_slots=slots, parameters_total=300_000 + 64 * slots, flops=1000, seed=seed,
        )
        for variant, kind, slots, value in variants
        for seed in seeds
        for tier in ("seen", "rephrased")
        for metric in ("exact_match", "nll")
    ]  # fmt: skip


def plot(tmp_path, rows, picture: str, *arguments: str) -> int:
    write_rows(tmp_path / "rows.jsonl", rows)
    where = [str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--formats", "svg"]
    return memx(["plot", picture, *where, *arguments])


@pytest.mark.parametrize(("picture", "said"), [("baselines", "best of each kind"), ("ablation", "EM minus")])
def test_comparisons_print_their_table_and_files(capsys, tmp_path, picture, said):
    assert plot(tmp_path, rows_of(), picture) == 0
    captured = capsys.readouterr()
    assert said in captured.out and "memory 4k" in captured.out and f"{picture}.svg" in captured.out
    assert (tmp_path / "out" / f"{picture}.rows.jsonl").exists()


def test_the_table_as_json_and_the_tier(capsys, tmp_path):
    assert plot(tmp_path, rows_of(), "baselines", "--tier", "seen", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [fact["kind"] for fact in found["table"]] == ["memory"] and found["table"][0]["times_said"] == ">1x"
    assert {r.dataset for r in read_rows(Path(found["files"][-1]))} == {"seen", "rephrased"}


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["ablation"], "these runs have no variants", "preset with variants"),
        (["finetune"], "no run here started from a trained model", "--init-from"),
        (["usage"], "no run here has metrics of slot usage", "memory layers"),
        (["baselines", "--tier", "unseen"], "Invalid value for '--tier'", ""),
    ],
)
def test_mistakes_are_one_line_and_a_hint(capsys, tmp_path, arguments, message, hint):
    rows = [r.model_copy(update={"variant": ""}) for r in rows_of()]
    assert plot(tmp_path, rows, *arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == "" and message in lines[0] and hint in captured.err and len(lines) <= 2
    assert not (tmp_path / "out").exists()


def by_run(rows):
    runs: dict[str, list[Row]] = {}
    for one in rows:
        runs.setdefault(one.run, []).append(one)
    return runs


def header(text: str) -> list[str]:
    return next(line for line in text.splitlines() if "params" in line).split()


def test_the_training_table_names_variants_or_kinds_and_differing_bases(capsys, tmp_path):
    print_training(by_run(rows_of()), tmp_path)
    told = capsys.readouterr().out
    assert header(told)[:3] == ["kind", "seed", "params"] and "memory 4k" in told
    plain = [("", "dense", 0, 20.0), ("", "memory", 4096, 30.0)]
    print_training(by_run(rows_of(plain)), tmp_path)
    told = capsys.readouterr().out
    assert header(told)[:3] == ["kind", "slots", "seed"] and "4,096" in told
    other = [r.model_copy(update={"run": r.run + "b"}) for r in rows_of(model="llama-4x128")]
    print_training(by_run([*rows_of(), *other]), tmp_path)
    told = capsys.readouterr().out
    assert header(told)[:2] == ["model", "kind"] and "llama-4x128" in told
    assert max(map(len, told.splitlines())) <= 160


def test_the_training_table_of_fine_tuned_models_shows_before_and_after(capsys, tmp_path):
    (first, *_) = rows = rows_of((("LoRA", "memory", 64, 40.0),), seeds=(0,))
    before = first.model_copy(update={"metric": "exact_match_before", "value": 1.5, "dataset": "seen"})
    texts = [
        first.model_copy(update={"dataset": "text/python-docs", "metric": metric, "value": value})
        for metric, value in (("nll_before", 2.5), ("nll", 2.625))
    ]
    print_training(by_run([*rows, before, *texts]), tmp_path)
    told = capsys.readouterr().out
    assert "1.5 → 40.0 ±1.0" in told and "2.500 → 2.625" in told and "NLL seen" not in told


def test_the_next_command_names_the_experiment(tmp_path):
    rows = by_run(rows_of())
    name = next(iter(rows.values()))[0].experiment
    assert plot_command(rows, Path("results/runs")) == f"memx plot memory --experiment {name}"
    assert plot_command(rows, tmp_path) == f"memx plot memory --experiment {name} --runs {tmp_path}"


def test_the_dry_run_shows_published_totals_if_there_are_any(capsys):
    cost = RunCost(
        run="r", folder="f", facts=None, unseen_facts=None,
        kind="moe", variant="moe 16", memory_slots=0, parameters_total=983_599_872,
        parameters_active=109_678_080, flops_per_token=257_064_960, weights_bytes=2**32, optimizer_bytes=2**20,
        activation_bytes=2**20, steps=10, tokens_per_step=1, training_flops=10**9, value_step="", published_total=None,
    )  # fmt: skip
    print_costs([cost])
    told = capsys.readouterr().out
    assert "moe 16" in told and "published" not in told and "value" not in told.splitlines()[2]
    print_costs([replace(cost, published_total=984_000_000, value_step="sparse", value_optimizer="sparse AdamW"), cost])
    told = capsys.readouterr().out
    assert "984M (+0.0%)" in told and "983.6M" in told and "sparse AdamW" in told and "4.0 GiB" in told
    print_costs([replace(cost, published_total=900_000_000)])
    assert "900M (+9.3%)" in capsys.readouterr().out
