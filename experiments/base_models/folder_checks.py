"""A model's folder -> nothing, or one line that names the file, and the key or the tensor in it, that is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MemxError, shown, tensor_file_reason
from ...json_text import BadJson, parse_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

LLAMA_FAMILY = ("llama", "memory_llama")
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_INDEX = "model.safetensors.index.json"
# whole numbers of at least 1 where a config has them at all
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_SIZES += ("max_position_embeddings", "memory_heads", "memory_top_k", "memory_experts", "memory_experts_per_token")
_SIZES += ("memory_rank", "memory_expansion")
_OPTIONAL_SIZES = ("num_key_value_heads", "head_dim", "memory_key_width", "memory_value_width", "memory_expert_width")

_SWITCHES = ("memory_qk_norm", "memory_gating", "memory_output_gate", "memory_shared")
_SWITCHES += ("memory_signed_root", "memory_convolution", "memory_units")
_CHOICES = {
    "memory_kind": ("memory", "ultramem", "engram", "peer", "moe"),
    "memory_insertion": ("replace", "beside"),
    "memory_scores": ("softmax", "none"),
    "memory_output_init": ("published", "matched"),
}


def check_config_file(source: str) -> None:
    """Raise MemxError for a config.json of a folder that is damaged, or whose sizes are none."""
    if not (folder := Path(source)).is_dir():
        return  # a hub name: what is fetched has been checked where it was written
    config = _object(folder / "config.json")
    # others have null for a default of their own, or one size for each block
    own = config.get("model_type") in LLAMA_FAMILY
    for key in (*_SIZES, *_OPTIONAL_SIZES):
        value = config.get(key)
        absent = key not in config or (value is None and (key in _OPTIONAL_SIZES or not own))
        sizes = value if isinstance(value, list) and not own else [value]
        if not absent and any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
            raise _wrong(folder / "config.json", f"{key} must be a whole number of at least 1, not {value!r}")
    for key in ("dtype", "torch_dtype"):
        if config.get(key) is not None and not _is_dtype(config[key]):
            raise _wrong(folder / "config.json", f"{key}: no dtype {config[key]!r}")
    if own and not _is_activation(act := config.get("hidden_act", "silu")):
        raise _wrong(folder / "config.json", f"hidden_act: no activation {act!r}")
    slots, layers = config.get("memory_slots", 0), config.get("memory_layers", [])
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 0:
        raise _wrong(folder / "config.json", f"memory_slots must be a whole number of at least 0, not {slots!r}")
    if not isinstance(layers, list) or not all(type(layer) is int and layer >= 0 for layer in layers):
        raise _wrong(folder / "config.json", f"memory_layers must be a list of block numbers, not {layers!r}")
    for key in _SWITCHES:
        if not isinstance(value := config.get(key, False), bool):
            raise _wrong(folder / "config.json", f"{key} must be true or false, not {shown(value)}")
    for key, allowed in _CHOICES.items():
        if (value := config.get(key, allowed[0])) not in allowed:
            raise _wrong(folder / "config.json", f"{key} must be one of {', '.join(allowed)}, not {shown(value)}")
    if (path := folder / "generation_config.json").exists():
        written = _object(path)  # transformers would go on without it
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = value if isinstance(value := written.get(key), list) else [value]
            if value is not None and not all(type(one) is int for one in ids):
                raise _wrong(path, f"{key} must be a token's number or a list of such, not {shown(value)}")


def check_tokenizer_files(source: str) -> None:
    """Raise MemxError for tokenizer files of a folder that are damaged."""
    if not (folder := Path(source)).is_dir():
        return
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (path := folder / name).exists():
            limit = _object(path).get("model_max_length")
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
                raise _wrong(path, f"model_max_length must be a number, not {shown(limit)}")
    if (path := folder / "tokenizer.json").exists():
        kind = _object(path).get("model")
        if not isinstance(kind, dict) or not kind.get("vocab"):
            raise _wrong(path, "it describes no tokenizer (no vocabulary)")


def check_weight_files(source: str) -> dict[str, str]:
    """Read what the weight files of a folder say of their tensors.

    Args:
        source: The folder; another name has no files yet.

    Returns:
        The names of tensors that are not floating-point -> their dtypes; `check_loaded` finds out if one is a weight.

    Raises:
        MemxError: A file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, str] = {}
    if not (folder := Path(source)).is_dir():
        return found
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118, it is no mapping
                    if (dtype := file.get_slice(name).get_dtype()) not in _FLOATS:
                        found[name] = dtype
        except (SafetensorError, OSError) as error:
            raise _wrong(path, f"it is damaged ({tensor_file_reason(error)})") from None
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a folder's index lists, or the only one; none where there are none."""
    path = folder / _INDEX
    if (folder / "model.safetensors").exists() or not path.exists():
        return [folder / "model.safetensors"] if (folder / "model.safetensors").exists() else []
    listed = _object(path).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise _wrong(path, "weight_map must be names of tensors with names of files")
    for tensor, name in listed.items():
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
            raise _wrong(path, f"{tensor} is said to lie outside the folder, in {name!r}")
        if not (folder / name).is_file():
            raise _wrong(path, f"{tensor} is said to lie in {name}, which is missing")
    return [folder / name for name in sorted(set(listed.values()))]


def check_vocabulary(source: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise MemxError if a model has no row for a token that its tokenizer gives."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    # tokens that were added later may lie beyond the model's, as those of pictures do
    if isinstance(rows, int) and tokenizer.vocab_size > rows:
        raise MemxError(
            f"{source}: its tokenizer has {tokenizer.vocab_size:,} tokens, but vocab_size of config.json is {rows:,}",
            hint="use the tokenizer that the model was trained with",
        )
    for name in ("eos", "pad", "bos"):
        token: Any = getattr(tokenizer, f"{name}_token_id")
        if isinstance(rows, int) and token is not None and token >= rows:
            raise MemxError(
                f"{source}: the {name} token of its tokenizer is {token:,}, outside vocab_size {rows:,} of config.json",
                hint="use the tokenizer that the model was trained with",
            )


def check_loaded(
    source: str, model: PreTrainedModel, found: Mapping[str, Any], whole: Mapping[str, str], *, hint: str
) -> None:
    """Raise MemxError for weights that were missing, of another shape or kind, or not finite, naming the first.

    Those that the model does not have are refused in the Llama family: others have masks, and heads for other tasks.

    Args:
        source: Where it was loaded from.
        model: The loaded model.
        found: What transformers says of loading it.
        whole: Its tensors that are not floating-point, as `check_weight_files` found them.
        hint: What to do.
    """
    from ...transformers_compat import offloaded_weight

    weights = dict(model.named_parameters())
    prefix = f"{model.base_model_prefix}."
    for name, dtype in whole.items():
        known = {name, prefix + name, name.removeprefix(prefix)} & weights.keys()
        if any(weights[one].is_floating_point() for one in known):  # those of a quantised model are none
            raise MemxError(f"{source}: the weight {name} has the dtype {dtype}, not a floating-point one", hint=hint)
    for name, there, here in sorted(found["mismatched_keys"]):
        raise MemxError(f"{source}: the weight {name} is {list(there)}, but {list(here)} by config.json", hint=hint)
    if lacking := sorted(found["missing_keys"]):
        # transformers would fill these with random numbers
        raise MemxError(f"{source} has missing weights: {_first(lacking)}", hint=hint)
    extra = sorted(name for name in found["unexpected_keys"] if not name.endswith("rotary_emb.inv_freq"))
    if model.config.model_type in LLAMA_FAMILY and extra:
        raise MemxError(f"{source} has weights that its config.json has no place for: {_first(extra)}", hint=hint)
    for name, weight in weights.items():
        if not weight.is_floating_point():
            continue
        if weight.device.type == "meta":
            weight = offloaded_weight(model, name)
        low, high = (weight.float() if weight.itemsize == 1 else weight).detach().aminmax()
        # a comparison with a NaN is false
        if not (float("-inf") < float(low) and float(high) < float("inf")):
            raise MemxError(f"{source}: the weight {name} has values that are NaN or infinite", hint=hint)


def _first(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{' …' if names[3:] else ''}"


def _object(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes(), finite=False)
    except BadJson as error:
        raise _wrong(path, error.reason) from None
    except OSError as error:
        raise MemxError(f"cannot read {path}: {error.strerror or error}", hint="check its permissions") from None
    if not isinstance(content, dict):
        raise _wrong(path, "it must be a JSON object")
    return content


def _is_dtype(name: Any) -> bool:
    import torch

    return isinstance(name, str) and isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype)


def _is_activation(name: Any) -> bool:
    from transformers.activations import ACT2FN

    return isinstance(name, str) and name in ACT2FN


def _wrong(path: Path, what: str) -> MemxError:
    return MemxError(f"{path}: {what}", hint="copy the folder again, or write it again with save_pretrained")
