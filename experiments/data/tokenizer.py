"""Texts -> token ids, special tokens in a text read as ordinary text; and the byte-level BPE that a run trains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import MemxError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, END = "<|pad|>", "<|end|>"
_SHOWN = 40  # characters of a text in an error
_LONG = 4096  # characters of a word that a tokenizer is trained on, at most
_ENDLESS = re.compile(rf"\S{{{_LONG}}}|\s{{{_LONG}}}")


class Encoded(NamedTuple):
    """The token ids of a text, and the characters of it that each stands for, if they were asked for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, begin: bool = True, offsets: bool = False
) -> list[Encoded]:
    """Encode texts of users: what they say in place of a special token is ordinary text.

    Args:
        tokenizer: Any of transformers.
        texts: The texts.
        begin: Whether to add the tokens that the tokenizer puts before or after a text by itself.
        offsets: Whether to find the characters of each token; for fast tokenizers alone.

    Returns:
        The tokens of each text.

    Raises:
        MemxError: A text is no Unicode, or holds a special token that this tokenizer cannot read as ordinary text.
    """
    if not texts:
        return []
    try:
        found: Any = tokenizer(
            list(texts),
            add_special_tokens=begin,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=offsets,
            verbose=False,
        )
    except (TypeError, UnicodeEncodeError):  # what tokenizers raise for a lone surrogate
        for text in texts:
            check_unicode(text)
        raise
    ids: list[list[int]] = found["input_ids"]
    special = special_ids(tokenizer)
    added = sum(token in special for token in tokenizer("")["input_ids"]) if begin else 0  # type: ignore[union-attr]
    for text, tokens in zip(texts, ids, strict=True):
        if not special.isdisjoint(tokens) and sum(token in special for token in tokens) > added:
            inside = next(token for token in tokens[added:] if token in special)
            raise not_ordinary(text, str(tokenizer.convert_ids_to_tokens(inside)))
    places = found["offset_mapping"] if offsets else [[]] * len(ids)
    return [Encoded(tokens, place) for tokens, place in zip(ids, places, strict=True)]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, *, begin: bool = True) -> list[int]:
    """Encode one text as `encode_texts` does. Raises MemxError as it does."""
    return encode_texts(tokenizer, [text], begin=begin)[0].ids


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that no ordinary text holds: all special ones, but for that of unknown characters."""
    decoder: Any = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {number for number, token in decoder.items() if token.special}
    ends: list[Any] = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    unknown: Any = tokenizer.unk_token_id
    return {number for number in marked | set(tokenizer.all_special_ids) if number != unknown or number in ends}


def special_texts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The special tokens that a text spells out, in the order of the vocabulary."""
    names = (str(tokenizer.convert_ids_to_tokens(number)) for number in sorted(special_ids(tokenizer)))
    return [name for name in names if name in text]


def check_unicode(text: str) -> None:
    """Raise MemxError if a text holds half of a character (a lone surrogate), as bytes that are not UTF-8 become."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before = text[max(error.start - _SHOWN, 0) : error.start]
        raise MemxError(
            f"the text contains U+{ord(text[error.start]):04X}, which is not a character, after {before!r}",
            hint="remove it, or save the text as UTF-8 again",
        ) from None


def not_ordinary(text: str, token: str) -> MemxError:
    """The error for a text that the tokenizer reads as a special token, whatever it is asked for."""
    place = max(text.find(token), 0)
    shown = text[max(place - _SHOWN, 0) : place + len(token) + _SHOWN]
    return MemxError(
        f"the tokenizer cannot read {token} as ordinary text, in {shown!r}",
        hint="remove it from the text, or use another tokenizer",
    )


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of at most `vocabulary` entries; digits stay single, every text round-trips.

    Entry 0 pads and entry 1 ends a document. The same texts give the same tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_cut(texts), trainer)
    return _wrap(bpe)


def _cut(texts: Iterable[str]) -> Iterator[str]:
    """The texts, those with an endless word in parts: training takes time with the square of a word's length."""
    for text in texts:
        if len(text) < _LONG or _ENDLESS.search(text) is None:
            yield text
        else:
            yield from (text[start : start + _LONG] for start in range(0, len(text), _LONG))


def tokenizer_from_text(text: str) -> PreTrainedTokenizerFast:
    """Restore a tokenizer of `train_tokenizer` from its JSON."""
    from tokenizers import Tokenizer

    return _wrap(Tokenizer.from_str(text))


def _wrap(bpe: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, padding_side="left", clean_up_tokenization_spaces=False
    )
