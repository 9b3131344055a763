"""Prompts in tokens -> what a model writes after each, greedily up to the line's end, and the NLL of the gold answer.

B prompts, T tokens of the longest, K tokens of the longest gold answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from ...errors import MemxError
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
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Asked], most: int
) -> list[Said]:
    """Answer a batch of questions. Raises MemxError if they do not fit on the device."""
    try:
        texts = _write(model, tokenizer, [one.prompt for one in asked], most)
        scores = _gold_nll(model, tokenizer, asked)
    except torch.OutOfMemoryError:
        raise MemxError(
            f"{len(asked)} questions at once do not fit on {model.device}", hint="lower --batch; --resume goes on"
        ) from None
    return [Said(text, nll, len(one.gold)) for text, nll, one in zip(texts, scores, asked, strict=True)]


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


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[list[int]], most: int
) -> list[str]:
    """The first line after each prompt."""
    host: Any = model
    ids, mask = _left_padded(prompts, _pad(tokenizer), model.device)
    greedy = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=_pad(tokenizer),
        eos_token_id=getattr(host.generation_config, "eos_token_id", None),
    )
    written = host.generate(
        ids,
        attention_mask=mask,
        generation_config=greedy,
        stopping_criteria=StoppingCriteriaList([_LineEnd(tokenizer)]),
    )
    texts = tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.split("\n")[0].strip() for text in texts]


def _gold_nll(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Asked]) -> list[float]:
    """For each question the NLL of its gold answer in nats, summed over its tokens."""
    longest = max(len(one.gold) for one in asked)
    ids, mask = _left_padded([one.prompt + one.gold for one in asked], _pad(tokenizer), model.device)
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    # the token before the first of the answer predicts it; the last one's own prediction is not asked for
    logits = model(ids, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=longest + 1).logits[
        :, -longest - 1 : -1
    ]  # [B, K, V]
    nll = F.cross_entropy(logits.float().transpose(1, 2), ids[:, -longest:], reduction="none")  # [B, K]
    lengths = torch.tensor([len(one.gold) for one in asked], device=nll.device)
    own = torch.arange(longest, 0, -1, device=nll.device) <= lengths[:, None]
    return (nll.double() * own).sum(-1).tolist()


def _left_padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] and their mask, 0 where there is padding."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _pad(tokenizer: PreTrainedTokenizerFast) -> int:
    """Any token will do, where there is none to pad with: it is masked."""
    pad: Any = tokenizer.pad_token_id
    return 0 if pad is None else pad
