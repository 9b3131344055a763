"""The name of a pretrained model -> the model and its tokenizer.

A name is `smollm2` or `gemma3-270m` (the extras of those names), a local folder written by `save_pretrained`, the
folder of a training run, or one on the Hugging Face hub such as `meta-llama/Llama-3.2-1B`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError
from ...hub import mute_hub, quick_hub
from ...transformers_compat import pad_left, panics_as_errors
from .folder_checks import (
    LLAMA_FAMILY,
    check_config_file,
    check_loaded,
    check_tokenizer_files,
    check_vocabulary,
    check_weight_files,
)
from .load_errors import cannot_load
from .model_folder import EXAMPLES, find_model_folder, may_be_on_hub
from .rope import with_rope

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_PADS = ("<|finetune_right_pad_id|>",)  # Llama 3.1 and later name their padding without setting it


def load_host(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    any_decoder: bool = False,
    rope: Mapping[str, Any] | None = None,
    device_map: str | None = None,
    map_tables: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a model of the Llama family in eval mode on the CPU, and its tokenizer, which pads on the left.

    any_decoder: of the Llama family or not, as long as `memx.namm.attach` takes it. rope: rotary settings in place of
    the model's own. device_map: how accelerate spreads the layers over all devices; None: not. map_tables: as in
    `load_model`. Only safetensors are read and no code of the model's own is run. Raises MemxError if there is no such
    model, it cannot be reached, is not of the family or not to be attached to, which is found before its weights are
    fetched, or lacks weights or a tokenizer.
    """
    source, hint = find_model_folder(name)
    check = check_attachable if any_decoder else check_llama_family
    if device_map is not None and find_spec("accelerate") is None:
        raise MemxError("host.device_map needs the package accelerate", hint="pip install accelerate")
    return _load(
        source,
        dtype,
        lambda config: check(with_rope(config, rope, name)),
        hint=hint,
        device_map=device_map,
        mapped=map_tables,
    )


def load_model(
    name: str, *, dtype: torch.dtype | None = None, map_tables: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a model for use with `memx.namm.attach`, and its tokenizer.

    Args:
        name: `smollm2` or `gemma3-270m` if they are installed, a folder written by `save_pretrained`, the folder of a
            run of `memx train` (such as `results/runs/RUN`), or a name on the Hugging Face hub.
        dtype: Of the weights; float32 if None.
        map_tables: Whether value tables stay in the file, in its dtype, and rows are read from there when tokens look
            them up. The model must be a folder of one with memory layers.

    Returns:
        The model in eval mode on the CPU, and its tokenizer, which pads on the left.

    Raises:
        MemxError: There is no such model, it cannot be read, or eviction does not support its architecture.
    """
    return load_host(name, dtype=dtype or torch.float32, any_decoder=True, map_tables=map_tables)


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer that `load_host` would load, padding on the left; a folder need hold no more than its files.

    Raises MemxError as that does.
    """
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    bare = folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", "run.json"))
    source, hint = (str(folder), "give a folder with a tokenizer's files") if bare else find_model_folder(name)
    check_tokenizer_files(source)
    try:
        with _asked(source), panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain ones, and a damaged file any kind
        raise cannot_load(source, error, hint, "tokenizer.json") from None
    _pad_left(tokenizer)
    return tokenizer


def host_config(name: str, *, any_decoder: bool = False, rope: Mapping[str, Any] | None = None) -> PretrainedConfig:
    """The config of a model that `load_host` would load, without its weights. Raises MemxError as that does."""
    from transformers import AutoConfig, AutoModelForCausalLM  # the second makes memx's models known

    assert AutoModelForCausalLM
    source, hint = find_model_folder(name)
    check_config_file(source)
    check = check_attachable if any_decoder else check_llama_family
    try:
        with _asked(source):
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            check(with_rope(config, rope, name))  # which makes the model without its weights
    except MemxError:
        raise
    except Exception as error:  # a damaged file raises any kind
        raise cannot_load(source, error, hint, "config.json") from None
    return config


def check_llama_family(config: PretrainedConfig) -> None:
    """Raise MemxError naming the model's type unless it is Llama or memx's own Llama with memory layers."""
    if config.model_type not in LLAMA_FAMILY:
        raise MemxError(f"a model of type {config.model_type!r} is not of the Llama family", hint=EXAMPLES)


def check_attachable(config: PretrainedConfig) -> None:
    """Raise MemxError unless an eviction policy can be attached to models of this config; makes one without weights."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    from ...namm.trial import check_structure

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise MemxError(f"a model of type {config.model_type!r} is not a causal decoder", hint=EXAMPLES)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(deepcopy(config), trust_remote_code=False)
    check_structure(model)


def _asked(source: str) -> AbstractContextManager[None]:
    """Mute the hub inside; a hub that is out of reach is not asked again and again."""
    return quick_hub() if may_be_on_hub(source) else mute_hub()


def _load(
    source: str,
    dtype: torch.dtype,
    check: Callable[[PretrainedConfig], None],
    *,
    hint: str,
    device_map: str | None = None,
    mapped: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    check_config_file(source)
    check_tokenizer_files(source)
    whole = check_weight_files(source)
    part = "config.json"
    try:
        with mute_hub(), panics_as_errors():
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            check(config)  # before any weights are fetched
            part = "tokenizer.json"
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            check_vocabulary(source, config, tokenizer)
            part = "config.json"
            if mapped:
                from .mapped_tables import load_mapped

                model = load_mapped(source, config, dtype)
                _set_padding(model, tokenizer)
                return model, tokenizer
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                device_map=device_map,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused by name below
            )
            model, found = loaded
    except MemxError:
        raise
    except Exception as error:  # tokenizers raises plain ones, and a damaged file any kind
        raise cannot_load(source, error, hint, part) from None
    check_loaded(source, model, found, whole, hint=hint)
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
