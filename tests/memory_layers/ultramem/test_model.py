"""UltraMem in the model: its cost, its place in every block, its start, saving and loading."""

from math import isqrt

import pytest
import torch
from memx import MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.experiments.config.base import to_tree, tree_hash
from memx.experiments.config.training import TrainConfig
from memx.experiments.models.build import llama_config
from memx.experiments.models.describe import host_memory_config
from memx.experiments.models.pretrained import choose_trainable, insert_memory
from memx.experiments.optim.optimizer import parameter_groups
from memx.memory_layers.config import MemoryConfig
from memx.memory_layers.layer import ResidualMemory
from memx.memory_layers.llama import draw_weights, tables_of, ultramem_layers_of
from memx.memory_layers.sizes import layer_cost, model_sizes
from transformers import LlamaConfig, LlamaForCausalLM

SMALL = {"kind": "ultramem", "slots": 64, "top_k": 4}
EVERY = {**SMALL, "place": "every"}
TOKENS = torch.arange(2 * 16).view(2, 16) % 300


def build(memory, model=None, seed=0):
    config = TrainConfig.model_validate({"model": model or {}, "memory": memory, "data": {"sequence": 16}})
    built = MemoryLlamaForCausalLM(llama_config(config, 300))
    draw_weights(built, seed)
    return config, built.eval()


@pytest.mark.parametrize("memory", [SMALL, {**EVERY, "units": True}, {**SMALL, "rank": 1, "shared": False}], ids=str)
def test_matrix_flops_equal_torchs_counter(memory):
    from torch.utils.flop_counter import FlopCounterMode

    config, built = build(memory)
    with FlopCounterMode(display=False) as counter:
        built(TOKENS[:1], use_cache=False)
    counted = counter.get_flop_counts()["Global"]
    matrices = sum(flops for op, flops in counted.items() if str(op) in ("aten.mm", "aten.bmm"))
    kept, placed = config.memory, len(config.memory.placed_layers(4))
    widths = 32 + (64 if kept.units else 0)
    heads, k, d_k, r = 2, 4, 32, kept.rank
    pairs = heads * 8 if r == 1 else 2 * heads * (k * d_k + k * r * r + k * k * r)
    hidden = 2 * heads * isqrt(kept.virtual_slots) * d_k + pairs + 2 * heads * k * widths  # inside memx's own ops
    seen = 2 * heads * k * r * r if r > 1 else 0  # the scores of the chosen slots, once more for their gradients
    attention = 4 * 4 * 64 * config.model.context // 2
    per_token = model_sizes(config.model, kept, 300).flops - attention - placed * (hidden - seen)
    if not kept.units and r > 1:
        assert layer_cost(config.model, kept).flops == 2 * (64 * 64 + 4 * 32 * 64) + hidden
    assert matrices == 16 * per_token


def test_every_block_has_a_memory_beside_its_feed_forward():
    config, built = build(EVERY)
    assert config.memory.placed_layers(4) == (0, 1, 2, 3) and config.memory.insertion == "beside"
    blocks = [block.mlp for block in built.model.layers]
    assert all(isinstance(block, ResidualMemory) for block in blocks)
    x = torch.randn(3, 64)
    torch.testing.assert_close(blocks[1](x), blocks[1].feed_forward(x) + blocks[1].memory(x))
    assert len(tables_of(built)) == 1  # shared
    assert len(tables_of(build({**EVERY, "shared": False})[1])) == 4
    assert len(tables_of(build({**EVERY, "units": True})[1])) == 8  # two for each block, never shared


def test_place_every_holds_whatever_layers_say_and_for_other_kinds():
    assert MemoryConfig(**EVERY, layers=(1,), count=2).placed_layers(3) == (0, 1, 2)
    assert MemoryConfig(slots=64, top_k=4, place="every").insertion == "beside"
    peer = MemoryConfig(kind="peer", slots=256, place="every")
    assert peer.insertion == "replace" and peer.placed_layers(3) == (0, 1, 2)


@pytest.mark.parametrize("model", [{}, {"initializer_range": 0.05, "feed_forward": 100}], ids=str)
@pytest.mark.parametrize("kind", [{"units": True}, {}, {"kind": "memory"}, {"kind": "memory+"}], ids=str)
def test_memories_start_with_the_variance_of_the_feed_forward_beside_them(kind, model):
    memory = {**EVERY, "slots": 1024, "top_k": 16, "output_init": "matched", **kind}
    block = build(memory, model)[1].model.layers[2].mlp
    x = torch.randn(500, 64)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    ratio = (block.memory(x).std() / block.feed_forward(x).std()).item()
    assert ratio == pytest.approx(1, rel=0.25)


def test_which_memories_start_matched():
    assert MemoryConfig(**EVERY).matched and MemoryConfig(**SMALL).matched
    assert not MemoryConfig(**SMALL, insertion="beside").matched
    assert not MemoryConfig(slots=64, top_k=4).matched and not MemoryConfig(slots=64, top_k=4, place="every").matched
    assert not MemoryConfig(**EVERY, output_init="published").matched


@pytest.mark.parametrize("memory", [SMALL, EVERY, {**EVERY, "units": True}], ids=str)
def test_saved_and_loaded_it_computes_the_same(memory, tmp_path):
    config, built = build(memory)
    built.save_pretrained(tmp_path)
    loaded = MemoryLlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(TOKENS).logits, built(TOKENS).logits)
    described = host_memory_config(loaded.config)
    assert model_sizes(config.model, described, 300) == model_sizes(config.model, config.memory, 300)
    assert (described.rank, described.virtual_tables, described.weights) == (2, 1 if config.memory.units else 4, "none")


def test_generating_with_a_cache_equals_the_whole_forward():
    _, built = build(EVERY)
    built = built.double()
    whole = built(TOKENS, use_cache=False).logits
    first = built(TOKENS[:, :10], use_cache=True)
    rest = built(TOKENS[:, 10:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(torch.cat([first.logits, rest], 1), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("memory", [{**SMALL, "insertion": "beside"}, EVERY, {**EVERY, "units": True}], ids=str)
def test_inserted_beside_it_changes_no_output_at_first(memory):
    torch.manual_seed(0)
    shape = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, vocab_size=300)
    base = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    model = insert_memory(base, MemoryConfig(**memory), seed=0)
    assert torch.equal(model(TOKENS).logits, base(TOKENS).logits)
    choose_trainable(model, "memory")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.endswith("core") for name in trained) and any("table" in name for name in trained)
    assert not any("self_attn" in name or "feed_forward" in name for name in trained)


def test_groups_of_the_optimizer():
    _, built = build({**EVERY, "units": True, "rank": 2})
    found = parameter_groups(built).items()
    groups = {kind: [name.rpartition("mlp.memory.")[2] for name, _ in group] for kind, group in found}
    assert groups["values"].count("table.weight") == groups["values"].count("down.weight") == 4
    assert groups["others"].count("keys") == groups["others"].count("core") == 4  # no weight decay
    assert groups["matrices"].count("output.weight") == groups["matrices"].count("query.weight") == 4


def test_layers_leave_the_loss_on_their_cores():
    _, built = build({**EVERY, "rank": 3, "key_width": 12})
    layers = ultramem_layers_of(built)
    built.train()(TOKENS)
    assert len(layers) == 4 and all(layer.excess is not None for layer in layers)


def test_hashes_of_configs_without_the_keys_stay():
    tree = to_tree(TrainConfig.model_validate({"data": {"sequence": 16}}))
    later = ("place", "scores", "output_init", "rank", "core_penalty", "expansion", "units")
    older = {**tree, "memory": {key: value for key, value in tree["memory"].items() if key not in later}}
    assert len(tree["memory"]) - len(older["memory"]) == len(later) and tree_hash(older) == tree_hash(tree)
    assert tree_hash(tree) != tree_hash({**tree, "memory": {**tree["memory"], "scores": "none"}})


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({**SMALL, "expansion": 2}, "expansion 2 is not a square"),
        ({**SMALL, "slots": 60}, "slots 60 is not a square"),
        ({**SMALL, "top_k": 17}, r"top_k 17 is not in 1\.\.16"),
        ({**SMALL, "key_width": 10}, "key_width 10 cannot be split"),
        ({**SMALL, "rank": 3}, "key_width 32 cannot be split"),
        ({**SMALL, "gating": True}, "gating is not supported"),
    ],
    ids=str,
)
def test_keys_that_do_not_fit_are_refused(memory, said):
    with pytest.raises((ValueError, MemxError), match=said):
        TrainConfig.model_validate({"memory": memory, "data": {"sequence": 16}})
