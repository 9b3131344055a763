"""Every damage of a model's folder is one line that names the file, and the key or the tensor; nothing is guessed."""

import json
import shutil
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.experiments.base_models.load import host_config, load_host
from memx.experiments.base_models.model_folder import find_model_folder
from memx.experiments.data.tokenizer import train_tokenizer
from safetensors.torch import load_file, save_file

SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A model with a memory, as a run's checkpoint has it."""
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    config = MemoryLlamaConfig(vocab_size=300, memory_layers=[1], memory_slots=64, memory_top_k=4, **SIZES)
    MemoryLlamaForCausalLM(config).save_pretrained(folder)
    train_tokenizer(list(topics.values())[:3], 300).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refused(folder: Path, *wanted: str) -> None:
    with pytest.raises(MemxError) as error:
        load_host(str(folder))
    line = error.value.message
    assert "\n" not in line and len(line) < 400 and error.value.hint
    for part in wanted:
        assert part in line, line
    for word in ("object", "NoneType", "TypeError", "has no attribute", "expected bool", "'int'", "'str'"):
        assert word not in line.replace("a JSON object", ""), line


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("config.json", "5", "it must be a JSON object"),
        ("config.json", "{", "not JSON"),
        ("config.json", "", "there is no text"),
        ("config.json", '{"model_type": "memory_llama", "model_type": "llama"}', "'model_type' occurs twice"),
        ("config.json", "{}", "cannot load"),
        ("config.json", '{"model_type": "llama", "hidden_act": "../x"}', "hidden_act: no activation '../x'"),
        ("config.json", '{"model_type": "memory_llama", "memory_gating": 1}', "memory_gating must be true or false"),
        ("config.json", '{"model_type": "memory_llama", "memory_shared": null}', "true or false, not null"),
        (
            "config.json",
            '{"model_type": "memory_llama", "memory_kind": []}',
            "memory_kind must be one of memory, ultramem, engram, peer, moe",
        ),
        ("config.json", '{"model_type": "memory_llama", "memory_insertion": "x"}', "one of replace, beside, not 'x'"),
        ("generation_config.json", "[]", "it must be a JSON object"),
        ("generation_config.json", "{,}", "not JSON"),
        (
            "generation_config.json",
            '{"eos_token_id": [[1]]}',
            "eos_token_id must be a token's number or a list of such",
        ),
        ("generation_config.json", '{"pad_token_id": "x"}', "pad_token_id must be a token's number"),
        ("tokenizer_config.json", '{"model_max_length": [1]}', "model_max_length must be a number, not [1]"),
        ("tokenizer.json", "{}", "it describes no tokenizer"),
        ("tokenizer.json", "5", "it must be a JSON object"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}}', "cannot load"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}, "added_tokens": true}', "cannot load"),
        ("tokenizer_config.json", "null", "it must be a JSON object"),
        ("model.safetensors", "", "it is damaged"),
        ("model.safetensors", "random bytes that are no header", "it is damaged"),
    ],
)
def test_files_that_are_damaged(folder, name, content, wanted):
    (folder / name).write_text(content)
    refused(folder, wanted, name if "cannot" not in wanted else str(folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "zzz"), ("dtype", "nn"), ("memory_heads", None), ("memory_heads", -1), ("hidden_size", -32),
        ("vocab_size", 0), ("num_hidden_layers", "two"), ("num_attention_heads", True), ("memory_slots", -64),
        ("memory_layers", ["a"]), ("memory_layers", 5), ("memory_layers", None), ("head_dim", 0),
        ("memory_key_width", "x"), ("max_position_embeddings", 1.5),
    ],
)  # fmt: skip
def test_keys_of_the_config(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    refused(folder, "config.json", key)


@pytest.mark.parametrize(
    ("key", "value"),
    [("memory_slots", 63), ("memory_kind", "cube"), ("rope_parameters", 5), ("num_attention_heads", 5),
     ("hidden_act", "zzz"), ("tie_word_embeddings", {}), ("rope_parameters", {"rope_type": "x"}),
     ("layer_types", 5), ("layer_types", [1]), ("rms_norm_eps", "x"), ("memory_layers", [7])],
)  # fmt: skip
def test_what_only_building_the_model_finds_is_one_line_too(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    refused(folder)


def changed_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda w: w.update({DOWN: w[DOWN].to(torch.int8)}), f"{DOWN} has the dtype I8"),
        (lambda w: w[DOWN].fill_(torch.nan), f"the weight {DOWN} has values that are NaN or infinite"),
        (lambda w: w["model.norm.weight"].select(0, 3).fill_(torch.inf), "model.norm.weight has values"),
        (lambda w: w.pop(DOWN), f"has missing weights: {DOWN}"),
        (lambda w: w.update(other=torch.zeros(2)), "has no place for: other"),
        (lambda w: w.update({DOWN: w[DOWN][:5].clone()}), f"the weight {DOWN} is [5, 64], but [32, 64] by config.json"),
    ],
    ids=["dtype", "nan", "inf", "missing", "extra", "shape"],
)
def test_tensors(folder, change, wanted):
    changed_weights(folder, change)
    refused(folder, wanted)


def test_masks_of_other_families_are_no_weights(whole, tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path)
    for file in whole.glob("*token*"):
        shutil.copy(file, tmp_path)
    attention = "gpt_neox.layers.0.attention"
    more = {f"{attention}.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool), "extra": torch.ones(2, dtype=torch.uint8)}
    changed_weights(tmp_path, lambda weights: weights.update(more))
    model, _ = load_host(str(tmp_path), any_decoder=True)
    assert model.config.model_type == "gpt_neox"
    name = f"{attention}.dense.weight"
    changed_weights(tmp_path, lambda weights: weights.update({name: weights[name].to(torch.int8)}))
    with pytest.raises(MemxError, match=f"the weight {name} has the dtype I8"):
        load_host(str(tmp_path), any_decoder=True)


def test_weights_that_were_cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    refused(folder, "model.safetensors: it is damaged")
    path.unlink()
    path.mkdir()
    refused(folder, "model.safetensors")


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ("../secret.safetensors", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        ("..", "outside the folder"),
        ("model-2.safetensors", "which is missing"),
        (5, "weight_map must be"),
    ],
)
def test_an_index_names_files_of_the_folder_alone(folder, listed, wanted):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder.parent / "secret.safetensors").write_bytes(b"")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": listed}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "model.safetensors.index.json", wanted)


def test_a_vocabulary_larger_than_the_models(folder):
    train_tokenizer(list(topics.values())[:3], 400).save_pretrained(folder)
    refused(folder, "its tokenizer has 400 tokens, but vocab_size of config.json is 300")


def test_a_runs_folder_means_its_checkpoint(whole, tmp_path):
    run = whole.parent
    (run / "run.json").write_text('{"status": "finished"}')
    assert find_model_folder(str(run))[0] == find_model_folder(str(whole))[0] == str(whole)
    assert host_config(str(run)).memory_slots == 64
    unfinished = tmp_path / "tiny-1"
    unfinished.mkdir()
    (unfinished / "run.json").write_text('{"status": "interrupted"}')
    with pytest.raises(MemxError, match="has no model yet: it is not finished") as error:
        load_host(str(unfinished))
    assert "--resume" in error.value.hint
    (unfinished / "run.json").write_text('{"status": "finished"}')
    with pytest.raises(MemxError, match="has no model in it"):
        load_host(str(unfinished))
    with pytest.raises(MemxError, match="is a file, not the folder of a model"):
        load_host(str(whole / "config.json"))


def test_a_tokenizer_that_its_own_library_gives_up_on(folder):
    """A continuing prefix that is longer than a token makes the compiled code of tokenizers panic."""
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text("utf-8"))
    tree["model"]["continuing_subword_prefix"] = "text"
    path.write_text(json.dumps(tree))
    refused(folder, "tokenizer.json is damaged")
