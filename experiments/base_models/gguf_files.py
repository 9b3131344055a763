"""A GGUF file in installed packages -> its metadata, settings and unpacked weights, and a cached folder made of them.

Weights are unpacked with `gguf`: transformers' own GGUF loader keeps them packed in some versions and will not save
them again, and gets tokenizers wrong.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
from ...files import cache_folder, cannot_write, make_folder, sync_folder
from ...leftovers import sweep, temporary_beside
from ...private_files import private_folder, stranger_inside

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

CONTROL = 3  # GGUF's token type for special tokens
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cached_folder(name: str, convert: Callable[[Path], None]) -> Path:
    """Return the folder of that name in the user's cache; `convert` makes it, in a folder it is given, if need be.

    Two processes may convert at once: each into a folder of its own, and the first to finish gives it its name.
    Raises MemxError if the cache cannot be written, or another user may have made what is there.
    """
    cache = cache_folder()
    folder = cache / name
    make_folder(cache)
    private_folder(cache)
    if not folder.is_dir():
        sweep(cache)
        workplace = temporary_beside(folder)
        made = workplace / "model"  # what convert writes next to it goes with the workplace
        try:
            workplace.mkdir()
            convert(made)
            _publish(made, folder)
        except OSError as error:
            raise cannot_write(folder, error) from None
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
    if stranger := stranger_inside(folder):
        raise MemxError(
            f"the saved model {folder} is not used: {stranger}", hint=f"memx converts it again after: rm -r {folder}"
        )
    return folder


def _publish(made: Path, folder: Path) -> None:
    """Give a finished folder its name; one that another process made meanwhile is as good."""
    for file in made.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    sync_folder(folder.parent)


def package_files(package: str, pattern: str) -> list[Path]:
    """Files of an installed package, which is not imported, by a glob pattern; none if it is not there."""
    spec = find_spec(package)
    places = (spec.submodule_search_locations or []) if spec else []
    return sorted(file for place in places for file in Path(place).glob(pattern))


def check_installed(model: str, files: Mapping[str, list[Path]], hint: str) -> None:
    """Raise MemxError naming what a model lacks of its packages, given with their files, and of gguf."""
    there = {**files, "gguf": find_spec("gguf")}
    if lacking := " and ".join(name for name, found in there.items() if not found):
        raise MemxError(f"the model {model} needs the packages {lacking}", hint=hint)


def save_model(
    folder: Path, config: PretrainedConfig, weights: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write a model of exactly these weights, and its tokenizer, with save_pretrained."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # draws no random numbers: a run's seed gives the same whether or not it converted
        model = AutoModelForCausalLM.from_config(config)
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    tied = ["lm_head.weight"] if config.tie_word_embeddings else []
    assert missing == tied and not unexpected, (missing, unexpected)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def open_gguf(source: Path, architecture: str) -> GGUFReader:
    """Open a GGUF file of a model of that architecture."""
    from gguf import GGUFReader

    reader = GGUFReader(str(source))
    assert read_field(reader, "general.architecture") == architecture, source
    return reader


def read_field(reader: GGUFReader, key: str) -> Any:
    """The value of a metadata key, None if the file has none."""
    field = reader.fields.get(key)
    return field.contents() if field is not None else None


def read_settings(reader: GGUFReader, architecture: str) -> dict[str, Any]:
    """What the configs of Llama and of Gemma name alike, from a file's metadata."""
    names = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    settings = {name: read_field(reader, f"{architecture}.{key}") for name, key in names.items()}
    return settings | {"tie_word_embeddings": tied, "dtype": "float32"}


def read_weights(
    reader: GGUFReader, norms: Mapping[str, str], adapt: Callable[[str, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Unpack a file's weights.

    Args:
        reader: The open file.
        norms: GGUF's name of each norm of a block that Llama and Gemma do not name alike -> transformers' name.
        adapt: From GGUF's name of a kind of tensor, such as attn_q, and its weight to what transformers reckons with.

    Returns:
        transformers' names -> float32 weights.
    """
    import torch
    from gguf.quants import dequantize

    names = {**_BLOCK_NAMES, **norms}
    weights: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        # blk.3.attn_q.weight, output_norm.weight
        *block, kind, _ = tensor.name.split(".")
        name = f"model.layers.{block[1]}.{names[kind]}" if block else _NAMES[kind]
        weights[f"{name}.weight"] = adapt(kind, torch.tensor(dequantize(tensor.data, tensor.tensor_type)))
    return weights


def fast_tokenizer(bpe: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    """transformers' tokenizer around one of tokenizers, padding on the left."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, padding_side="left", clean_up_tokenization_spaces=False, **settings
    )
