"""sizes.py against the model that is built, and its FLOPs against torch's own counter."""

import pytest
import torch
from memx.experiments.build import llama_config
from memx.experiments.config import TrainConfig
from memx.memory_layers.config import MemoryConfig, ModelConfig
from memx.memory_layers.llama import MemoryLlamaForCausalLM
from memx.memory_layers.sizes import feed_forward_flops, memory_flops, model_sizes

CASES = [
    ({}, {"slots": 0}),
    ({}, {"slots": 1024, "heads": 2, "top_k": 8}),
    ({"tie_embeddings": False, "kv_heads": 2}, {"slots": 256, "top_k": 4, "layers": [0, 2], "qk_norm": True}),
    (
        {"width": 96, "feed_forward": 100},
        {"slots": 256, "top_k": 4, "layers": [1, 3], "shared": False, "key_width": 20},
    ),
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


def test_flops_do_not_grow_with_the_table_but_with_its_half_keys():
    model = ModelConfig()
    small, large = (MemoryConfig(slots=n * n, heads=2, top_k=8) for n in (32, 256))
    difference = memory_flops(model, large) - memory_flops(model, small)
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


@pytest.mark.parametrize("slots", [1024, 4096, 16384, 65536])
def test_the_demo_memories_cost_no_more_than_the_feed_forward(slots):
    from memx.experiments.settings import load_config

    config = load_config("facts", [("memory.slots", slots)])
    assert memory_flops(config.model, config.memory) <= feed_forward_flops(config.model)
