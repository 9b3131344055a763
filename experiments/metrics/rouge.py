"""ROUGE in the forms that long-context benchmarks report: two texts -> F1, 0 to 1. No torch here.

Source: Lin 2004, summary-level ROUGE-L (union of longest common subsequences). LongBench counts different words of
sentences parted at full stops (the `rouge` package); InfiniteBench counts every word of lines (`rouge_score`'s
rougeLsum); ZeroSCROLLS has ROUGE-1, ROUGE-2 and ROUGE-L of whole texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


def rouge_l(output: str, answer: str) -> float:
    """Compute ROUGE-L over sentences that end in a full stop, as LongBench reports it.

    Args:
        output: What the model wrote.
        answer: The accepted answer.

    Returns:
        F1 over the different words of both, 0 to 1.
    """
    got, wanted = (
        [part.split() for part in text.split(".") if part.strip()] for text in (output, answer)
    )  # both as lists of sentences of words
    if not got or not wanted:
        return 0.0
    hits = {sentence[i] for sentence in wanted for part in got for i in _common(sentence, part)}
    return _f1(len(hits), len({word for part in got for word in part}), len({w for part in wanted for w in part}))


def rouge_l_sum(output: str, answer: str) -> float:
    """Compute ROUGE-Lsum over lines, as InfiniteBench reports it: lower-case letters and digits, no stemming.

    Args:
        output: What the model wrote.
        answer: The accepted answer.

    Returns:
        F1 over all words of both, 0 to 1.
    """
    got, wanted = ([_words(line) for line in text.split("\n") if line] for text in (output, answer))
    counts = Counter(word for line in got for word in line), Counter(word for line in wanted for word in line)
    left, left_wanted = counts[0].copy(), counts[1].copy()
    hits = 0
    for line in wanted:
        for place in sorted({i for part in got for i in _common(line, part)}):
            word = line[place]
            if left[word] > 0 and left_wanted[word] > 0:
                left[word] -= 1
                left_wanted[word] -= 1
                hits += 1
    return _f1(hits, counts[0].total(), counts[1].total())


def rouge_n(output: str, answer: str, n: int) -> float:
    """Compute ROUGE-N: lower-case letters and digits, no stemming.

    Args:
        output: What the model wrote.
        answer: The accepted answer.
        n: Words of a gram.

    Returns:
        F1 over the grams of both, 0 to 1.
    """
    got, wanted = (Counter(zip(*(_words(text)[i:] for i in range(n)), strict=False)) for text in (output, answer))
    return _f1((got & wanted).total(), got.total(), wanted.total())


def rouge_l_words(output: str, answer: str) -> float:
    """Compute ROUGE-L of texts as one sequence of words each: lower-case letters and digits, no stemming.

    Args:
        output: What the model wrote.
        answer: The accepted answer.

    Returns:
        F1 over the words of both, 0 to 1.
    """
    got, wanted = _words(output), _words(answer)
    return _f1(len(_common(wanted, got)), len(got), len(wanted))


def _f1(hits: int, got: int, wanted: int) -> float:
    return 2 * hits / (got + wanted) if hits else 0.0


def _words(text: str) -> list[str]:
    return _NOT_A_WORD.sub(" ", text.lower()).split()


def _common(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Places in `first` of one longest common subsequence; of equal ways back the later word of `first` is dropped."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, word in enumerate(first, start=1):
        for j, other in enumerate(second, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if word == other else max(table[i - 1][j], table[i][j - 1])
    i, j, places = len(first), len(second), []
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return places[::-1]
