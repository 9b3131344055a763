"""Token ids -> ids of token classes: tokens whose text differs only in case or form share one. V tokens.

Source: Engram (arXiv 2601.07372), section 2.1, "tokenizer compression": NFKC and lower-casing, about 23% fewer ids.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "�"  # what decoders write for bytes that are no whole character


class TokenClasses(nn.Module):
    """The class of every token id, saved with the model: at first each token is a class of its own.

    Args:
        vocabulary: Number of token ids V of the model.

    Attributes:
        ids: The class of each token id [V], int64, in 0..V-1.
    """

    ids: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.register_buffer("ids", torch.arange(vocabulary))

    def reset(self) -> None:
        """Have each token be a class of its own, also where the buffer was on the meta device."""
        device = "cpu" if self.ids.is_meta else self.ids.device
        self.ids = torch.arange(len(self.ids), device=device)

    def set(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take the classes of a tokenizer's tokens; ids that it does not have stay alone.

        Args:
            tokenizer: The tokenizer of the model. It may have fewer tokens than the model.
        """
        self.reset()
        known = token_classes(tokenizer)[: len(self.ids)]
        self.ids[: len(known)] = known.to(self.ids.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [...] -> class ids [...], int64."""
        return self.ids[tokens.to(self.ids.device)]


def token_classes(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Number the classes of a tokenizer's tokens.

    Args:
        tokenizer: Any tokenizer of transformers.

    Returns:
        For each id the smallest id with the same text after NFKC and lower-casing: [V], int64. Special tokens, and
        pieces that are not valid UTF-8 alone, stay alone. A text whose normal form is empty counts as it is.
    """
    special, first = set(tokenizer.all_special_ids), dict[str, int]()
    ids = []
    for token in range(len(tokenizer)):
        key = None if token in special else _normal_form(tokenizer, token)
        ids.append(token if key is None else first.setdefault(key, token))
    return torch.tensor(ids)


def _normal_form(tokenizer: PreTrainedTokenizerBase, token: int) -> str | None:
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if not isinstance(text, str) or _BROKEN in text:
        return None
    return unicodedata.normalize("NFKC", text).lower() or text
