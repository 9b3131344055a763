"""Texts -> token ids, each document with the tokenizer's begin and end token; workers need no transformers for it.

What a text says in place of a special token is ordinary text: no document ends before its end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ....errors import MemxError
from ..tokenizer import not_ordinary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_PROBE = "The 3 cafés (v1.2)\n\tdef f(x): return x**2  # naïve — 日本 ☕"


class Encoder:
    """A tokenizer as its JSON (of the library `tokenizers`), and the ids that begin and end a document."""

    def __init__(self, tokenizer: str, begin: Sequence[int], end: int) -> None:
        from tokenizers import Tokenizer

        self.arguments = tokenizer, tuple(begin), end
        self.begin, self.end = tuple(begin), end
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._special = _special(self._tokenizer, json.loads(tokenizer)["model"])

    @property
    def dtype(self) -> Literal["uint16", "uint32"]:
        """The smallest dtype of the two that shards have which holds every id."""
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        return "uint16" if max(largest, self.end, *self.begin) < 2**16 else "uint32"

    @property
    def digest(self) -> str:
        """Equal for tokenizers that encode alike, however they were saved."""
        vocabulary = sorted(self._tokenizer.get_vocab(with_added_tokens=True).items())
        whole = json.dumps([vocabulary, self([_PROBE])[0].tolist()])
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Token ids of each text, between the begin token, if there is one, and the end token.

        Raises MemxError for a text whose special tokens this tokenizer cannot read as ordinary text.
        """
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for text, one in zip(texts, encoded, strict=True):
            if not self._special.keys().isdisjoint(one.ids):
                raise not_ordinary(text, next(self._special[token] for token in one.ids if token in self._special))
        return [np.array([*self.begin, *one.ids, self.end], np.uint32) for one in encoded]


def _special(tokenizer: Tokenizer, model: dict[str, Any]) -> dict[int, str]:
    """The special tokens that no text may become, but for that of unknown characters."""
    found = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return {
        number: text
        for number, text in found.items()
        if text != model.get("unk_token") and number != model.get("unk_id")
    }


def encoder_of(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """The encoder of a tokenizer of transformers. Raises MemxError if it has no end token or is no fast one."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise MemxError("the tokenizer is not a fast tokenizer", hint="use a tokenizer with a tokenizer.json")
    end: Any = tokenizer.eos_token_id
    if end is None:
        raise MemxError("the tokenizer has no end token", hint="set its eos_token: it separates documents")
    ids: Any = tokenizer("")["input_ids"]
    begin = ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []
    return Encoder(backend.to_str(), begin, int(end))
