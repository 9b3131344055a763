"""What GGUF files in installed packages share: metadata, unpacked weights, and a cache of the folders made of them.

Weights are unpacked with `gguf`: transformers' own GGUF loader keeps them packed in some versions and will not save
them again, and gets tokenizers wrong.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
from ...files import cannot_write, make_folder, sync_folder

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

CONTROL = 3  # GGUF's token type for special tokens


def cached_folder(name: str, convert: Callable[[Path], None]) -> Path:
    """Return the folder of that name in the user's cache; `convert` makes it, in a folder it is given, if need be.

    Two processes may convert at once: each into a folder of its own, and the first to finish gives it its name.
    Raises MemxError if the cache cannot be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memx"
    folder = cache / name
    if folder.is_dir():
        return folder
    make_folder(cache)
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}.") as temporary:
            made = Path(temporary) / "model"
            convert(made)
            _publish(made, folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
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
        raise MemxError(f"the model {model} needs {lacking}", hint=hint)


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


def read_field(reader: GGUFReader, key: str) -> Any:
    """The value of a metadata key, None if the file has none."""
    field = reader.fields.get(key)
    return field.contents() if field is not None else None


def unpack(tensor: ReaderTensor) -> Tensor:
    """A tensor's weights in float32, in transformers' shape."""
    import torch
    from gguf.quants import dequantize

    return torch.tensor(dequantize(tensor.data, tensor.tensor_type))
