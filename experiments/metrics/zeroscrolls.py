"""The answer metrics of ZeroSCROLLS and LongBench v2: an output and accepted answers -> 0 to 1. No torch here.

Sources: Shaham et al. 2023 (arXiv 2305.14196), section 3.3, and Bai et al. 2024 (arXiv 2412.15204) with its evaluation
script. Written from these definitions. Each takes (output, answers, classes), as the metrics of LongBench do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import combinations
from math import prod

from .longbench import Metric, qa_f1_score
from .rouge import rouge_l_words, rouge_n

_LETTER = re.compile(r"\b[A-D]\b")
_STATED = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s?%")
_NOT_A_LIST = re.compile(r"[^\d,\s]+")
_HALVING = 0.1  # a share that is off by this much scores half: d = 2 and c = 10


def zeroscrolls_rouge_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """Geometric mean of ROUGE-1, ROUGE-2 and ROUGE-L F1, each the best over the answers.

    It is of one example, and 0 without a common bigram. The published script (SCROLLS) averages each ROUGE over all
    examples and takes the geometric mean last, so that the mean of these scores is at most the published score.
    """
    measures = (lambda answer: rouge_n(output, answer, 1), lambda answer: rouge_n(output, answer, 2),
                lambda answer: rouge_l_words(output, answer))  # fmt: skip
    return prod(max(map(measure, answers)) for measure in measures) ** (1 / len(measures))


def zeroscrolls_f1_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """F1 of words after SQuAD's normalisation, the best over the answers, with letters without their accents.

    The publication transliterates all letters to ASCII; here other alphabets stay as they are.
    """
    return qa_f1_score(_without_accents(output), [_without_accents(answer) for answer in answers])


def option_letter_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the first letter from A to D that is a word of the output is the answer's (QuALITY)."""
    right, found = {_letter(answer) for answer in answers}, _LETTER.search(output)
    return float(found is not None and found.group() in right)


def stated_option_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the letter after "The correct answer is", in brackets or not, is the answer's (LongBench v2)."""
    right, text = {_letter(answer) for answer in answers}, output.replace("*", "")
    found = next((match for pattern in _STATED if (match := pattern.search(text))), None)
    return float(found is not None and found.group(1) in right)


def exponential_similarity_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """2^(-10 |p - q|) for the first percentage p of the output and the right q, both as shares; 0 without one.

    So ten points of a percentage halve the score (SpaceDigest).
    """
    right = [_share(answer) for answer in answers]
    found = _PERCENTAGE.search(output)
    if found is None:
        return 0.0
    return max(0.5 ** (abs(float(found.group(1)) / 100 - share) / _HALVING) for share in right)


def concordance_index_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The share of pairs that the output has in the right order; 0 if it is no permutation of the answer (BookSumSort).

    All but digits, commas and blanks of the output is left aside.
    """
    given = _numbers(output)
    return max(_concordance(given, _numbers(answer, gold=True)) for answer in answers)


def _concordance(given: Sequence[int], right: Sequence[int]) -> float:
    if sorted(given) != sorted(right):
        return 0.0
    place = {number: i for i, number in enumerate(right)}
    pairs = [place[first] < place[second] for first, second in combinations(given, 2)]
    return sum(pairs) / len(pairs) if pairs else 1.0


def _numbers(text: str, *, gold: bool = False) -> list[int]:
    """The numbers of a list. Raises ValueError for a right answer without any, or with one twice."""
    found = [int(number) for number in re.findall(r"\d+", _NOT_A_LIST.sub("", text))]
    if gold and (not found or len({*found}) < len(found)):
        raise ValueError(text)
    return found


def _share(answer: str) -> float:
    """A right percentage as a share, with its sign or without. Raises ValueError for another text."""
    found = _PERCENTAGE.search(answer)
    return float(found.group(1) if found else answer) / 100


def _letter(answer: str) -> str:
    """The letter of a right answer, such as B, (B) or (B) and its text. Raises ValueError without one."""
    found = _LETTER.search(answer)
    if found is None:
        raise ValueError(answer)
    return found.group()


def _without_accents(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


ZEROSCROLLS_METRICS: dict[str, Metric] = {
    "zeroscrolls_rouge_score": zeroscrolls_rouge_score,
    "zeroscrolls_f1_score": zeroscrolls_f1_score,
    "option_letter_score": option_letter_score,
    "stated_option_score": stated_option_score,
    "exponential_similarity_score": exponential_similarity_score,
    "concordance_index_score": concordance_index_score,
}
