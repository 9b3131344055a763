"""Small programs of numbered steps, what their registers hold after each step, and texts of both to train on."""

from __future__ import annotations

import random

NAMES = "abcdef"
HEAD = "Each step sets a register to a digit or to the value of another one.\n"
QUESTION, LEAD = "\n\nValues:", "\n"
_COPIES = 0.6  # share of the steps that copy a register, once two are set
_STEPS = 4, 20  # of a text to train on, at least and at most

Step = tuple[str, str]  # a register, and a digit or another register


def program(rng: random.Random, count: int) -> list[Step]:
    """Draw steps, each of which copies only what is set by then.

    Args:
        rng: Where numbers are drawn from.
        count: Number of steps.

    Returns:
        The register of each step, and a digit or the register that it copies.
    """
    steps: list[Step] = []
    known = ""  # in the order of names
    for _ in range(count):
        name = rng.choice(NAMES)
        others = known.replace(name, "")
        copies = bool(others) and rng.random() < _COPIES
        steps.append((name, rng.choice(others) if copies else str(rng.randrange(10))))
        known = known if name in known else "".join(sorted(known + name))
    return steps


def listed(steps: list[Step]) -> str:
    """The steps as text, such as `7 c = b`, a line each.

    Args:
        steps: The register of each step, and a digit or the register that it copies.
    """
    return "\n".join(f"{number} {name} = {source}" for number, (name, source) in enumerate(steps, start=1))


def run(steps: list[Step]) -> list[str]:
    """Run a program.

    Args:
        steps: The register of each step, and a digit or the register that it copies.

    Returns:
        A line for each step, such as `7 b4 c4`: what is read, if a register is, and what is set.
    """
    values: dict[str, str] = {}
    lines = []
    for number, (name, source) in enumerate(steps, start=1):
        values[name] = values.get(source, source)
        read = f"{source}{values[name]} " if source in NAMES else ""
        lines.append(f"{number} {read}{name}{values[name]}")
    return lines


def documents(count: int = 30_000) -> list[str]:
    """Programs with their answers, to train a model on; no evaluation draws from the same numbers.

    Args:
        count: Number of documents.

    Returns:
        The documents, different but for chance; the same always.
    """
    texts = []
    for number in range(count):
        rng = random.Random(f"registers documents {number}")
        steps = program(rng, rng.randint(*_STEPS))
        texts.append(HEAD + listed(steps) + QUESTION + LEAD + "\n".join(run(steps)) + "\n")
    return texts
