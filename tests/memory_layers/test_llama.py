"""MemoryLlamaForCausalLM: placement, sharing, saving, loading, generating, and what transformers' tools expect."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from memx import MemoryLayer, MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.memory_layers.llama import draw_weights, memory_layers_of
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

TOKENS = torch.tensor([[3, 5, 7, 11, 13], [2, 4, 6, 8, 10]])


def tiny(**changes) -> MemoryLlamaConfig:
    settings = dict(
        memory_layers=[1],
        memory_slots=64,
        memory_heads=2,
        memory_top_k=4,
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return MemoryLlamaConfig(**{**settings, **changes})


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def test_chosen_blocks_hold_a_memory_and_the_others_a_feed_forward():
    model = MemoryLlamaForCausalLM(tiny(memory_layers=[0, 2]))
    kinds = [type(block.mlp) for block in model.model.layers]
    assert kinds == [MemoryLayer, LlamaMLP, MemoryLayer]


def test_without_memory_it_is_llama():
    model = MemoryLlamaForCausalLM(tiny(memory_layers=[]))
    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(logits(model), logits(plain))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_keep_every_bit(tmp_path, shared, tied):
    config = tiny(memory_layers=[0, 2], memory_shared=shared, tie_word_embeddings=tied, memory_qk_norm=True)
    model = MemoryLlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is MemoryLlamaForCausalLM
    assert torch.equal(logits(model), logits(loaded))
    assert loaded.config.memory_layers == [0, 2]
    first, second = memory_layers_of(loaded)
    assert (first.values is second.values) is shared


KINDS = [
    {"memory_kind": "peer", "memory_layers": [0, 2]},
    {"memory_kind": "moe", "memory_layers": [0, 2], "memory_experts": 3, "memory_experts_per_token": 2},
    {"memory_gating": True, "memory_value_width": 12, "memory_qk_norm": True, "memory_layers": [0, 2]},
    {"memory_insertion": "beside", "memory_output_gate": True, "memory_layers": [1, 2]},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_every_kind_trains_copies_saves_loads_and_generates(tmp_path, changes):
    model = MemoryLlamaForCausalLM(tiny(**changes)).train()
    draw_weights(model, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    twin = copy.deepcopy(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(twin), logits(model)) and torch.equal(logits(loaded), logits(model))
    settings = dict(max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(TOKENS))
    cached = model.double().generate(TOKENS, use_cache=True, **settings)  # float64: no choice hangs on rounding
    assert torch.equal(cached, loaded.double().generate(TOKENS, use_cache=False, **settings))


def test_a_memory_beside_is_silent_at_first():
    beside, plain = (
        MemoryLlamaForCausalLM(tiny(**changes)) for changes in ({"memory_insertion": "beside"}, {"memory_layers": []})
    )
    for model in (beside, plain):
        draw_weights(model, seed=0)
    plain.model.layers[1].mlp.load_state_dict(beside.model.layers[1].mlp.feed_forward.state_dict())
    assert torch.equal(logits(beside), logits(plain))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_kind": "memory+"}, "unknown memory_kind 'memory+'"),
        ({"memory_insertion": "besides"}, "unknown memory_insertion 'besides'"),
    ],
)
def test_names_that_do_not_exist(changes, message):
    with pytest.raises(MemxError) as error:
        MemoryLlamaForCausalLM(tiny(**changes))
    assert error.value.message == message and error.value.hint


def test_a_shared_table_is_saved_once(tmp_path):
    from safetensors import safe_open

    MemoryLlamaForCausalLM(tiny(memory_layers=[0, 1, 2])).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
        tables = [name for name in names if file.get_slice(name).get_shape() == [64, 16]]
    assert len(tables) == 1


def test_deepcopy_shares_inside_and_not_outside():
    model = MemoryLlamaForCausalLM(tiny(memory_layers=[0, 2]))
    twin = copy.deepcopy(model)
    first, second = memory_layers_of(twin)
    assert first.values is second.values
    with torch.no_grad():
        first.values.weight.zero_()
    assert memory_layers_of(model)[0].values.weight.abs().sum() > 0


def test_meta_init_then_materialise_keeps_the_sharing():
    with torch.device("meta"):
        model = MemoryLlamaForCausalLM(tiny(memory_layers=[0, 2], memory_qk_norm=True))
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu")
    draw_weights(model, seed=0)
    first, second = memory_layers_of(model)
    assert first.values is second.values
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_the_base_starts_the_same_whatever_the_memory():
    models = [MemoryLlamaForCausalLM(tiny(**change)) for change in ({"memory_layers": []}, {}, {"memory_slots": 256})]
    for model in models:
        draw_weights(model, seed=3)
    dense = dict(models[0].named_parameters())
    for model in models[1:]:
        same = [name for name, p in model.named_parameters() if name in dense]
        assert len(same) >= len(dense) - 3
        assert all(torch.equal(dense[name], p) for name, p in model.named_parameters() if name in dense)


def test_seeds_differ_and_repeat():
    model = MemoryLlamaForCausalLM(tiny())
    drawn = []
    for seed in (0, 1, 0):
        draw_weights(model, seed)
        drawn.append(logits(model))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_generate_with_cache_equals_without():
    torch.manual_seed(0)
    model = MemoryLlamaForCausalLM(tiny()).eval()
    settings = dict(max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(TOKENS))
    assert torch.equal(
        model.generate(TOKENS, use_cache=True, **settings), model.generate(TOKENS, use_cache=False, **settings)
    )


def test_left_padding_changes_nothing():
    model = MemoryLlamaForCausalLM(tiny()).eval()
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), TOKENS], dim=1)
    mask = (padded != 0).long()
    settings = dict(max_new_tokens=4, do_sample=False)
    plain = model.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), **settings)
    assert torch.equal(model.generate(padded, attention_mask=mask, **settings)[:, 3:], plain)


def test_a_block_that_is_not_there():
    with pytest.raises(MemxError, match="memory layer 7 is outside the model's 3 blocks"):
        MemoryLlamaForCausalLM(tiny(memory_layers=[7]))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
def test_peft_wraps_it(tmp_path):
    peft = pytest.importorskip("peft")
    model = MemoryLlamaForCausalLM(tiny())
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "query"]))
    before = logits(wrapped)
    wrapped.save_pretrained(tmp_path)
    assert before.shape == (2, 5, 40)
    trainable = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    assert trainable and all("lora" in name for name in trainable)


IMPORTS = [
    "import memx, transformers",
    "import transformers, memx",
    "import memx, transformers; transformers.LlamaForCausalLM",
    "import memx; from transformers import MistralForCausalLM; import transformers",
    "import transformers; transformers.LlamaForCausalLM; import memx",
]
FORKS = """if True:
    import gc, json, os, sys
    gc.disable()
    import numpy, torch, torch._dynamo, torch.distributed.tensor, torch.export
    import huggingface_hub.hf_api, tokenizers, torch.distributed.checkpoint, torch.nn.attention.flex_attention
    place, imports = sys.argv[1], json.loads(sys.argv[2])
    assert not {"memx", "transformers"} & set(sys.modules)
    for index, text in enumerate(imports):
        if os.fork() == 0:
            names = {}
            exec(text, names)
            model = names["transformers"].AutoModelForCausalLM.from_pretrained(place)
            print(index, type(model).__name__, flush=True)
            os._exit(0)
        os.wait()"""


@pytest.fixture(scope="module")
def loaded_after(tmp_path_factory):
    """Imports -> the class that AutoModel then gives, and errors; each in a fork of a process that has torch alone."""
    place = tmp_path_factory.mktemp("imports")
    MemoryLlamaForCausalLM(tiny()).save_pretrained(place)
    command = [sys.executable, "-c", FORKS, str(place), json.dumps(IMPORTS)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=place)
    classes = dict(line.split() for line in result.stdout.splitlines())
    return {text: (classes.get(str(index)), result.stderr) for index, text in enumerate(IMPORTS)}


@pytest.mark.parametrize("imports", IMPORTS)
def test_auto_classes_know_it_in_either_import_order(loaded_after, imports):
    name, errors = loaded_after[imports]
    assert name == "MemoryLlamaForCausalLM", errors


def test_auto_config_round_trip(tmp_path):
    tiny(memory_key_width=12).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.memory_key_width, config.memory_slots, config.num_hidden_layers) == (12, 64, 3)
