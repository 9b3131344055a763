"""The hosts of the benchmark of eviction: a name -> a model on its device, and tokens for it to read.

`tiny-llama` and `llama-8b` have random weights and read random tokens; others are pretrained and read Python's manual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import MemxError
from .load import host_config, load_host
from .rope import positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TINY, LARGE = "tiny-llama", "llama-8b"
_VOCABULARY = 2048
_SHAPES: dict[str, dict[str, Any]] = {
    TINY: dict(
        num_hidden_layers=4,
        hidden_size=256,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=688,
        max_position_embeddings=2**17,
    ),
    LARGE: dict(
        num_hidden_layers=32,
        hidden_size=4096,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        max_position_embeddings=2**17,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    ),
}


@dataclass(frozen=True)
class Host:
    """A model in eval mode, and the text that it reads: token ids [N], or None for random ones."""

    name: str
    model: PreTrainedModel
    text: Tensor | None

    def ids(self, batch: int, context: int, seed: int = 0) -> Tensor:
        """So many prompts: [batch, context], each from another place in the text."""
        place = self.model.device
        if self.text is None:
            generator = torch.Generator().manual_seed(seed)
            return torch.randint(self.model.config.vocab_size, (batch, context), generator=generator).to(place)
        starts = torch.arange(batch)[:, None] * (len(self.text) // batch)
        return self.text[(starts + torch.arange(context)) % len(self.text)].to(place)


def check_host(name: str, layers: int | None, longest: int) -> None:
    """Raise MemxError for a host that is none, layers that it cannot have, or more tokens than it was made for."""
    if name in _SHAPES:
        most = _SHAPES[name]["max_position_embeddings"]
    else:
        most = positions(host_config(name))
        if layers is not None:
            raise MemxError(
                f"--layers cannot change the layers of {name}", hint=f"use it with --model {TINY} or {LARGE}"
            )
    if most is not None and longest > most:
        raise MemxError(
            f"{name} has a context of {most:,} tokens, shorter than {longest:,}", hint="use a shorter --context"
        )


def build_host(name: str, layers: int | None, device: torch.device, dtype: torch.dtype) -> Host:
    """Draw or load a model. Raises MemxError as `load_host` does."""
    if name in _SHAPES:
        return Host(name, _random_llama(name, layers, device, dtype), None)
    from pydoc_data.topics import topics

    model, tokenizer = load_host(name, dtype=dtype)
    torch.nn.Module.to(model, device)
    text = tokenizer("\n\n".join(topics.values()), verbose=False)["input_ids"]
    return Host(name, model, torch.tensor(text))


def _random_llama(name: str, layers: int | None, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = (
        {"attn_implementation": "sdpa"} | _SHAPES[name] | ({} if layers is None else {"num_hidden_layers": layers})
    )
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # drawn where and as they stay: an 8B model in float32 would take 32 GB
    try:
        with device:
            return LlamaForCausalLM(LlamaConfig(vocab_size=_VOCABULARY, **shape)).eval()
    finally:
        torch.set_default_dtype(usual)
