"""The decoder of a Llama with memory layers: transformers' own, which tells n-gram memories their tokens.

B sequences, Q columns of input after P that a cache holds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaModel

from ..errors import MemxError
from .engram.block import TOKENS, EngramDecoderLayer
from .engram.state import SEEN, add_tokens, carried_by
from .engram.token_classes import TokenClasses
from .engram.tokens import NgramTokens
from .engram.windows import last_tokens, valid_columns
from .insertion import place_memory_layers

_COLUMNS = "memx_columns"  # the argument by which an eviction policy says which columns are tokens


class MemoryLlamaModel(LlamaModel):
    """The decoder of a Llama with memory layers; blocks may have an n-gram memory, which reads token ids.

    Args:
        config: A MemoryLlamaConfig.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        place_memory_layers(self.layers, config)
        engrams = any(isinstance(block, EngramDecoderLayer) for block in self.layers)
        self.token_classes = TokenClasses(config.vocab_size) if engrams else None
        if engrams and getattr(config, "memory_pad_token", None) is None:
            # saved with the model: whoever sets another padding token later does not change what was learned
            pad = config.pad_token_id
            config.memory_pad_token = pad if isinstance(pad, int) and 0 <= pad < config.vocab_size else 0
        self.post_init()

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the decoder, as `LlamaModel` does.

        Raises:
            MemxError: The model has an n-gram memory, and there are no token ids, or the cache is another model's.
        """
        given = dict(attention_mask=attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds)
        columns = kwargs.pop(_COLUMNS, None)
        if self.token_classes is None:
            return super().forward(input_ids, past_key_values=past_key_values, use_cache=use_cache, **given, **kwargs)
        if input_ids is None:
            raise MemxError("an n-gram memory reads token ids, and there are only embeddings", hint="pass input_ids")
        used = self.config.use_cache if use_cache is None else use_cache
        if used and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        carried = None if past_key_values is None else carried_by(past_key_values)
        tokens, line = self._tokens(input_ids, attention_mask if columns is None else columns, position_ids, carried)
        handed: dict[str, Any] = {**kwargs, TOKENS: tokens}
        output = super().forward(input_ids, past_key_values=past_key_values, use_cache=use_cache, **given, **handed)
        if carried is not None:
            carried[SEEN] = line
        return output

    def _tokens(
        self, ids: Tensor, mask: Any, positions: Tensor | None, carried: dict[str, Tensor] | None
    ) -> tuple[NgramTokens, Tensor]:
        """What the n-gram memories read of a forward pass, and the classes of all columns so far [B, P + Q]."""
        assert self.token_classes is not None
        classes = self.token_classes(ids)  # [B, Q]
        past = carried[SEEN].shape[1] if carried else 0
        valid = valid_columns(mask, ids.shape, past, classes.device)
        if valid is not None and bool(valid.all()):
            valid = None
        if valid is not None:
            classes = classes.masked_fill(~valid, -1)
        line = classes if carried is None else add_tokens(carried, classes)
        if positions is None:
            positions = torch.arange(past, past + ids.shape[1], device=classes.device)[None]
        layers = [block.engram for block in self.layers if isinstance(block, EngramDecoderLayer)]
        size = max(layer.window for layer in layers)
        tokens = NgramTokens(last_tokens(line, positions, size, self._pad_class()), positions, valid, carried)
        for layer in layers:
            layer.prefetch(tokens, ids.device)
        return tokens, line

    def _pad_class(self) -> int:
        """The class of the token before the start of a text."""
        assert self.token_classes is not None
        return int(self.token_classes.ids[self.config.memory_pad_token])
