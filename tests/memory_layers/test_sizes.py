"""sizes.py against the model that is built, and its FLOPs against torch's own counter."""

import pytest
import torch
from memx.experiments.config.loading import load_config
from memx.experiments.config.matching import sizes_of
from memx.experiments.config.points import plan, points
from memx.experiments.config.training import TrainConfig
from memx.experiments.models.build import llama_config
from memx.experiments.planning.estimate import cost_of
from memx.memory_layers.config import MemoryConfig, ModelConfig
from memx.memory_layers.llama import MemoryLlamaForCausalLM, tables_of
from memx.memory_layers.sizes import feed_forward_flops, layer_cost, model_sizes
from memx.results.published import published_points, published_total

CASES = [
    ({}, {"slots": 0}),
    ({}, {"slots": 1024, "heads": 2, "top_k": 8}),
    ({"tie_embeddings": False, "kv_heads": 2}, {"slots": 256, "top_k": 4, "layers": [0, 2], "qk_norm": True}),
    (
        {"width": 96, "feed_forward": 100},
        {"slots": 256, "top_k": 4, "layers": [1, 3], "shared": False, "key_width": 20},
    ),
    ({"layers": 12, "width": 24}, {"kind": "memory+", "slots": 256, "top_k": 4}),
    ({}, {"kind": "memory+", "slots": 256, "top_k": 4, "count": 2, "shared": False, "value_width": 24}),
    ({}, {"slots": 256, "top_k": 4, "insertion": "beside", "layers": [0, 3]}),
    ({}, {"kind": "memory+", "slots": 256, "top_k": 4, "count": 1, "insertion": "beside", "output_gate": True}),
    ({}, {"slots": 256, "top_k": 4, "value_width": 40, "qk_norm": True, "output_gate": True}),
    ({}, {"kind": "memory+", "slots": 256, "top_k": 4, "count": 1, "gating": False, "qk_norm": False}),
    ({}, {"slots": 256, "top_k": 4, "gating": True}),
    ({"tie_embeddings": False}, {"kind": "peer", "slots": 256, "layers": [0, 2], "key_width": 20}),
    ({}, {"kind": "peer", "slots": 256, "qk_norm": True}),
    ({}, {"kind": "ultramem", "slots": 256, "top_k": 4, "layers": [0, 2]}),
    ({}, {"kind": "ultramem", "slots": 256, "top_k": 4, "place": "every", "units": True}),
    (
        {},
        {"kind": "ultramem", "slots": 256, "place": "every", "top_k": 4, "value_width": 25, "expansion": 9, "rank": 4},
    ),
    (
        {"width": 96},
        {"kind": "ultramem", "slots": 256, "rank": 1, "layers": [1, 3], "shared": False, "output_gate": True},
    ),
    ({}, {"kind": "ultramem", "slots": 256, "top_k": 4, "units": True, "qk_norm": False, "value_width": 7}),
    ({}, {"kind": "memory", "slots": 256, "top_k": 4, "place": "every", "output_init": "matched"}),
    ({}, {"kind": "moe", "experts": 6}),
    ({}, {"kind": "moe", "experts": 6, "experts_per_token": 2, "layers": [1], "expert_width": 20}),
]


def build(model, memory):
    config = TrainConfig.model_validate({"model": model, "memory": memory, "data": {"sequence": 16}})
    with torch.device("meta"):
        return config, MemoryLlamaForCausalLM(llama_config(config, 300))


@pytest.mark.parametrize(("model", "memory"), CASES, ids=str)
def test_total_parameters_equal_the_model(model, memory):
    config, built = build(model, memory)
    counted = model_sizes(config.model, config.memory, 300)
    assert counted.parameters_total == sum(p.numel() for p in built.parameters())


def test_active_parameters_read_only_the_kept_rows():
    model, memory = ModelConfig(), MemoryConfig(slots=4096, heads=2, top_k=8)
    counted = model_sizes(model, memory, 300)
    assert counted.parameters_total - counted.parameters_active == (4096 - 2 * 8) * 64


@pytest.mark.parametrize(("model", "memory"), CASES, ids=str)
def test_table_parameters_equal_the_model(model, memory):
    config, built = build(model, memory)
    counted = model_sizes(config.model, config.memory, 300)
    assert counted.table == sum(table.weight.numel() for table in tables_of(built))
    assert counted.weight_bytes(4, 2) == 4 * counted.parameters_total - 2 * counted.table


@pytest.mark.parametrize("k", [1, 2])
def test_a_mixture_computes_with_the_experts_of_a_token_alone(k):
    model = ModelConfig()
    few, many = (MemoryConfig(kind="moe", experts=experts, experts_per_token=k) for experts in (4, 16))
    expert, placed = 3 * 64 * model.feed_forward_width, 4
    sizes = model_sizes(model, few, 300)
    assert sizes.parameters_total - sizes.parameters_active == placed * (4 - k) * expert
    difference = model_sizes(model, many, 300).flops - sizes.flops
    assert difference == placed * 2 * 64 * 12


def test_flops_do_not_grow_with_the_table_but_with_its_half_keys():
    model = ModelConfig()
    small, large = (MemoryConfig(slots=n * n, heads=2, top_k=8) for n in (32, 256))
    difference = layer_cost(model, large).flops - layer_cost(model, small).flops
    assert difference == 2 * 2 * 32 * (256 - 32)


def test_matrix_flops_equal_torchs_counter():
    from torch.utils.flop_counter import FlopCounterMode

    config, _ = build({"context": 16}, {"slots": 0})
    built = MemoryLlamaForCausalLM(llama_config(config, 300))
    tokens = torch.zeros(1, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        built(tokens, use_cache=False)
    ours = 16 * model_sizes(config.model, config.memory, 300).flops
    attention = 4 * 4 * 64 * 16 * 16 // 2  # blocks, two products of d by T*T, the visible half
    counted = counter.get_flop_counts()["Global"]
    matrices = sum(flops for op, flops in counted.items() if str(op) == "aten.mm")
    assert matrices == ours - attention


@pytest.mark.parametrize(
    "memory",
    [
        {"kind": "moe", "experts": 3},
        {"kind": "moe", "experts": 4, "experts_per_token": 2, "layers": [1, 2]},
        {"kind": "memory+", "slots": 64, "top_k": 4, "layers": [0, 2], "value_width": 24, "output_gate": True},
        {"slots": 64, "top_k": 4, "insertion": "beside"},
    ],
    ids=str,
)
def test_matrix_flops_of_each_kind_equal_torchs_counter(memory):
    from torch.utils.flop_counter import FlopCounterMode

    config, _ = build({"context": 16}, memory)
    built = MemoryLlamaForCausalLM(llama_config(config, 300))
    with FlopCounterMode(display=False) as counter:
        built(torch.zeros(1, 16, dtype=torch.long), use_cache=False)
    counted = counter.get_flop_counts()["Global"]
    matrices = sum(flops for op, flops in counted.items() if str(op) in ("aten.mm", "aten.bmm"))
    placed, kept = len(config.memory.placed_layers(4)), config.memory
    per_token = model_sizes(config.model, kept, 300).flops - 4 * 4 * 64 * 16 // 2
    if kept.slots:  # torch sees into none of memx's own ops: scores, sums of candidates, sums of rows
        pairs = sum(4 // rank for rank in range(1, 5))
        per_token -= placed * kept.query_heads * (2 * 8 * 32 + pairs + 2 * 4 * (kept.value_width or 64))
    assert matrices == 16 * per_token


PUBLISHED = [
    (point.base, point.model, point.memory_slots, point.total_parameters)
    for point in published_points()
    if point.total_parameters and point.model in ("dense", "memory", "memory+", "peer", "moe")
]


def of_preset(base, kind, slots):
    """The points of a preset that are of that kind and size."""
    for point in points(load_config(base)):
        if (point.memory.kind, point.memory.slots) == (kind, slots or 0):
            return point
    raise AssertionError(f"preset {base} has no {kind} of {slots} slots")


@pytest.mark.parametrize(("base", "kind", "slots", "total"), sorted(set(PUBLISHED), key=str), ids=str)
def test_presets_have_the_published_totals(base, kind, slots, total):
    found = sizes_of(of_preset(base, kind, slots)).parameters_total
    if (base, kind) == ("1.3b", "dense"):
        assert f"{found / 1e9:.1f}" == "1.3" and total == 1.3e9
    else:
        assert found == pytest.approx(total, rel=0.005)


@pytest.mark.parametrize("name", ["dense", "memory+"])
def test_the_8b_base_has_its_published_totals(name):
    found = sizes_of(of_preset("8b", name, 0 if name == "dense" else 2**24))
    if name == "dense":
        assert found.parameters_total == pytest.approx(published_total("8b", "dense", 0), rel=0.005)
    else:
        assert found.table == 2**36
        in_binary_billions = found.parameters_total - found.table + 64e9
        assert in_binary_billions == pytest.approx(published_total("8b", "memory+", 2**24), rel=0.01)


@pytest.mark.parametrize("base", ["134m", "373m", "720m", "1.3b", "8b"])
def test_every_point_of_a_published_base_can_be_built(base):
    for point in points(load_config(base)):
        with torch.device("meta"):
            built = MemoryLlamaForCausalLM(llama_config(point, point.data.vocabulary))
        assert sum(p.numel() for p in built.parameters()) == sizes_of(point).parameters_total, point.variant


def test_a_dry_run_says_the_same(tmp_path):
    for point in plan(load_config("134m", [("data.biographies", 20)])):
        cost = cost_of(point, tmp_path)
        sizes = sizes_of(point.config)
        assert cost.parameters_total == sizes.parameters_total and cost.flops_per_token == sizes.flops
        assert cost.published_total in (None, pytest.approx(sizes.parameters_total, rel=0.01))
        assert (cost.variant, cost.memory_slots) == (point.config.variant, point.config.memory.slots)


@pytest.mark.parametrize("slots", [1024, 4096, 16384, 65536])
def test_the_demo_memories_cost_no_more_than_the_feed_forward(slots):
    config = load_config("facts", [("memory.slots", slots)])
    assert layer_cost(config.model, config.memory).flops <= feed_forward_flops(config.model)
