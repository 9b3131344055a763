"""The scores of kvpress's KVzipPress: how much a model needs each cached key and value to repeat its context.

The press reads the context a second time. It frees nothing, as it hides the keys that it drops from attention; so its
scores alone are used, and keys are freed as those of memx's own policies.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from ...transformers_compat import input_device

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@torch.no_grad()
def press_scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, context: Tensor) -> Tensor:
    """Let the press score a context.

    Args:
        model: The base model, without windows.
        tokenizer: Its tokenizer.
        context: Token ids [N].

    Returns:
        Scores [L, H, N]. The first four tokens have the greatest, since the press never drops them.
    """
    module: Any = import_module("kvpress.presses.kvzip_press")
    found: list[Tensor] = []

    class Scoring(module.KVzipPress):
        def compress_post(self, model: PreTrainedModel) -> None:
            self.score_val[..., : self.n_sink] = self.score_val.amax() + 1
            found.append(self.score_val[:, 0].clone())

    loader = module.AutoTokenizer  # the press looks for a tokenizer under the model's name
    module.AutoTokenizer = SimpleNamespace(from_pretrained=lambda name: tokenizer)
    try:
        with Scoring(compression_ratio=0.5)(model):  # any but 0, which scores nothing
            model.base_model(input_ids=context[None].to(input_device(model)), past_key_values=DynamicCache())
    finally:
        module.AutoTokenizer = loader
    return found[0]
