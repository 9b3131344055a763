"""Greedy decoding, by transformers' `generate` or token by token from a cache, and the likelihood of given answers.

B sequences, N tokens fed to each, T new tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from ...transformers_compat import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_GREEDY: dict[str, Any] = dict(
    do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0, min_length=0
)


def generate_texts(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[list[int]],
    most: int,
    *,
    pad: Any,
    **options: Any,
) -> list[str]:
    """Continue B prompts, given as token ids, greedily, by transformers' `generate`.

    What the model's generation config asks for besides, such as sampling, beams or penalties, is left aside.

    Args:
        most: New tokens of a text, at most.
        pad: The token after the end of a text; None for that of the model's generation config.
        **options: Further arguments of `generate`, such as `stopping_criteria` or a cache.

    Returns:
        What follows each prompt, without special tokens.
    """
    ids, mask = left_padded(prompts, pad, input_device(model))
    ends = end_tokens(model) or None
    config = GenerationConfig(max_new_tokens=most, pad_token_id=pad, eos_token_id=ends, **_GREEDY)
    output = model.generate(ids, attention_mask=mask, generation_config=config, **options)
    return tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)


def forward(model: Any, ids: Tensor, cache: Any = None, start: int | None = None, keep: int = 1) -> Any:
    """Feed token ids [B, N] after what a cache holds; return the output, with the last `keep` logits [B, keep, V].

    start: the position of the first of them; None if the cache knows.
    """
    positions = {}
    if start is not None:
        positions["position_ids"] = torch.arange(start, start + ids.shape[1], device=ids.device)[None].expand(ids.shape)
    return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep, **positions)


def next_token(model: Any, ids: Tensor, cache: Any = None, start: int | None = None) -> tuple[Tensor, Any]:
    """The likeliest token [B, 1] after token ids [B, N], fed as by `forward`, and the cache that now holds them."""
    output = forward(model, ids, cache, start)
    return output.logits[:, -1].argmax(-1, keepdim=True), output.past_key_values


def greedy_tokens(
    model: Any, token: Tensor, cache: Any, most: int, ends: list[int], fill: int | None = None, start: int | None = None
) -> Tensor:
    """Go on greedily from a cache until each sequence has written an end token.

    Args:
        token: The first new token of each sequence [B, 1], which the cache does not hold yet.
        most: New tokens of a sequence, at most, the first included.
        ends: Tokens that end a sequence.
        fill: What a sequence gets in place of its end token and of all after it; None to leave them.
        start: The position of the first new token; None if the cache knows.

    Returns:
        Token ids [B, T], the first new token included.
    """
    stops = torch.tensor(ends, dtype=torch.long, device=token.device)
    ended, written = torch.zeros_like(token, dtype=torch.bool), []
    while True:
        ended |= torch.isin(token, stops)
        token = token if fill is None else token.masked_fill(ended, fill)
        written.append(token)
        if len(written) >= most or ended.all():
            return torch.cat(written, 1)
        token, cache = next_token(model, token, cache, None if start is None else start + len(written) - 1)


def log_likelihoods(logits: Tensor, targets: Tensor, dim: int = -1) -> Tensor:
    """Log-likelihoods in nats, in float32, of token ids [...] by logits [..., V].

    dim: where V stands; torch adds up in another order over the last dimension than over others.
    """
    return logits.float().log_softmax(dim).gather(dim, targets.unsqueeze(dim)).squeeze(dim)


def left_padded(rows: Sequence[list[int]], pad: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of prompts [B, N] and their mask [B, N], 0 where there is padding; pad: None for whatever token."""
    tokens = [torch.tensor(row, dtype=torch.long) for row in rows]
    ids = pad_sequence(tokens, batch_first=True, padding_value=pad or 0, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True, padding_side="left")
    return ids.to(device), mask.to(device)


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The tokens that end a text, as the model's generation config lists them."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    return ends if isinstance(ends, list) else [] if ends is None else [ends]
