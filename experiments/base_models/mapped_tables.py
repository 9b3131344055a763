"""A model whose value tables stay in its file: rows are read from the memory-mapped file when a token looks them up.

A table then takes no memory of the process but for the pages that were read, and a model starts without reading it. The
rest of the model is loaded as usual, and may move to a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig

from ...errors import MemxError
from ...memory_layers.llama import MemoryLlamaForCausalLM, keep_on_host, tables_of
from .folder_checks import weight_files

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def load_mapped(folder: str, config: PretrainedConfig, dtype: torch.dtype) -> MemoryLlamaForCausalLM:
    """Load a model of memx's from a folder, its value tables mapped and in the dtype of the file.

    Args:
        folder: The folder that `save_pretrained` or a training run wrote.
        config: Its config.
        dtype: Of all other weights.

    Returns:
        The model in eval mode on the CPU. Its tables cannot be trained, and stay on the CPU when it moves.

    Raises:
        MemxError: The folder has no value tables, or lacks a weight or has one of another shape.
    """
    if config.model_type != "memory_llama" or not Path(folder).is_dir():
        raise MemxError(f"{folder} has no value tables to map", hint="use a folder of a model with memory layers")
    with torch.device("meta"):
        model = MemoryLlamaForCausalLM(config)  # pyright: ignore[reportArgumentType]
    mapped = {f"{name}.weight" for name, table in model.named_modules() if table in tables_of(model)}
    expected = dict(model.state_dict())
    found = {name: tensor for name, tensor in _tensors(folder) if name in expected}
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    for name, weight in expected.items():
        if name in found and found[name].shape != weight.shape:
            shapes = f"is {list(found[name].shape)}, but {list(weight.shape)} by config.json"
            raise MemxError(f"{folder}: the weight {name} {shapes}", hint="copy the folder again")
        if name not in found and name not in tied:
            raise MemxError(f"{folder} has missing weights: {name}", hint="copy the folder again")
    own = {name: x if name in mapped else _copied(x, dtype) for name, x in found.items()}
    nn.Module.load_state_dict(model, own, strict=False, assign=True)
    model.tie_weights()
    inner: Any = model.model
    inner.rotary_emb = type(inner.rotary_emb)(config)  # its frequencies are not in the file
    if (Path(folder) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.requires_grad_(False)
    keep_on_host(model)
    return model.eval()


def _copied(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone()


def _tensors(folder: str):
    """Names and memory-mapped tensors of a folder's files; nothing of them is read yet."""
    for path in weight_files(Path(folder)):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no mapping
                yield name, file.get_tensor(name)
