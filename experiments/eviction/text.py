"""A prompt as tokens and as readable pieces: text and a tokenizer -> ids, and the units that a page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...results.eviction.report import Unit
from ..data.tokenizer import encode_text, encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "\ufffd"  # what decoding makes of a part of a character
_PARTS = 8  # tokens that a character is cut into at most, with room to spare
_BEFORE = 4  # tokens before a piece that are decoded with it, for those whose space depends on them


def tokenize(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[list[int], tuple[Unit, ...]]:
    """Token ids of a prompt, with the special ones that the tokenizer adds, and units that together are its text."""
    if tokenizer.is_fast:
        ((ids, offsets),) = encode_texts(tokenizer, [prompt], offsets=True)
        return ids, units_by_offset(prompt, offsets, [*tokenizer.convert_ids_to_tokens(ids)])
    ids = encode_text(tokenizer, prompt)
    return ids, _units_by_decoding(tokenizer, ids)


def units_by_offset(prompt: str, offsets: list[tuple[int, int]], names: list[str]) -> tuple[Unit, ...]:
    """Units of tokens with their places in the prompt; tokens of one character share its place, and make one unit.

    What no token claims goes to the token after it; tokens without a place are special and go by name.
    """
    units: list[Unit] = []
    end = 0
    for number, ((start, stop), name) in enumerate(zip(offsets, names, strict=True)):
        if start == stop:
            units.append(Unit(number, number + 1, name, special=True))
        elif units and start < end and not units[-1].special:
            last = units.pop()
            units.append(Unit(last.start, number + 1, last.text + prompt[end:stop]))
        else:
            units.append(Unit(number, number + 1, prompt[end:stop]))
        end = max(end, stop)
    if end < len(prompt) and units and not units[-1].special:
        last = units.pop()
        units.append(Unit(last.start, last.stop, last.text + prompt[end:]))
    return tuple(units)


def _units_by_decoding(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[Unit, ...]:
    """Units of tokens that decode to whole characters."""
    units: list[Unit] = []
    start = 0
    while start < len(ids):
        before = ids[max(0, start - _BEFORE) : start]
        stop = start + 1
        while (text := _added(tokenizer, before, ids[start:stop])).endswith(_BROKEN) and stop < len(ids):
            if stop - start == _PARTS:
                break
            stop += 1
        units.append(Unit(start, stop, text, special=ids[start] in tokenizer.all_special_ids))
        start = stop
    return tuple(units)


def _added(tokenizer: PreTrainedTokenizerBase, before: list[int], new: list[int]) -> str:
    said = str(tokenizer.decode(before))
    return str(tokenizer.decode([*before, *new]))[len(said) :]
