"""Answer metrics: exact match and F1 under SQuAD's normalisation. No torch here.

Source of the normalisation: Rajpurkar et al. 2016, the official SQuAD evaluation: lower case, no punctuation, no
articles, single spaces.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and runs of blanks."""
    without = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(without.split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """Compare an answer with the accepted ones after normalisation.

    Args:
        answer: What the model wrote.
        accepted: The right answers. One that normalises to nothing ("The The", "!") is compared as it is.

    Returns:
        1 if the answer is one of them, else 0.
    """
    return float(any(_same(answer, right) for right in accepted))


def f1(answer: str, accepted: Sequence[str]) -> float:
    """Compute the F1 of an answer's words after normalisation.

    Args:
        answer: What the model wrote.
        accepted: The right answers, at least one.

    Returns:
        The best F1 against any of them, 0 to 1.
    """
    return max(_f1(answer, right) for right in accepted)


def _same(answer: str, right: str) -> bool:
    wanted = normalize(right)
    return normalize(answer) == wanted if wanted else answer.strip() == right.strip()


def _f1(answer: str, right: str) -> float:
    got, wanted = normalize(answer).split(), normalize(right).split()
    if not got or not wanted:
        return float(_same(answer, right))
    common = sum((Counter(got) & Counter(wanted)).values())
    return 2 * common / (len(got) + len(wanted))
