"""A program that a model runs step by step, writing out every step: what a long written answer needs of a cache.

Each step sets a register to a digit, or to what another register holds. The answer has a line for each step with the
value that is set, so that it needs the steps that are still to come and what was written last of each register.
"""

from __future__ import annotations

from ..programs import HEAD, LEAD, QUESTION, listed, program, run
from .example import Example, Recipe
from .material import Draw

METRIC = "first_lines"
_TOKENS_A_STEP, _TOKENS_A_LINE = 4, 12  # at least, of the prompt; at most, of the answer


def registers(draw: Draw) -> Recipe:
    """Numbered steps such as `7 c = b`; the answer says `7 b4 c4`: what b holds, and then c."""
    steps = program(draw.rng, max(draw.length // _TOKENS_A_STEP, 1))

    def make(n: int) -> Example:
        chosen = steps[: n + 1]
        return Example(
            "registers", HEAD + listed(chosen), QUESTION, ("\n".join(run(chosen)),), METRIC, lead=LEAD,
            max_new_tokens=len(chosen) * _TOKENS_A_LINE, stop=("\n\n",),
        )  # fmt: skip

    return Recipe(len(steps) - 1, make)
