"""A program that a model runs step by step, writing out every step: what a long written answer needs of a cache.

Each step sets a register to a digit, or to what another register holds. The answer has a line for each step with the
value that is set, so that it needs the steps that are still to come and what was written last of each register.
"""

from __future__ import annotations

import random

from .example import Example, Recipe
from .material import Draw

METRIC = "first_lines"
NAMES = "abcdef"
_HEAD = "Each step sets a register to a digit or to the value of another one.\n"
_QUESTION, _LEAD = "\n\nValues:", "\n"
_TOKENS_A_STEP, _TOKENS_A_LINE = 4, 12  # at least, of the prompt; at most, of the answer
_COPIES = 0.6  # share of the steps that copy a register, once two are set

Step = tuple[str, str]  # a register, and a digit or another register


def registers(draw: Draw) -> Recipe:
    """Numbered steps such as `7 c = b`; the answer says `7 b4 c4`: what b holds, and then c."""
    steps = program(draw, max(draw.length // _TOKENS_A_STEP, 1))

    def make(n: int) -> Example:
        chosen = steps[: n + 1]
        context = _HEAD + "\n".join(_line(number, *step) for number, step in enumerate(chosen, start=1))
        return Example(
            "registers", context, _QUESTION, ("\n".join(run(chosen)),), METRIC, lead=_LEAD,
            max_new_tokens=len(chosen) * _TOKENS_A_LINE, stop=("\n\n",),
        )  # fmt: skip

    return Recipe(len(steps) - 1, make)


def program(draw: Draw, count: int) -> list[Step]:
    """Draw steps, each of which copies only what is set by then.

    Args:
        draw: Where numbers are drawn from.
        count: Number of steps.

    Returns:
        The register of each step, and a digit or the register that it copies.
    """
    steps: list[Step] = []
    for _ in range(count):
        name = draw.rng.choice(NAMES)
        others = sorted({one for one, _ in steps} - {name})
        copies = bool(others) and draw.rng.random() < _COPIES
        steps.append((name, draw.rng.choice(others) if copies else str(draw.rng.randrange(10))))
    return steps


def run(steps: list[Step]) -> list[str]:
    """Run a program.

    Args:
        steps: The register of each step, and a digit or the register that it copies.

    Returns:
        The lines of the answer.
    """
    values: dict[str, str] = {}
    lines = []
    for number, (name, source) in enumerate(steps, start=1):
        values[name] = values.get(source, source)
        read = f"{source}{values[name]} " if source in NAMES else ""
        lines.append(f"{number} {read}{name}{values[name]}")
    return lines


def _line(number: int, name: str, source: str) -> str:
    return f"{number} {name} = {source}"


def documents(count: int = 60_000) -> list[str]:
    """Programs with their answers, of 4 to 20 steps, to train a model on; no evaluation draws from the same numbers.

    Args:
        count: Number of documents.

    Returns:
        The documents, each different but for chance; the same always.
    """
    texts = []
    for number in range(count):
        draw = Draw("registers", random.Random(f"registers documents {number}"), "train", 0)
        steps = program(draw, draw.rng.randint(4, 20))
        listed = "\n".join(_line(place, *step) for place, step in enumerate(steps, start=1))
        texts.append(_HEAD + listed + _QUESTION + _LEAD + "\n".join(run(steps)) + "\n")
    return texts
