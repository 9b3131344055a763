"""Shares of a budget of sparse parameters: what they buy, that the cost stays, and what is refused."""

import pytest
from memx.errors import MemxError
from memx.experiments.config.loading import load_config
from memx.experiments.config.matching import sizes_of
from memx.experiments.config.points import points
from memx.experiments.config.shares import apply_shares, listed
from memx.memory_layers.config import MemoryConfig, ModelConfig

MODEL = ModelConfig(layers=4, width=64)
EXPERTS = {"kind": "moe", "layers": [1, 2, 3], "experts_per_token": 2, "expert_width": 88}


def split(share, **changes) -> MemoryConfig:
    memory = {"kind": "engram", "sparse": 1_000_000, "share": share, "layers": [1], "heads": 4, "value_width": 4}
    return apply_shares(MemoryConfig.model_validate({**memory, "also": [EXPERTS], **changes}), MODEL)


@pytest.mark.parametrize("preset", ["shares", "shares-keys", "kinds"])
def test_models_of_a_sweep_cost_the_same(preset):
    """FLOPs and, of those with sparse parameters, all parameters within 3%."""
    runs = [
        run for run in points(load_config(preset)) if run.seed == 0 and run.variant not in ("dense", "dense, as large")
    ]
    for base in {run.model.width for run in runs}:
        sizes = [sizes_of(run) for run in runs if run.model.width == base]
        for cost in ("flops", "parameters_total", "parameters_active"):
            values = [getattr(one, cost) for one in sizes]
            assert max(values) < 1.03 * min(values), (base, cost, values)


def test_the_budget_is_spent_and_shares_are_what_was_asked_for():
    for share in (0.1, 0.25, 0.5, 0.9):
        memory = split(share)
        engram, moe = memory.parts
        more = (moe.experts - 2) * (3 * 64 * 88 + 64) * 3
        assert abs(engram.slots * 4 + more - 1_000_000) < 20
        assert abs(engram.slots * 4 / 1_000_000 - share) < 0.03
        assert memory.shares == pytest.approx({"engram": share, "moe": 1 - share}) and memory.sparse is None


def test_a_share_of_nothing_leaves_the_memory_out():
    assert [part.kind for part in split(0).parts] == ["moe"] and split(0).shares == {"engram": 0, "moe": 1}
    assert [part.kind for part in split(1).parts] == ["engram"]
    nothing = apply_shares(
        MemoryConfig.model_validate(
            {
                "sparse": 0,
                "also": [EXPERTS],
                "kind": "moe",
                **{key: value for key, value in EXPERTS.items() if key != "kind"},
            }
        ),
        MODEL,
    )
    assert nothing.kind == "dense"


def test_memories_without_a_share_split_the_rest():
    also = [EXPERTS, {"kind": "memory", "layers": [0], "heads": 2, "top_k": 8}]
    memory = split(0.2, also=also)
    engram, moe, keys = memory.parts
    assert memory.shares == {"engram": 0.2, "moe": 0.4, "memory": 0.4}
    assert abs(keys.slots * 64 - 400_000) < 40_000 and moe.experts > 2 and engram.slots > 1000


@pytest.mark.parametrize(("share", "also"), [(0.7, {**EXPERTS, "share": 0.7}), (0.3, {**EXPERTS, "share": 0.3})])
def test_shares_that_do_not_add_up_are_refused(share, also):
    with pytest.raises(MemxError, match="add up to") as error:
        split(share, also=[also])
    assert error.value.hint


def test_two_memories_cannot_replace_one_feed_forward():
    also = [{"kind": "memory", "slots": 1024, "layers": [1]}]
    with pytest.raises(MemxError, match="two memories replace the feed-forward"):
        load_config("facts", [("memory.layers", [1]), ("memory.also", also), ("sweep", {})])
    with pytest.raises(MemxError, match="also needs a first memory"):
        load_config("facts", [("memory.kind", "dense"), ("memory.also", also), ("sweep", {})])


def test_a_dense_memory_and_an_empty_budget_are_dense():
    assert apply_shares(MemoryConfig(kind="dense", sparse=1000), MODEL).kind == "dense"
    assert split(0.3, sparse=0).kind == "dense"


@pytest.mark.parametrize("changes", [{"sparse": 2000}, {"also": [{**EXPERTS, "expert_width": 2000}]}])
def test_a_budget_that_cannot_be_met_is_refused(changes):
    with pytest.raises(MemxError, match="cannot be split by these shares"):
        split(0.1, **changes)


def test_a_share_of_no_budget_is_refused():
    with pytest.raises(MemxError, match=r"share needs memory\.sparse"):
        load_config("facts", [("memory.share", 0.5), ("sweep", {})])


def test_dense_models_are_made_as_large_as_the_first_model_after_its_own_match():
    runs = {(run.model.width, run.variant): run for run in points(load_config("kinds")) if run.seed == 0}
    for base in ("memory", "dense, as large"):
        assert any(variant == base for _, variant in runs)
    sizes = {
        variant: sizes_of(run).parameters_total
        for (_, variant), run in runs.items()
        if run.memory.kind in ("memory", "dense")
    }
    large = [sizes_of(run).parameters_total for (_, variant), run in runs.items() if variant == "dense, as large"]
    memory = [sizes_of(run).parameters_total for (_, variant), run in runs.items() if variant == "memory"]
    assert all(abs(a - b) < 0.02 * b for a, b in zip(sorted(large), sorted(memory), strict=True)), sizes


def test_a_budget_sets_the_experts_of_a_layer_that_uses_more_of_them_than_layers_have_by_default():
    model = ModelConfig(layers=4, width=64)
    memory = MemoryConfig(kind="moe", layers=(1, 2), experts_per_token=20, expert_width=8, sparse=200_000)
    split = apply_shares(memory, model)
    assert split.experts_per_token == 20 and split.experts > 40
    with pytest.raises(ValueError, match="experts_per_token 20 is above experts 16"):
        MemoryConfig(kind="moe", layers=(1, 2), experts_per_token=20)


def test_sizes_that_a_budget_sets_are_refused():
    with pytest.raises(MemxError, match=r"memory.slots 4096 does nothing with memory.sparse 1,000,000"):
        load_config("shares", [("memory.slots", 4096)])
    assert load_config("shares", [("memory.slots", 4096), ("memory.sparse", None), ("sweep", {})]).memory.slots == 4096
    for other in ({"kind": "memory", "layers": [2], "slots": 4096}, {**EXPERTS, "experts": 8}):
        with pytest.raises(ValueError, match="in also does nothing with"):
            split(0.5, also=[other])


def test_all_memories_are_listed_with_their_sizes_and_shares():
    found = split(0.25)
    moe = found.also[0]
    assert listed(found) == f"engram {found.slots:,} slots (25%), moe {moe.experts} experts (75%)"
    assert listed(MemoryConfig(kind="memory", slots=1024)) == "memory 1,024 slots"


def test_a_budget_below_the_smallest_names_one_that_is_enough():
    memory = MemoryConfig(kind="memory", sparse=10, layers=(1,))
    with pytest.raises(MemxError, match="cannot be split") as error:
        apply_shares(memory, MODEL)
    assert "experts" not in error.value.hint
    enough = int(error.value.hint.rpartition(" ")[2].replace(",", ""))
    assert apply_shares(memory.model_copy(update={"sparse": enough}), MODEL).slots > 0


@pytest.mark.parametrize("key", ["sweep.memory.slots", "variants.memory.memory.slots", "memory.experts"])
def test_sizes_in_sweeps_and_variants_are_refused_too(key):
    with pytest.raises(MemxError, match="does nothing with"):
        load_config("kinds", [(key, [64, 256] if key.startswith("sweep") else 64)])


def test_a_budget_is_for_new_models():
    with pytest.raises(MemxError, match="is for new models"):
        load_config("retrofit", [("memory.sparse", 1000)])
