"""The model of an evaluation: its config -> the loaded model with its tokenizer, and the fields of rows about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError
from ...hub import quick_hub
from ...memory_layers.sizes import model_sizes
from ...results.store.environment import commit
from ...results.store.runs import Run
from ..base_models.load import LLAMA_FAMILY, host_config, load_host, load_tokenizer
from ..config.loading import load_config
from ..config.question_answering import QaConfig
from ..data.chat import check_chat
from ..models.describe import host_memory_config, host_model_config, model_and_memory
from ..runtime.devices import pick_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from ..config.training import TrainConfig


def load_model(config: QaConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load the model of an evaluation on its device, set to plain greedy decoding.

    Args:
        config: The evaluation.

    Returns:
        The model, in eval mode, and its tokenizer.

    Raises:
        MemxError: The model cannot be loaded, or the device is not there.
    """
    from transformers import GenerationConfig

    device = pick_device(config.device, "--device")
    with quick_hub():
        model, tokenizer = load_host(config.model, dtype=getattr(torch, config.dtype), any_decoder=True)
    ends = getattr(model.generation_config, "eos_token_id", None)
    if config.chat and tokenizer.eos_token_id is not None:  # of an instruct model, the end of its turn
        ends = [*dict.fromkeys([*([ends] if isinstance(ends, int) else ends or []), tokenizer.eos_token_id])]
    # a checkpoint may bring sampling and penalties, which `generate` takes where nothing else is said
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    torch.nn.Module.to(model, device)  # transformers types its own .to too narrowly
    return model.eval(), tokenizer


def check_model(config: QaConfig) -> PretrainedConfig:
    """Check that the model could be loaded, before any weight is read.

    Args:
        config: The evaluation.

    Returns:
        The model's config.

    Raises:
        MemxError: As `load_model` does.
    """
    pick_device(config.device, "--device")
    with quick_hub():
        return host_config(config.model, any_decoder=True)


def check_template(config: QaConfig) -> None:
    """Check that the tokenizer of an evaluation through a chat template has one, before any weight is read.

    Args:
        config: The evaluation.

    Raises:
        MemxError: The tokenizer has no chat template, or cannot be loaded.
    """
    if config.chat:
        with quick_hub():
            check_chat(load_tokenizer(config.model), config.model)


def context_of(config: PretrainedConfig) -> int:
    """Return how many tokens a model reads and writes together."""
    values: Any = config.get_text_config()
    return int(values.max_position_embeddings)


def about_model(config: QaConfig, model: PreTrainedModel, label: str) -> dict[str, Any]:
    """Describe the evaluated model in the fields of rows.

    For a run of memx train these are its base, variant, seed and experiment, so that the evaluations of a sweep lie on
    one line of a plot.

    Args:
        config: The evaluation.
        model: The loaded model.
        label: The model's name in tables, unless it has a title.

    Returns:
        Fields of `Row`.
    """
    about: dict[str, Any] = {
        "experiment": "",
        "kind": "dense",
        "model": label,
        "parameters_total": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(model.device),
        "commit": commit(),
        "checkpoint": config.model,
        "dtype": config.dtype,
    }
    trained = _training(config)
    if trained is not None:
        about |= {
            "variant": trained.variant,
            "seed": trained.seed,
            "experiment": Run(Path(config.run or "")).experiment,
        }
    if model.config.model_type not in LLAMA_FAMILY:
        return about
    base, memory = host_model_config(model.config, label), host_memory_config(model.config)
    if trained is not None:
        base, memory = model_and_memory(trained, model)
    sizes = model_sizes(base, memory, model.config.vocab_size)
    about |= {"kind": memory.kind, "model": base.title, "memory_slots": memory.slots}
    return about | {"parameters_active": sizes.parameters_active, "flops": sizes.flops}


def _training(config: QaConfig) -> TrainConfig | None:
    """The config of the model's run; None where it is no run, or its config is of another version."""
    if config.run is None:
        return None
    try:
        return load_config(str(Path(config.run) / "config.yaml"))
    except MemxError:
        return None
