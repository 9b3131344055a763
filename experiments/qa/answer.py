"""Prompts in tokens -> what a model writes after each, greedily up to its line's end, and the NLL of the gold answer.

B prompts, T tokens of the longest, K tokens of the longest gold answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from ...errors import MemxError
from ...transformers_compat import input_device
from ..models.generation import generate_texts, left_padded, log_likelihoods
from .prompt import Asked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Said(NamedTuple):
    """What a model wrote, without the blanks around it, and the NLL of the gold answer: nats over its tokens."""

    text: str
    nll: float
    tokens: int


@torch.no_grad()
def answer_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[Asked],
    most: int,
    *,
    cached: bool = False,
    one_line: bool = True,
) -> list[Said]:
    """Answer a batch of questions. Raises MemxError if they do not fit on the device.

    cached: whether gold answers are read with a cache too, as an attached policy needs it. one_line: whether an answer
    ends with its line, and not only where the model ends it.
    """
    try:
        stop = StoppingCriteriaList([_LineEnd(tokenizer)] if one_line else [])
        prompts, pad = [one.prompt for one in asked], tokenizer.pad_token_id or 0
        texts = generate_texts(model, tokenizer, prompts, most, pad=pad, stopping_criteria=stop)
        scores = _gold_nll(model, tokenizer, asked, cached)
    except torch.OutOfMemoryError:
        raise MemxError(
            f"a batch of {len(asked)} questions does not fit on {input_device(model)}",
            hint="use a smaller --batch, with --resume",
        ) from None
    lines = [(text.split("\n")[0] if one_line else text).strip() for text in texts]
    return [Said(line, nll, len(one.gold)) for line, nll, one in zip(lines, scores, asked, strict=True)]


class _LineEnd(StoppingCriteria):
    """A sequence is done when its last token ends a line."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, bool] = {}

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> Any:
        ended = [self._ends(token) for token in input_ids[:, -1].tolist()]
        return torch.tensor(ended, device=input_ids.device)

    def _ends(self, token: int) -> bool:
        if token not in self.known:
            # the byte of a line's end is never parted, so that it shows in a token by itself
            self.known[token] = "\n" in str(self.tokenizer.decode([token]))
        return self.known[token]


def _gold_nll(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Asked], cached: bool
) -> list[float]:
    """For each question the NLL of its gold answer in nats, summed over its tokens."""
    longest = max(len(one.gold) for one in asked)
    ids, mask = left_padded([one.prompt + one.gold for one in asked], tokenizer.pad_token_id, input_device(model))
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    # the token before the first of the answer predicts it; the last one's own prediction is not asked for
    logits = model(ids, attention_mask=mask, position_ids=places, use_cache=cached, logits_to_keep=longest + 1).logits[
        :, -longest - 1 : -1
    ]  # [B, K, V]
    nll = -log_likelihoods(logits.transpose(1, 2), ids[:, -longest:], dim=1)  # [B, K]
    lengths = torch.tensor([len(one.gold) for one in asked], device=nll.device)
    own = torch.arange(longest, 0, -1, device=nll.device) <= lengths[:, None]
    return (nll.double() * own).sum(-1).tolist()
