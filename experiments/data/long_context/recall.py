"""Recall of planted facts: a pass key, one of several needles, a pair of a long list, a chain of variables.

The answer stands in the context exactly once, and not in the question.
"""

from __future__ import annotations

from .example import Example, Recipe, Span
from .material import Draw, filler, repeated_sentences, weave

_TOKENS_A_NEEDLE = 100  # of prompt, one needle or chain for so many of them
_METRIC = "string_match_part"


def passkey(draw: Draw) -> Recipe:
    """One number hidden in prose. Source of the task: Mohtashami and Jaggi 2023."""
    words, value = draw.phrasing(), draw.number()
    text = filler(draw, [value])
    fact, depth = words["fact"].format(value=value), draw.rng.random()

    def make(n: int) -> Example:
        context, spans = weave(words["head"], text.words[:n], [fact], [depth], text.stops)
        return _example("passkey", context, spans, words["question"], value)

    return Recipe(len(text.words), make)


def repeated(draw: Draw) -> Recipe:
    """One number between five sentences that repeat. Source: Mohtashami and Jaggi 2023 (arXiv 2305.16300), passkey."""
    words, value = draw.phrasing(), draw.number()
    text = repeated_sentences(draw.length)
    fact, depth = words["fact"].format(value=value), draw.rng.random()

    def make(n: int) -> Example:
        context, spans = weave(words["head"], text.words[:n], [fact], [depth], text.stops)
        return _example("repeated", context, spans, words["question"], value)

    return Recipe(len(text.words), make)


def needles(draw: Draw) -> Recipe:
    """Several numbers or words, each with a name, hidden in prose; one name is asked for (RULER's multi-key needle)."""
    words = draw.phrasing()
    count = min(max(draw.length // _TOKENS_A_NEEDLE, 2), 8)
    nouns = draw.words(2 * count)
    keys, values = nouns[:count], nouns[count:] if "{word}" in words["fact"] else draw.numbers(count, 3)
    facts = [words["fact"].format(key=key, value=v, word=v) for key, v in zip(keys, values, strict=True)]
    text = filler(draw, values[:1])
    depths = [draw.rng.random() for _ in facts]
    asked = sum(depth < depths[0] for depth in depths)

    def make(n: int) -> Example:
        context, spans = weave(words["head"], text.words[:n], facts, depths, text.stops)
        question = words["question"].format(key=keys[0])
        return _example("needles", context, spans[asked : asked + 1], question, values[0])

    return Recipe(len(text.words), make)


def key_values(draw: Draw) -> Recipe:
    """A list of names and numbers; the number of one name is asked for. Source of the task: Liu et al. 2023."""
    words = draw.phrasing()
    count = max(draw.length // 2, 2)  # no pair has fewer tokens
    keys = draw.keys(count)
    rest = set(draw.numbers(min(max(count, 2), 150), 3))
    value = draw.rng.choice(sorted(rest))
    others = sorted(rest - {value})
    pair = words["record"].format(key=keys[0], value=value)
    pairs = [words["record"].format(key=key, value=draw.rng.choice(others)) for key in keys[1:]]
    depth = draw.rng.random()

    def make(n: int) -> Example:
        context, spans = weave(words["head"], pairs[:n], [pair], [depth])
        question = words["question"].format(key=keys[0])
        return _example("key_values", context, spans, question, value)

    return Recipe(len(pairs), make)


def variables(draw: Draw) -> Recipe:
    """Assignments hidden in prose, `a = 123` and later `b = a`; the value of b is asked for (RULER's vt, one hop)."""
    words = draw.phrasing()
    chains = min(max(draw.length // (3 * _TOKENS_A_NEEDLE), 1), 6)
    names, values = draw.words(2 * chains), draw.numbers(chains, 3)
    lines, depths = [], []
    for chain, value in enumerate(values):
        first, last = names[2 * chain : 2 * chain + 2]
        lines += [words["first"].format(name=first, value=value), words["next"].format(name=last, other=first)]
        depths += sorted(draw.rng.random() for _ in range(2))
    text = filler(draw, [values[0]])
    order = sorted(range(len(lines)), key=lambda line: depths[line])
    asked = order.index(0), order.index(1)

    def make(n: int) -> Example:
        context, spans = weave(words["head"], text.words[:n], lines, depths, text.stops)
        question = words["question"].format(name=names[1])
        return _example("variables", context, tuple(spans[i] for i in asked), question, values[0])

    return Recipe(len(text.words), make)


def _example(task: str, context: str, spans: tuple[Span, ...], question: str, answer: str) -> Example:
    lead = "" if question.endswith('"') else " "
    return Example(task, context, "\n\n" + question, (answer,), _METRIC, lead, evidence=spans)
