"""One long-context task with its known answers, and the cutting of one that is too long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ....errors import MemxError

TokenCount = Callable[[str], int]  # how many tokens a text has


class Span(NamedTuple):
    """A stretch of the context, in characters, the end not included."""

    start: int
    stop: int


@dataclass(frozen=True)
class Example:
    """A context that can be cached once, a question that the model continues with the answer, and what counts as right.

    The prompt is context + question; between it and the answer stands `lead`. The context ends and the question
    begins where tokenizers part words, so that both may be tokenised on their own.
    """

    task: str
    context: str
    question: str
    answers: tuple[str, ...]  # the first is the gold one
    metric: str  # a name in memx.experiments.metrics.registry.METRICS, or "log_likelihood"
    lead: str = " "
    max_new_tokens: int = 16
    stop: tuple[str, ...] = ("\n",)  # an output ends before the first of these
    classes: tuple[str, ...] = ()  # every label there is, for classification
    evidence: tuple[Span, ...] = ()  # where the context says what the answer needs
    prefix: str = ""  # the end of the question, if it begins the answer

    @property
    def prompt(self) -> str:
        """The whole text that the model continues."""
        return self.context + self.question

    @property
    def target(self) -> str:
        """The continuation whose log-likelihood is measured: the lead and the gold answer."""
        return self.lead + self.answers[0]


@dataclass(frozen=True)
class Recipe:
    """An example of any length: `make(n)` uses n of `units` pieces of filler, 0 to all; more pieces, more tokens."""

    units: int
    make: Callable[[int], Example]


class DoesNotFit(MemxError):
    """An example that is longer than its length without any filler."""


def fit(recipe: Recipe, tokens: TokenCount, length: int) -> Example:
    """The longest example of a recipe whose prompt has at most `length` tokens.

    Raises MemxError if not even the bare task fits, or if all the filler there is leaves 5% of the length unused.
    """
    least = tokens(recipe.make(0).prompt)
    if least > length:
        raise DoesNotFit(
            f"task {recipe.make(0).task} does not fit in {length} tokens", hint=f"use a length of at least {least}"
        )
    count = most(lambda n: tokens(recipe.make(n).prompt), recipe.units, length)
    example = recipe.make(count)
    if count == recipe.units and (found := tokens(example.prompt)) < 0.95 * length:
        raise MemxError(f"{example.task}: the text is only {found} of {length} tokens long", hint=f"use length {found}")
    return example


def most(size: Callable[[int], int], available: int, limit: int) -> int:
    """The largest n in 0..available with size(n) <= limit, for a size that rises about evenly; size(0) must fit.

    Guesses by the rate so far and halves where that does not help: a handful of calls, none far above the limit.
    """
    low, high, low_size, step = 0, available + 1, size(0), 32
    halve = False
    while high - low > 1:
        guess = (low + high) // 2 if halve else low + step
        guess = min(max(guess, low + 1), high - 1)
        before, found = high - low, size(guess)
        if found <= limit:
            rate = max((found - low_size) / (guess - low), 1e-9)
            low, low_size = guess, found
            step = int(min((limit - found) / rate, available)) + 1
        else:
            high = guess
            step = max((high - low) // 8, 1)
        # once bounded from above, a guess that takes little away is followed by a halving
        halve = high <= available and not halve and (high - low) * 2 > before
    return low


def shortened(example: Example, tokens: TokenCount, length: int) -> Example:
    """The example with the middle of its context left out, as LongBench does, so that the prompt has <= length tokens.

    Evidence spans are dropped where something was cut. Raises MemxError if the question alone does not fit.
    """
    if tokens(example.prompt) <= length:
        return example
    if tokens(example.question) > length:
        raise MemxError(f"a question of {example.task} is longer than {length} tokens", hint="use a greater length")
    text = example.context

    def kept(n: int) -> Example:
        return replace(example, context=text[:n] + text[len(text) - n :], evidence=())

    return kept(most(lambda n: tokens(kept(n).prompt), len(text) // 2, length))
