"""Facts -> the parts that a continual-learning run learns one after another."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ....errors import MemxError
from .record import Fact


def split_parts(facts: Sequence[Fact], parts: int, seed: int) -> list[list[Fact]]:
    """Split facts into parts of about equal size, all facts of a subject in the same part.

    Args:
        facts: The facts.
        parts: How many parts.
        seed: Random seed of the order of subjects.

    Returns:
        The facts of each part; together they are all facts, each once.

    Raises:
        MemxError: A part would have no facts.
    """
    subjects = sorted({fact.subject for fact in facts})
    random.Random(f"parts {seed}").shuffle(subjects)
    of_subject: dict[str, list[Fact]] = {subject: [] for subject in subjects}
    for fact in facts:
        of_subject[fact.subject].append(fact)
    found: list[list[Fact]] = [[] for _ in range(parts)]
    placed = 0
    for group in of_subject.values():
        found[placed * parts // len(facts)] += group
        placed += len(group)
    if not all(found):
        raise MemxError(
            f"{len(facts):,} facts on {len(subjects):,} subjects cannot be split into {parts:,} parts",
            hint="lower finetune.parts, or give more facts",
        )
    return found
