"""The committed figures: their rows say what the README says, and what an honest figure must show."""

import re
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import fmean

import pytest
import torch
from memx import namm
from memx.experiments.config.loading import load_config
from memx.experiments.config.matching import sizes_of
from memx.experiments.config.points import points
from memx.results.bench.rows import floor_share, measured
from memx.results.store.rows import read_rows
from memx.results.summary import summarize

from .experiments.evolution.tiny_evolution import write_host

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results" / "reference"
README = (ROOT / "README.md").read_text("utf-8")
TIERS = ("seen", "rephrased", "unseen")


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


def test_nobody_knows_unseen_entities(rivals):
    for (dataset, metric, variant), summary in rivals.items():
        if (dataset, metric) == ("unseen", "exact_match"):
            assert summary.low <= rivals["unseen", "chance_exact_match", variant].value


def test_rivals_spend_the_flops_that_their_names_say(rivals):
    dense = rivals["seen", "nll", "dense"].flops
    for (_, _, variant), summary in rivals.items():
        times = float(variant.partition("x")[2] or 1) if variant.startswith("dense") else 1.0
        assert summary.flops == pytest.approx(times * dense, rel=0.01), variant


def test_the_readme_states_the_rows_of_the_rivals(rivals):
    for variant in load_config("rivals").variants:
        (line,) = re.findall(rf"^\| {re.escape(variant)} \|.*$", README, flags=re.MULTILINE)
        for tier in TIERS:
            assert f"{rivals[tier, 'exact_match', variant].value:.1f}" in line, (variant, tier)
        assert f"{rivals['seen', 'nll', variant].value:.2f}" in line


def test_the_readme_states_the_rows_of_the_step():
    values = {(row.kind, row.memory_slots, row.metric): row.value for row in rows_of("step/step.rows.jsonl")}
    sizes = sorted({slots for _, slots, _ in values})
    for kind in {kind for kind, _, _ in values}:
        (line,) = re.findall(rf"^\| {re.escape(kind)} \|.*$", README, flags=re.MULTILINE)
        for slots in sizes:
            assert f"{values[kind, slots, 'step_ms']:,.0f}" in line, (kind, slots)
        assert f"{values[kind, sizes[-1], 'peak_memory_gb']:.1f}" in line


@pytest.mark.parametrize("name", ["retrofit", "continual"])
def test_the_readme_states_the_rows_of_the_pretrained_model(name):
    for row in rows_of(f"retrofit/{name}.rows.jsonl"):
        (line,) = re.findall(rf"^\| {re.escape('retrofit' if name == 'retrofit' else row.variant)} \|.*$", README, re.M)
        assert f"{row.value:.{2 if row.metric.startswith('nll') else 1}f}" in line, (row.variant, row.metric)


def example(part):
    """The README's piece of Python that has this in it."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if part in block)
    return code


def test_the_readme_example_evicts(tmp_path, capsys, monkeypatch):
    host = write_host(tmp_path / "host")
    rule = namm.Rule(budget=0.25)
    namm.save(namm.Namm(0.3 * torch.randn(4172), rule=rule, every=64), tmp_path / "run" / "namm")
    (tmp_path / "prompt.txt").write_text("one two three " * 100)
    monkeypatch.chdir(tmp_path)
    exec(example("attach").replace("results/runs/NAMM", "run").replace("smollm2", str(host)), {})
    held = int(capsys.readouterr().out.splitlines()[-1].split()[0])
    assert 0 < held < 2 * 2 * 2 * 8 * 4 * 300  # layers, keys and values, heads, width, bytes, tokens


def test_the_readme_example_answers_a_question(tiny_run, capsys, monkeypatch):
    code = example("RUN/checkpoint")
    assert len([line for line in code.splitlines() if line]) == 5
    exec(code.replace("results/runs/RUN", str(tiny_run[0].folder)), {})
    assert capsys.readouterr().out.startswith("LHR is in which country?")


KERNELS = (ROOT / "kernels" / "README.md").read_text("utf-8")


def test_the_kernels_page_states_the_rows_of_the_ops():
    """Times, shares of the floor and the fastest other way, of each op at its largest shape."""
    lines = measured(rows_of("bench/bench.rows.jsonl"))
    for op in {line.op for line in lines}:
        shape = [line.shape for line in lines if line.op == op][-1]
        here = [line for line in lines if (line.op, line.shape) == (op, shape) and line.time("forward")]
        own = min((line for line in here if not line.rival), key=lambda line: line.time("forward").value)
        (stated,) = re.findall(rf"^\| {op} \| {re.escape(shape.replace(' ', ', '))} \|.*$", KERNELS, flags=re.MULTILINE)
        cells = [cell.strip() for cell in stated.strip("|").split("|")]
        assert cells[2] == own.name
        (other,) = (line for line in here if line.rival and line.name == cells[7])
        for which, (time, share, times) in {"forward": (3, 4, 8), "backward": (5, 6, 9)}.items():
            row = own.time(which)
            if row is None:
                assert not cells[time] and not cells[share] and not cells[times]
                continue
            assert float(cells[time]) == pytest.approx(row.value, rel=0.01)
            assert cells[share] == f"{100 * floor_share(row):.0f}%"
            assert cells[times] == f"{other.time(which).value / row.value:.1f}x"


def test_the_kernels_page_states_the_resources_and_no_kernel_spills():
    values = {(row.kind, row.model, row.metric): row.value for row in rows_of("bench/resources.rows.jsonl")}
    for kernel in {kernel for kernel, _, _ in values}:
        (stated,) = re.findall(rf"^\| {re.escape(kernel)} \|.*$", KERNELS, flags=re.MULTILINE)
        for metric in ("registers", "spills", "programs"):
            both = f"{values[kernel, 'sm_90', metric]:g} / {values[kernel, 'sm_80', metric]:g}"
            assert f"| {both} |" in stated, (kernel, metric)
        assert values[kernel, "sm_90", "spills"] == values[kernel, "sm_80", "spills"] == 0


NAMM = (ROOT / "namm" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "op", "metrics"),
    [
        (
            "prefill",
            "prefill",
            {"prefill_ratio": ".2f", "kept_slots": ",.0f", "kept_in_pieces": ",.0f", "kv_mb": ".1f"},
        ),
        ("prefill", "decode", {"decode_ratio": ".2f"}),
        ("generate", "generate", {"token_ms": ".0f", "kv_mb": ".1f", "peak_memory_mb": ",.0f"}),
    ],
)
def test_the_namm_page_states_the_rows_of_the_policies(name, op, metrics):
    table = NAMM.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    rows = [row for row in rows_of(f"evict/{name}.rows.jsonl") if row.dataset.startswith(f"{op} ")]
    assert all(row.value == 1 for row in rows if row.metric == "correct")
    for row in rows:
        if row.metric in metrics:
            (line,) = re.findall(rf"^\| {re.escape(row.kind)} \|.*$", table, flags=re.MULTILINE)
            assert f"| {row.value:{metrics[row.metric]}} |" in line, (row.kind, row.metric)


def test_policies_keep_what_they_are_told_however_the_prompt_comes():
    slots = {(row.kind, row.metric): row.value for row in rows_of("evict/prefill.rows.jsonl")}
    for kind in {kind for kind, _ in slots if kind.endswith(" 0.5") and not kind.startswith("kvpress")}:
        assert slots[kind, "kept_slots"] == slots[kind, "kept_in_pieces"] == 1024


def test_the_readme_states_the_rows_of_the_namms():
    """Means over seeds at each share of the cache, and what each seed's evolution gained, by more than its interval."""
    table = README.partition("<!-- namm -->")[2].partition("<!-- transfer -->")[0]
    found = defaultdict(list)
    for row in rows_of("namm/namm.rows.jsonl"):
        if row.size == "budget":
            name = re.sub(r"^namm \S+", "namm", row.variant)
            found[name, row.budget, row.dataset, row.metric].append(row.value)
    for name in {name for name, *_ in found} - {"full"}:
        (line,) = re.findall(rf"^\| {name} \|.*$", table, flags=re.MULTILINE)
        cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
        for cell, (data, budget) in zip(
            cells, product(("held-out/all", "trained/all"), (0.75, 0.5, 0.25, 0.125)), strict=True
        ):
            likelihood, exact = (
                fmean(found[name, budget, data, metric]) for metric in ("relative_log_likelihood", "exact")
            )
            assert cell == f"{likelihood:.2f} / {exact:.0f}", (name, budget, data)
    gains = [row for row in rows_of("namm/evolve.rows.jsonl") if (row.variant, row.metric) == ("difference", "fitness")]
    assert len(gains) == 6 and all(row.low > 0 for row in gains)
    for row in gains:
        assert f"| {row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}] |" in table


def test_the_readme_states_the_rows_of_a_generation():
    values = defaultdict(dict)
    for row in rows_of("namm/generation.rows.jsonl"):
        values[row.kind][row.metric] = row.value
    table = README.partition("**What a generation costs**")[2].partition("<!-- /namm -->")[0]
    for name, found in values.items():
        if "generation_ms" in found:
            times = f"{found['generation_ms'] / 1000:.1f} | {found.get('speedup', 1):.1f}"
            shares = f"{found['host_percent']:.0f}% | {found['scorer_percent']:.0f}%"
            assert f"| {name} | {times} | {shares} |" in table, name
    assert values["bam"]["correct"] == values["mlp"]["correct"] == 1


def test_the_readme_states_the_rows_of_the_transfer():
    table = README.partition("<!-- transfer -->")[2].partition("<!-- /transfer -->")[0]
    found = defaultdict(list)
    for row in rows_of("namm/transfer.rows.jsonl"):
        if row.dataset == "all/all" and row.variant != "full":
            name = re.sub(r"^namm \S+", "namm", row.variant)
            found[name, row.budget, row.metric].append(row.value)
    for name in {name for name, *_ in found}:
        (line,) = re.findall(rf"^\| {name} \|.*$", table, flags=re.MULTILINE)
        cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
        for cell, budget in zip(cells, (0.25, 0.125, None), strict=True):
            both = [found[name, budget, metric] for metric in ("relative_log_likelihood", "exact")]
            assert cell == (f"{fmean(both[0]):.2f} / {fmean(both[1]):.0f}" if both[0] else ""), (name, budget)
