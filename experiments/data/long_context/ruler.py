"""RULER's tasks, generated: needles of eight kinds, chains of variables, common and frequent words.

Wording, numbers of needles and frequencies are the published ones. Prose is Python's documentation in place of essays,
which cannot be shipped, and words are memx's. `qa_1` and `qa_2` need other data sets: they are read from files.

Source: Hsieh et al. 2024, "RULER: What's the Real Context Size of Your Long-Context Language Models?" (arXiv
2404.06654), appendix B; github.com/NVIDIA/RULER (Apache-2.0).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from .example import Example, Recipe
from .material import Draw, Filler, filler, vocabulary, weave
from .rows import task_table

Kind = Literal["words", "numbers", "uuids"]
_NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_DIGITS = 7
_HEAD = (
    "{some} special magic {kind} {are} hidden within the following text. Make sure to memorize it. I will quiz you "
    "about the {kind} afterwards.\n"
)
_NEEDLE = "One of the special magic {kind} for {key} is: {value}."
_QUESTION = "\nWhat {are_all} the special magic {kind} for {asked} mentioned in the provided text?"
_PREFIX = " The special magic {kind} for {asked} mentioned in the provided text {are}"
_CHAINS = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
_CHAIN_QUESTION = "\nQuestion: Find all variables that are assigned the value {value} in the text above."
_CHAIN_PREFIX = (
    " Answer: According to the chain(s) of variable assignment in the text above, {count} variables are assigned the "
    "value {value}, they are: "
)
_HOPS, _LETTERS = 4, 5
_LIST = (
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear most often.\n"
)
_LIST_QUESTION = "\nQuestion: What are the 10 most common words in the above list?"
_LIST_PREFIX = " Answer: The top 10 words that appear most often in the list are:"
_COMMON = 10
# words of the example, how often its common and other words occur, and how often those of the list
_SHORT, _LONG, _LONG_FROM = (20, 3, 1, 6, 1), (40, 10, 3, 30, 3), 4096
_CODED = (
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words. "
)
_CODED_QUESTION = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text?"
)
_CODED_PREFIX = " Answer: According to the coded text above, the three most frequently appeared words are:"
_ZETA, _CODED_WORDS, _CODED_LETTERS = 2.0, 2000, 6


@dataclass(frozen=True)
class _Needles:
    """A kind of needles: the haystack, what keys and values are, and how many keys, values of a key and questions."""

    haystack: Literal["noise", "prose", "needles"]
    keys: Kind = "words"
    values: Kind = "numbers"
    count: int = 1
    of_key: int = 1
    asked: int = 1


_NEEDLES = {
    "niah_single_1": _Needles("noise"),
    "niah_single_2": _Needles("prose"),
    "niah_single_3": _Needles("prose", values="uuids"),
    "niah_multikey_1": _Needles("prose", count=4),
    "niah_multikey_2": _Needles("needles"),
    "niah_multikey_3": _Needles("needles", keys="uuids", values="uuids"),
    "niah_multivalue": _Needles("prose", of_key=4),
    "niah_multiquery": _Needles("prose", count=4, asked=4),
}


def _niah(task: str) -> Callable[[Draw], Recipe]:
    kind = _NEEDLES[task]

    def draw_one(draw: Draw) -> Recipe:
        keys, values = _strings(draw, kind.keys, kind.count), _strings(draw, kind.values, kind.count * kind.of_key)
        noun = kind.values
        facts = [
            _NEEDLE.format(kind=noun, key=keys[number // kind.of_key], value=value)
            for number, value in enumerate(values)
        ]
        answers = tuple(values[: kind.asked * kind.of_key])
        depths = [draw.rng.random() for _ in facts]
        several = len(answers) > 1
        asked = ", ".join([*keys[: kind.asked - 1], f"and {keys[kind.asked - 1]}"]) if kind.asked > 1 else keys[0]
        words = {
            "kind": noun if several else noun[:-1],
            "asked": asked,
            "some": "Some" if several else "A",
            "are": "are" if several else "is",
            "are_all": "are all" if several else "is",
        }
        text = _haystack(draw, kind, values)
        between = "\n" if kind.haystack != "prose" else " "

        def make(n: int) -> Example:
            pieces = [fact + between for fact in facts]
            context, spans = weave(_HEAD.format(**words), text.words[:n], pieces, depths, text.stops)
            return _example(task, context, (_QUESTION.format(**words), _PREFIX.format(**words)), answers, spans)

        return Recipe(len(text.words), make)

    return draw_one


def vt(draw: Draw) -> Recipe:
    """A value that is assigned from variable to variable, four times, between sentences that repeat; one example."""
    first = _chain(draw.rng)
    chain = _chain(draw.rng)
    shown, _ = weave(_CHAINS, [_NOISE + "\n"] * 5, [f"{line}\n" for line in first.lines], [i / 5 for i in range(5)])
    answer = _chain_prefix(first).lstrip() + " ".join(first.names)
    head = f"{shown}{_CHAIN_QUESTION.format(value=first.value)} {answer}\n\n{_CHAINS}"
    text = _repeated(draw)
    depths = sorted(draw.rng.random() for _ in chain.lines)

    def make(n: int) -> Example:
        context, spans = weave(head, text.words[:n], [f"{line}\n" for line in chain.lines], depths, text.stops)
        question = (_CHAIN_QUESTION.format(value=chain.value), _chain_prefix(chain))
        return _example("vt", context, question, chain.names, spans)

    return Recipe(len(text.words), make)


def cwe(draw: Draw) -> Recipe:
    """A numbered list of words, ten of which occur more often than the others; one example before it.

    Prompts of less than 4,096 tokens have words 6 times and once, longer ones 30 times and 3 times.
    """
    shown_words, shown_often, shown_seldom, often, seldom = _LONG if draw.length >= _LONG_FROM else _SHORT
    words = vocabulary(draw.split)
    count = max(draw.length // (2 * seldom), 60)
    drawn = draw.rng.sample(words, min(len(words), count))
    drawn += draw.keys(count - len(drawn)) if len(drawn) < count else []
    common, others = drawn[:_COMMON], drawn[_COMMON:]
    shown = draw.rng.sample(words, shown_words)
    listed = _numbered(draw.rng, shown[:_COMMON] * shown_often + shown[_COMMON:] * shown_seldom)
    head = f"{_LIST}{listed}{_LIST_QUESTION}{_LIST_PREFIX} {_in_order(shown[:_COMMON])}\n\n{_LIST}"
    seed = draw.rng.random()

    def make(n: int) -> Example:
        text = head + _numbered(random.Random(seed), common * often + others[:n] * seldom)
        return _example("cwe", text, (_LIST_QUESTION, _LIST_PREFIX), tuple(common))

    return Recipe(len(others), make)


def fwe(draw: Draw) -> Recipe:
    """Coded words whose frequencies fall with the square of their rank; the most frequent of all are dots."""
    coded = ["".join(draw.rng.choices("abcdefghijklmnopqrstuvwxyz", k=_CODED_LETTERS)) for _ in range(_CODED_WORDS)]
    coded[0] = "..."
    weights = [1 / rank**_ZETA for rank in range(1, len(coded) + 1)]
    seed = draw.rng.random()

    def make(n: int) -> Example:
        # as many of each as its share of n is, so that the ranks are certain
        total = sum(weights)
        listed = [word for word, weight in zip(coded, weights, strict=True) for _ in range(int(n * weight / total))]
        listed += coded[1:4]
        random.Random(seed).shuffle(listed)
        return _example("fwe", _CODED + " ".join(listed), (_CODED_QUESTION, _CODED_PREFIX), tuple(coded[1:4]))

    return Recipe(draw.length, make)


GENERATED: dict[str, Callable[[Draw], Recipe]] = {
    **{task: _niah(task) for task in _NEEDLES}, "vt": vt, "cwe": cwe, "fwe": fwe
}  # fmt: skip


def room_of(task: str) -> int:
    """How many tokens an answer may have.

    Args:
        task: A task of RULER.
    """
    return task_table("ruler.yaml")[task.partition("_")[0]]["max_new_tokens"]


class _Chain(NamedTuple):
    value: str
    names: tuple[str, ...]
    lines: tuple[str, ...]


def _chain(rng: random.Random) -> _Chain:
    """Variables, the first of which is assigned a value and each other one the variable before it."""
    value = str(rng.randrange(10_000, 100_000))
    names = tuple("".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=_LETTERS)) for _ in range(_HOPS + 1))
    return _Chain(value, names, (f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a} " for a, b in pairwise(names))))


def _chain_prefix(chain: _Chain) -> str:
    return _CHAIN_PREFIX.format(count=len(chain.names), value=chain.value)


def _haystack(draw: Draw, kind: _Needles, values: list[str]) -> Filler:
    if kind.haystack == "prose":
        return filler(draw, values)
    if kind.haystack == "noise":
        return _repeated(draw)
    count = max(draw.length // 10, 1)  # no needle has fewer tokens
    keys, others = _strings(draw, kind.keys, count), _strings(draw, kind.values, count)
    lines = [_NEEDLE.format(kind=kind.values, key=k, value=v) + "\n" for k, v in zip(keys, others, strict=True)]
    return Filler(lines, [*range(len(lines) + 1)])


def _repeated(draw: Draw) -> Filler:
    times = draw.length // 10 + 1
    return Filler([_NOISE + "\n"] * times, [*range(times + 1)])


def _strings(draw: Draw, kind: Kind, count: int) -> list[str]:
    if kind == "uuids":
        return [str(uuid.UUID(int=draw.rng.getrandbits(128), version=4)) for _ in range(count)]
    return draw.keys(count) if kind == "words" else draw.numbers(count, _DIGITS)


def _numbered(rng: random.Random, words: list[str]) -> str:
    """The words in a drawn order, each with its number."""
    listed = [*words]
    rng.shuffle(listed)
    return _in_order(listed)


def _in_order(words: list[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))


def _example(
    task: str, context: str, question: tuple[str, str], answers: tuple[str, ...], spans: tuple = ()
) -> Example:
    """question: the question, and the beginning of the answer that the model continues."""
    prefix = question[1].rstrip()
    return Example(
        f"ruler/{task}", context, question[0] + prefix, answers, "string_match_all", max_new_tokens=room_of(task),
        stop=(), evidence=spans, prefix=prefix,
    )  # fmt: skip
