"""The metric of long written answers, line by line: an output and accepted answers -> 0 to 1. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile


def first_lines(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The share of an answer's lines that the output has before its first line that differs, whatever the blanks.

    Args:
        output: What was written.
        answers: Accepted answers; the best of them counts.
        classes: Not used.

    Returns:
        The share, 0 to 1.
    """
    written = _lines(output)
    shares = []
    for answer in answers:
        right = _lines(answer)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(written, right, strict=False))
        shares.append(sum(1 for _ in same) / max(len(right), 1))
    return max(shares, default=0.0)


def _lines(text: str) -> list[str]:
    """The lines that hold anything, with single blanks."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


WRITTEN_METRICS = {"first_lines": first_lines}
