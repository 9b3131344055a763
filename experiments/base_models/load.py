"""The name of a pretrained model -> the model and its tokenizer.

A name is `smollm2` or `gemma3-270m` (the extras of those names), a local folder written by `save_pretrained`, or one
on the Hugging Face hub such as `meta-llama/Llama-3.2-1B`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError, nearest
from ...transformers_compat import pad_left
from ..runtime.hub import gated, mute_hub
from .gemma3 import gemma3_folder
from .smollm2 import smollm2_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

SMOLLM2 = "smollm2"
PACKAGED = {SMOLLM2: smollm2_folder, "gemma3-270m": gemma3_folder}
LLAMA_FAMILY = ("llama", "memory_llama")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_EXAMPLES = f"use {SMOLLM2}, a folder written by save_pretrained, or a hub name such as meta-llama/Llama-3.2-1B"
_PADS = ("<|finetune_right_pad_id|>",)  # Llama 3.1 and later name their padding without setting it


def load_host(
    name: str, *, dtype: torch.dtype = torch.float32, any_decoder: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a model of the Llama family in eval mode on the CPU, and its tokenizer, which pads on the left.

    any_decoder: of the Llama family or not, as long as `memx.namm.attach` takes it. Only safetensors are read and no
    code of the model's own is run. Raises MemxError if there is no such model, it cannot be reached, is not of the
    family or not to be attached to, which is found before its weights are fetched, or lacks weights or a tokenizer.
    """
    source, hint = _resolve(name)
    return _load(source, dtype, check_attachable if any_decoder else check_llama_family, hint=hint)


def load_model(name: str, *, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a model for use with `memx.namm.attach`, and its tokenizer.

    Args:
        name: `smollm2` or `gemma3-270m` if they are installed, a folder written by `save_pretrained` (such as
            `results/runs/RUN/checkpoint`), or a name on the Hugging Face hub.
        dtype: Of the weights; float32 if None.

    Returns:
        The model in eval mode on the CPU, and its tokenizer, which pads on the left.

    Raises:
        MemxError: There is no such model, it cannot be read, or eviction does not support its architecture.
    """
    return load_host(name, dtype=dtype or torch.float32, any_decoder=True)


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer that `load_host` would load, padding on the left; a folder need hold no more than its files.

    Raises MemxError as that does.
    """
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    bare = folder.is_dir() and not (folder / "config.json").is_file()
    source, hint = (str(folder), "give a folder with a tokenizer's files") if bare else _resolve(name)
    try:
        with mute_hub():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain ones, and a damaged file any kind
        raise _cannot_load(source, error, hint) from None
    _pad_left(tokenizer)
    return tokenizer


def host_config(name: str, *, any_decoder: bool = False) -> PretrainedConfig:
    """The config of a model that `load_host` would load, without its weights. Raises MemxError as that does."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM  # the second makes memx's models known

    assert AutoModelForCausalLM
    source, hint = _resolve(name)
    try:
        with mute_hub():
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise _cannot_load(source, error, hint) from None
    (check_attachable if any_decoder else check_llama_family)(config)
    return config


def _resolve(name: str) -> tuple[str, str]:
    """The folder or hub name that a name means, and the hint for when it does not load."""
    if name in PACKAGED:
        with mute_hub():
            folder = PACKAGED[name]()
        return str(folder), f"delete the converted copy, and memx converts it again: rm -r {folder}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise MemxError(f"the folder {name} has no model (no config.json)", hint=_folder_hint(folder))
        return str(folder), "give a folder written by save_pretrained, with its tokenizer"
    if not _HUB_NAME.fullmatch(name):
        raise MemxError(f"no model or folder {name!r}", hint=nearest(name, PACKAGED) or _EXAMPLES)
    return name, _EXAMPLES


def _folder_hint(folder: Path) -> str:
    if (folder / "checkpoint" / "config.json").is_file():
        return f"give the checkpoint of the run: {folder / 'checkpoint'}"
    return "give a folder written by save_pretrained, such as results/runs/RUN/checkpoint"


def check_llama_family(config: PretrainedConfig) -> None:
    """Raise MemxError naming the model's type unless it is Llama or memx's own Llama with memory layers."""
    if config.model_type not in LLAMA_FAMILY:
        raise MemxError(f"a model of type {config.model_type!r} is not of the Llama family", hint=_EXAMPLES)


def check_attachable(config: PretrainedConfig) -> None:
    """Raise MemxError unless an eviction policy can be attached to models of this config; makes one without weights."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    from ...namm.attachment import find_decoder, layer_windows

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise MemxError(f"a model of type {config.model_type!r} is not a causal decoder", hint=_EXAMPLES)
    with torch.device("meta"):
        layer_windows(find_decoder(AutoModelForCausalLM.from_config(deepcopy(config), trust_remote_code=False)))


def _load(
    source: str, dtype: torch.dtype, check: Callable[[PretrainedConfig], None], *, hint: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        with mute_hub():
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            check(config)  # before any weights are fetched
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            model, found = loaded
    except (OSError, ValueError, RuntimeError, ImportError, StrictDataclassError, SafetensorError) as error:
        raise _cannot_load(source, error, hint) from None
    if lacking := sorted(found["missing_keys"]):
        # transformers would fill these with random numbers
        raise MemxError(
            f"{source} has missing weights: {', '.join(lacking[:3])}{' …' if lacking[3:] else ''}", hint=hint
        )
    _set_padding(model, tokenizer)
    return model, tokenizer


def _set_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Pad on the left, as generation needs, with the model's own padding token or else its end token."""
    _pad_left(tokenizer)
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def _pad_left(tokenizer: PreTrainedTokenizerFast) -> None:
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next((token for token in _PADS if token in vocabulary), tokenizer.eos_token)
    pad_left(tokenizer)


def _cannot_load(source: str, error: Exception, hint: str) -> MemxError:
    """The user's error behind what transformers raised."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    causes = [*_causes(error)]
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return gated(f"model {source}", source)
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return MemxError(
            f"no folder {source}, and no such model on the Hugging Face hub",
            hint="check the spelling; for a private model run: hf auth login",
        )
    if any(isinstance(cause, LocalEntryNotFoundError | HfHubHTTPError | ConnectionError) for cause in causes):
        place = source.rpartition("/")[2]
        return MemxError(
            f"no folder {source}, and the Hugging Face hub cannot be reached",
            hint=f"on a machine with internet, run: hf download {source} --local-dir {place} --exclude 'original/*'; "
            f"then use the folder {place}",
        )
    return MemxError(f"cannot load {source}: {' '.join(str(error).split())[:200]}", hint=hint)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
