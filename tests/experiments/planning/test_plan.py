"""Plans on GPUs: meshes, hours, what does not fit, what is assumed, and that a corpus is not looked at."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.experiments.config.loading import load_config, parse_assignment
from memx.experiments.config.matching import sizes_of
from memx.experiments.config.points import plan
from memx.experiments.config.training import TrainConfig
from memx.experiments.planning.estimate import cost_of
from memx.experiments.planning.gpus import GPUS, gpu_named
from memx.experiments.planning.mesh import Assumptions, Plan, mesh_of, parse_count, row_tokens

LARGE = "1.3b-64m-1t"


def cost(name, asked, **changes):
    (point,) = plan(load_config(name, [(key.replace("__", "."), value) for key, value in changes.items()]))
    return cost_of(point, Path("runs"), asked)


@pytest.mark.parametrize(("text", "count"), [("1T", 10**12), ("1e12", 10**12), ("100B", 10**11), ("2.5m", 2_500_000),
                                              ("2_000_000", 2_000_000), (" 300 k ", 300_000), ("7", 7)])  # fmt: skip
def test_counts_are_read(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "T", "1X", "-1", "0", "1e", "1.2.3", "1e999", "nan"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(MemxError, match="not a number of tokens"):
        parse_count(text)


def test_an_unknown_gpu_is_answered_with_the_nearest():
    assert gpu_named("H200") is GPUS["h200"]
    with pytest.raises(MemxError, match="unknown GPU 'h10'") as told:
        gpu_named("h10")
    assert "h100" in (told.value.hint or "")


@pytest.mark.parametrize(("key", "value"), [("parallel__shard", 3), ("parallel__table_ranks", 16)])
def test_ranks_divide_the_gpus(key, value):
    with pytest.raises(MemxError, match=f"{key.replace('__', '.')} {value} is not a divisor of 8 GPUs"):
        cost(LARGE, Plan(8), **{key: value})


def test_a_width_is_cut_into_equal_parts():
    with pytest.raises(MemxError, match=r"width 2048 cannot be split evenly over .* 3"):
        cost(LARGE, Plan(3))
    assert cost(LARGE, Plan(3), parallel__table="rows").plan.table_ranks == 3


def test_rows_are_shared_out_as_in_training():
    config = load_config("tiny", [("training.batch", 10), ("training.accumulate", 2)])
    mesh = mesh_of(config, Plan(4), [32])
    assert mesh.tokens == 2 * row_tokens(config)  # 5 rows a part, over 4 GPUs
    notes = cost("tiny", Plan(4), training__batch=10, training__accumulate=2).plan.notes
    assert notes == ["training.batch 10 in 2 micro-batches on 4 GPUs wastes 38% on padding; use a multiple of 8"]


def test_a_rank_splits_its_own_rows_of_a_corpus():
    """As many parts as it has rows, at most."""
    found = cost(LARGE, Plan(256), training__accumulate=16).plan
    assert (found.parts, found.tokens_per_part, found.notes) == (2, 2048, [])
    assert cost(LARGE, Plan(64), training__accumulate=3).plan.tokens_per_part == 3 * 2048


def test_a_dense_model_on_one_gpu_takes_its_flops():
    asked = Plan(assumed=Assumptions(utilization=0.5))
    found = cost("134m", asked, memory__kind="dense", data__biographies=20, variants={})
    flops = 3 * sizes_of(load_config("134m", [("memory.kind", "dense"), ("variants", {})])).flops
    seconds = flops * found.tokens_per_step / (0.5 * GPUS["h100"].half)
    assert found.plan.seconds["computing"] == pytest.approx(seconds)
    assert found.plan.seconds["step"] == pytest.approx(seconds, rel=0.01)  # and AdamW
    slower = cost("134m", replace(asked, gpu=GPUS["a100"]), memory__kind="dense", data__biographies=20, variants={})
    assert slower.plan.seconds["computing"] == pytest.approx(seconds * 989.4 / 312)


def test_hours_follow_from_steps_and_a_step():
    found = cost(LARGE, Plan(64, GPUS["h200"], tokens=10**11)).plan
    assert found.steps == -(-(10**11) // (512 * 2048))
    assert found.hours == pytest.approx(found.steps * found.seconds["step"] / 3600)
    assert found.gpu_hours == pytest.approx(64 * found.hours)
    assert found.tokens_per_second == pytest.approx(512 * 2048 / found.seconds["step"])
    whole = cost(LARGE, Plan(64, GPUS["h200"]))
    assert whole.plan.steps == whole.steps and whole.plan.tokens >= 10**12


def test_a_step_is_no_shorter_than_what_cannot_be_hidden():
    found = cost(LARGE, Plan(64)).plan.seconds
    apart = sum(found[part] for part in ("computing", "adam", "reading rows", "exchange", "table step"))
    assert found["step"] == pytest.approx(apart) and found["sharing weights"] < found["computing"]


def test_the_total_is_the_peak_of_its_parts():
    held = cost(LARGE, Plan(64)).plan.bytes
    lasting = ("weights", "gradients", "optimizer", "table", "table optimizer", "step's reads")
    passing = ("gathered", "copies", "activations", "exchange")
    assert set(held) == {*lasting, *passing, "grouping", "asking", "total", "host"}
    peak = max(sum(held[name] for name in passing), held["grouping"], held["asking"])
    assert held["total"] == sum(held[name] for name in lasting) + peak


def settings_of(problem):
    """The settings that a line advises, as `cost` takes them."""
    found = re.findall(r"--set (\S+)=(\S+)", problem)
    assert ("all of --set" in problem) == (len(found) > 1)
    return {key.replace(".", "__"): parse_assignment(f"{key}={value}")[1] for key, value in found}


@pytest.mark.parametrize(
    ("gpus", "changes", "first", "advised"),
    [
        (8, {}, "416 GB of 80 GB; largest part: activations, 194 GB",
         ["training__accumulate", "parallel__host_values"]),
        (8, {"training__accumulate": 16}, "246 GB of 80 GB; largest part: table optimizer, 138 GB",
         ["parallel__host_values", "training__accumulate"]),
        (64, {"parallel__table_ranks": 8}, "238 GB of 80 GB; largest part: table optimizer", ["parallel__table_ranks"]),
        (64, {"training__accumulate": 1}, "86 GB of 80 GB; largest part: activations, 49 GB", ["training__accumulate"]),
        (256, {"training__batch": 4096}, "164 GB of 80 GB; largest part: sparse update, 130 GB",
         ["parallel__host_values", "training__accumulate"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_what_would_help(gpus, changes, first, advised):
    found = cost(LARGE, Plan(gpus), **changes).plan
    (problem,) = found.problems
    assert problem.startswith(f"does not fit: {first}") and "plan more GPUs" not in problem
    assert found.hours is None and found.gpu_hours is None and found.tokens_per_second is None
    settings = settings_of(problem)
    assert list(settings) == advised
    then = cost(LARGE, Plan(gpus), **{**changes, **settings}).plan
    assert then.problems == [] and f"(then {then.bytes['total'] / 1e9:,.0f} GB of 80 GB)" in problem
    for key in settings:  # none is needless
        fewer = {name: value for name, value in settings.items() if name != key}
        assert cost(LARGE, Plan(gpus), **{**changes, **fewer}).plan.problems


@pytest.mark.parametrize("gpus", [1, 8, 64])
@pytest.mark.parametrize("name", [LARGE, "8b-64m-1t"])
@pytest.mark.parametrize("changes", [{}, {"parallel__host_values": True}], ids=str)
def test_advice_never_makes_a_plan_larger_and_comes_to_an_end(gpus, name, changes):
    before = cost(name, Plan(gpus), **changes).plan
    for _ in range(2):
        if not before.problems or "plan more GPUs" in before.problems[0]:
            break
        changes = {**changes, **settings_of(before.problems[0])}
        after = cost(name, Plan(gpus), **changes).plan
        assert after.bytes["total"] <= before.bytes["total"]
        before = after
    assert not before.problems or "plan more GPUs" in before.problems[0]
    if before.problems and (settings := settings_of(before.problems[0])):
        assert cost(name, Plan(gpus), **{**changes, **settings}).plan.bytes["total"] <= before.bytes["total"]


def test_host_values_leave_the_gpu():
    moved = {"table", "table optimizer", "step's reads", "grouping"}
    there = cost(LARGE, Plan(8), training__accumulate=32).plan.bytes
    found, waiting = (
        cost(LARGE, Plan(8), training__accumulate=32, parallel__host_values=True, parallel__prefetch=ahead).plan
        for ahead in (1, 0)
    )
    held = found.bytes
    assert held["host"] == sum(there[name] for name in moved)
    assert not moved & set(held) and held["total"] < there["total"]
    assert not found.problems and any("PCIe" in line for line in found.assumed)
    assert held["activations"] == 2 * waiting.bytes["activations"]  # two forward passes have begun
    seconds = found.seconds
    assert held["gathered"] - waiting.bytes["gathered"] > 3 * 10**9  # all weights, but for two blocks
    assert seconds["sharing weights"] < waiting.seconds["sharing weights"] < seconds["computing"]
    hidden = min(seconds["computing"], seconds["host rows"])
    assert waiting.seconds["step"] == pytest.approx(seconds["step"] + hidden)
    problems = cost("8b-64m-1t", Plan(8), training__accumulate=64, parallel__host_values=True).plan.problems
    assert any("of CPU memory per GPU" in problem for problem in problems)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"memory__kind": "peer", "memory__slots": 1024}, "PEER tables cannot be sharded"),
        ({"training__value_optimizer": "dense"}, "training.value_optimizer dense supports only one process"),
        ({"parallel__host_values": True, "parallel__prefetch": 2, "training__accumulate": 4}, "parallel.prefetch 2 is"),
        ({"corpus__lanes": 12}, "corpus.lanes 12 is not a multiple of the 8 processes; set it to 16"),
        ({"training__batch": 20}, "training.batch 20 is not a multiple of the 8 processes; set it to 24"),
    ],
)
def test_what_several_processes_do_not_train_is_said(changes, problem):
    changes = {"memory__slots": 1024, **changes}
    found = cost(LARGE, Plan(8), **changes).plan
    assert found.problems[0].startswith(problem) and found.hours is None
    alone = cost(LARGE, Plan(1), training__batch=1, training__accumulate=1, **{"memory__slots": 1024}).plan
    assert alone.problems == []


def test_several_processes_step_tables_sparsely():
    """Whatever one process would choose: a part of a table takes no dense gradient."""
    alone = cost("tiny", Plan(1), memory__slots=64, memory__top_k=4)
    shared = cost("tiny", Plan(2), memory__slots=64, memory__top_k=4)
    assert (alone.value_step, shared.value_step) == ("dense", "sparse")
    assert "table gradient" in alone.plan.bytes and "step's reads" in shared.plan.bytes


def test_copies_of_a_table_exchange_what_they_read():
    whole, copies = (cost(LARGE, Plan(256), parallel__table_ranks=ranks).plan for ranks in (256, 64))
    assert copies.seconds["copies"] > 0 and "copies" not in whole.seconds
    assert copies.bytes["table"] == 4 * whole.bytes["table"]
    assert copies.seconds["exchange"] < whole.seconds["exchange"]


def test_a_corpus_is_not_looked_at(tmp_path):
    found = cost("tiny", Plan(2), corpus__sources=[str(tmp_path / "nowhere")], data__vocabulary=512)
    assert found.facts is None and found.tokens_per_step == 64 * 64
    assert found.plan.tokens_per_part == 32 * 64


def test_plans_change_nothing_else_of_the_cost():
    point = plan(load_config("tiny"))[0]
    asked = cost_of(point, Path("runs"), Plan()).as_json()
    plain = cost_of(point, Path("runs")).as_json()
    assert {key for key in asked if asked[key] != plain.get(key)} == {"plan", "activation_bytes"}  # bfloat16 on a GPU


@pytest.mark.parametrize("name", [LARGE, "8b-16m-1t", "8b-64m-1t"])
def test_presets_of_a_trillion_tokens_read_one(name):
    config = load_config(name)
    assert isinstance(config, TrainConfig) and config.corpus.sources and config.corpus.tokenizer
    step = config.training.batch * config.data.sequence
    assert 10**12 <= config.training.steps * step < 10**12 + step
    assert not cost(name, Plan(256, GPUS["h200"]), training__accumulate=2).plan.problems
