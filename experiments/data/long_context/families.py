"""The families of tasks, and examples of them at a length.

A family for training is what a policy is evolved on; a held-out one is never trained on: `config.tasks` names them.
Within each family train, validation and test share no document, word, number or entity.

SmolLM2-135M, prompts of 600 tokens: taking the evidence away costs the answers of every family 0.6 nats a token and
more, except abstracts, count and frequent_word, which it answers no better than by chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....errors import MemxError, nearest
from .continuation import code_next, prose_next
from .counting import count, frequent_word
from .example import DoesNotFit, Example, Recipe, TokenCount, fit
from .knowledge import facts, people
from .material import SPLITS, Draw
from .passages import abstracts, passages, quote
from .recall import key_values, needles, passkey, repeated, variables
from .registers import registers
from .ruler import GENERATED, room_of

_DRAWS = 20  # of an example until one fits in the length


@dataclass(frozen=True)
class Family:
    """A kind of task: how one is drawn, and what it is."""

    make: Callable[[Draw], Recipe]
    about: str
    room: int = 0  # tokens of the length that are left free for the answer


FAMILIES = {
    "needles": Family(needles, "find one of several named numbers or words in prose"),
    "key_values": Family(key_values, "find one entry in a list of names and numbers"),
    "passages": Family(passages, "name the paragraph that ends with a quoted text"),
    "quote": Family(quote, "complete a sentence of the text"),
    "facts": Family(facts, "answer a question on paragraphs about airports, elements and countries"),
    "prose_next": Family(prose_next, "predict the next words of Python's documentation"),
    "passkey": Family(passkey, "find one number in prose"),
    "variables": Family(variables, "follow one variable through assignments in prose"),
    "abstracts": Family(abstracts, "name the paragraph that contains some keywords"),
    "count": Family(count, "count how often a sentence is in the text"),
    "frequent_word": Family(frequent_word, "name the most frequent word of a list"),
    "people": Family(people, "answer a question on paragraphs about invented people"),
    "code_next": Family(code_next, "predict the next words of Python's standard library"),
    "repeated": Family(repeated, "find one number in five sentences that are repeated over and over"),
    "registers": Family(registers, "run a program of numbered steps and write out each of them"),
}

# RULER's own, which are evaluated where they are named
RULER = {f"ruler/{name}": Family(make, f"RULER's {name}", room_of(name)) for name, make in GENERATED.items()}
_ALL = {**FAMILIES, **RULER}


def examples(
    task: str, tokens: TokenCount, *, length: int, count: int, split: str = "train", seed: int = 0, first: int = 0
) -> list[Example]:
    """Make examples number first..first+count-1 of a family, each prompt of 95 to 100% of `length` tokens.

    tokens: how many tokens a text has, of the tokenizer that will read it. The same arguments give the same examples.
    Raises MemxError for an unknown family or split, or a length that cannot be met.
    """
    if task not in _ALL:
        raise MemxError(f"no long-context task {task!r}", hint=nearest(task, FAMILIES) or f"use {', '.join(FAMILIES)}")
    if split not in SPLITS:
        raise MemxError(f"no split {split!r}", hint=f"use {', '.join(SPLITS)}")
    return [_one(task, tokens, length, split, f"{seed} {number}") for number in range(first, first + count)]


def misfits(
    tasks: Sequence[str], tokens: TokenCount, *, length: int, count: int, split: str, seed: int
) -> dict[str, int]:
    """Find the families of which not every example fits in a length.

    Args:
        tasks: Families of memx.
        tokens: How many tokens a text has.
        length: Tokens of a prompt.
        count: Examples of each family.
        split: Their split.
        seed: Their seed.

    Returns:
        The least length at which all examples of such a family fit, by family.
    """
    found = {}
    for task in tasks:
        least = [_least(task, tokens, length, split, f"{seed} {number}") for number in range(count)]
        if max(least, default=0) > length:
            found[task] = max(least)
    return found


def _least(task: str, tokens: TokenCount, length: int, split: str, drawn: str) -> int:
    """The tokens of an example without filler; of the first draw that fits, or else of the shortest."""
    shortest = None
    for again in range(_DRAWS):
        family = _ALL[task]
        least = tokens(family.make(_draw(task, length, split, drawn, again)).make(0).prompt) + family.room
        if least <= length:
            return least
        shortest = least if shortest is None else min(shortest, least)
    assert shortest is not None
    return shortest


def _one(task: str, tokens: TokenCount, length: int, split: str, drawn: str) -> Example:
    again = 0
    while True:
        try:
            recipe = _ALL[task].make(_draw(task, length, split, drawn, again))
            return fit(recipe, tokens, max(length - _ALL[task].room, 1))
        except DoesNotFit:  # this one does not, another one of the family may
            again += 1
            if again == _DRAWS:
                raise


def _draw(task: str, length: int, split: str, drawn: str, again: int) -> Draw:
    """The source of an example's numbers; again: how often others did not fit."""
    return Draw(task, random.Random(f"{task} {split} {drawn}" + f" again {again}" * (again > 0)), split, length)
