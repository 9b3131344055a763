"""The committed rows: what they must show. Tables and examples of the pages: tests/docs."""

import ast
import json
import re
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest
import yaml
from memx.experiments.config.loading import load_config
from memx.experiments.config.matching import sizes_of
from memx.experiments.config.points import points
from memx.results.memory_layers.finetuning.continual import EARLIER, KNOWN, by_trained, continual_methods
from memx.results.store.rows import read_rows
from memx.results.summary import summarize

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results" / "reference"
README = (ROOT / "README.md").read_text("utf-8")


def rows_of(name):
    return read_rows(REFERENCE / name)


@pytest.fixture(scope="module")
def rivals():
    return {(s.dataset, s.metric, s.variant): s for s in summarize(rows_of("rivals/rivals.rows.jsonl"))}


@pytest.mark.parametrize("name", ["rivals", "widths", "ablation"])
def test_the_rows_are_of_the_named_preset(name):
    """Its variants and seeds, each of the kind, the slots and the FLOPs that the preset gives it now."""
    config = load_config(name)
    expected = {(point.variant, point.seed): point for point in points(config)}
    rows = [row for row in rows_of(f"rivals/{name}.rows.jsonl") if row.run.startswith(f"{name}-")]
    assert {(row.variant, row.seed) for row in rows} == set(expected)
    for row in rows:
        point = expected[row.variant, row.seed]
        assert (row.kind, row.memory_slots) == (point.memory.kind, point.memory.slots)
        assert row.flops == sizes_of(point).flops and row.parameters_total == sizes_of(point).parameters_total


@pytest.mark.parametrize("kind", ["memory", "peer", "memory+"])
@pytest.mark.parametrize("tier", ["seen", "rephrased"])
def test_accuracy_rises_and_loss_falls_with_memory(rivals, kind, tier):
    found = {s.memory_slots: s for (d, m, _), s in rivals.items() if (d, m, s.kind) == (tier, "exact_match", kind)}
    loss = {s.memory_slots: s for (d, m, _), s in rivals.items() if (d, m, s.kind) == (tier, "nll", kind)}
    accuracy = [found[slots].value for slots in sorted(found)]
    assert len(accuracy) >= 2 and accuracy == sorted(accuracy)
    assert [loss[slots].value for slots in sorted(loss)] == sorted((s.value for s in loss.values()), reverse=True)


def test_rare_slots_keep_what_the_other_methods_lose():
    rows = rows_of("continual/continual.rows.jsonl")
    methods = {method.name: method for method in continual_methods(by_trained(rows))}
    rare = methods["rare slots, TF-IDF"]
    assert len(rare.seeds) == 3
    for name in ("LoRA", "all weights"):
        assert len(methods[name].seeds) == 3
        assert rare.figures[KNOWN].low > methods[name].figures[KNOWN].high
        assert rare.figures[EARLIER].low < methods[name].figures[EARLIER].high  # no method keeps earlier parts


def test_nobody_knows_unseen_entities(rivals):
    for (dataset, metric, variant), summary in rivals.items():
        if (dataset, metric) == ("unseen", "exact_match"):
            assert summary.low <= rivals["unseen", "chance_exact_match", variant].value


def test_rivals_spend_the_flops_that_their_names_say(rivals):
    dense = rivals["seen", "nll", "dense"].flops
    for (_, _, variant), summary in rivals.items():
        times = float(variant.partition("x")[2] or 1) if variant.startswith("dense") else 1.0
        assert summary.flops == pytest.approx(times * dense, rel=0.01), variant


@pytest.mark.parametrize("name", ["prefill", "generate"])
def test_policies_were_correct_before_they_were_timed(name):
    correct = [row.value for row in rows_of(f"evict/{name}.rows.jsonl") if row.metric == "correct"]
    assert correct and set(correct) == {1.0}


def test_policies_keep_what_they_are_told_however_the_prompt_comes():
    slots = {(row.kind, row.metric): row.value for row in rows_of("evict/prefill.rows.jsonl")}
    for kind in {kind for kind, _ in slots if kind.endswith(" 0.5") and not kind.startswith("kvpress")}:
        assert slots[kind, "kept_slots"] == slots[kind, "kept_in_pieces"] == 1024


def test_ops_were_correct_before_they_were_timed():
    correct = [row.value for row in rows_of("bench/bench.rows.jsonl") if row.metric == "correct"]
    assert correct and set(correct) == {1.0}


def test_no_kernel_spills():
    spills = {
        (row.kind, row.model): row.value for row in rows_of("bench/resources.rows.jsonl") if row.metric == "spills"
    }
    assert {model for _, model in spills} == {"sm_80", "sm_90"} and set(spills.values()) == {0.0}


@pytest.mark.parametrize(
    ("name", "certain"),
    [("namm/evolve", (3, 3)), ("namm/evolve-heads", (1, 0)), ("namm-published/evolve", (3, 3))],
)
def test_seeds_of_an_evolution_gain_more_than_their_intervals(name, certain):
    """As many of three seeds as the pages say, on validation and on test prompts."""
    rows = [row for row in rows_of(f"{name}.rows.jsonl") if (row.variant, row.metric) == ("difference", "fitness")]
    for dataset, count in zip(("validation/all", "test/all"), certain, strict=True):
        gains = [row for row in rows if row.dataset == dataset]
        assert len(gains) == 3 and sum(row.low > 0 for row in gains) == count


def test_evolution_in_a_batch_gave_the_fitness_of_one_by_one():
    correct = {row.kind: row.value for row in rows_of("namm/generation.rows.jsonl") if row.metric == "correct"}
    assert correct == {"bam": 1.0, "mlp": 1.0, "universal": 1.0}


def test_leaderboard_folders_have_its_layout_and_its_scores():
    """Each folder by itself: its name, its keys, and RULER's score computed anew from the texts."""
    folders = sorted((REFERENCE / "ruler" / "leaderboard").iterdir())
    scores = {
        (row.variant, row.labels.budget or 1.0, row.dataset): row.value
        for row in rows_of("ruler/ruler.rows.jsonl")
        if row.metric == "score"
    }
    assert len(folders) == 49
    for folder in folders:
        parts = re.fullmatch(r"ruler__4096__smollm2__([\w-]+)__(\d\.\d\d)", folder.name)
        about = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
        assert parts and (about["press_name"], f"{about['compression_ratio']:.2f}") == parts.groups()
        assert (about["dataset"], about["data_dir"], about["model"], about["query_aware"]) == (
            "ruler",
            "4096",
            "smollm2",
            False,
        )
        found = pd.read_csv(folder / "predictions.csv")
        assert {"task", "question", "answer_prefix", "answer", "predicted_answer"} <= set(found.columns)
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
        for task, of_task in found.groupby("task"):
            right = [
                fmean(answer in str(line.predicted_answer) for answer in ast.literal_eval(line.answer))
                for line in of_task.itertuples()
            ]
            key = about["policy"], 1 - about["compression_ratio"], f"held-out/ruler/{task}"
            assert len(right) == 40 and metrics[task]["string_match"] == pytest.approx(100 * fmean(right))
            assert scores[key] == pytest.approx(100 * fmean(right))
