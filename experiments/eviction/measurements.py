"""What one policy did with one prompt: the share of the cache that it kept, and the answer from what was kept.

prompts.jsonl holds a measurement as a flat JSON object, which `line` writes and `from_line` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from .answers import Prompt, answer, write
from .score import LOG_LIKELIHOOD, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class CacheSize:
    """The size of the cache at which a policy is measured.

    Attributes:
        budget: The share of the cache that heads may keep, 0 to 1, or above 1 their number of tokens; None at the size
            that a NAMM chose itself.
        size: Whether that is a budget, or the NAMM's own size.
        beside: The NAMM whose own size a baseline was given; empty otherwise.
    """

    budget: float | None
    size: Literal["budget", "own"] = "budget"
    beside: str = ""

    def line(self) -> dict[str, Any]:
        """The fields of a line of prompts.jsonl."""
        return {"budget": self.budget, "size": self.size} | ({"beside": self.beside} if self.beside else {})

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> CacheSize:
        """Read what `line` wrote."""
        return cls(line["budget"], line["size"], line.get("beside", ""))


@dataclass(frozen=True)
class CacheUse:
    """What a policy keeps of a context when the question begins.

    Attributes:
        kept: The share of the tokens, the mean over heads and layers.
        held: The share of the bytes of keys and values; in lines of older versions a layer is as long as its fullest
            head.
        layers: The share of the tokens in each layer.
        kv_bytes: Bytes of keys and values.
        bookkeeping_bytes: Bytes of all that the policy stores with them.
    """

    kept: float
    held: float
    layers: list[float]
    kv_bytes: int
    bookkeeping_bytes: int


@dataclass(frozen=True)
class Measurements:
    """What one policy did with one prompt.

    Attributes:
        variant: The policy's name in the tables.
        at: The size that it was measured at.
        cache: What it kept.
        log_likelihood: The gold answer's mean, in nats a token.
        exact: Whether greedy decoding writes the gold answer.
        score: Of the greedy answer, 0 to 1; None if none was written.
        text: The greedy answer; None if none was written.
    """

    variant: str
    at: CacheSize
    cache: CacheUse
    log_likelihood: float
    exact: bool
    score: float | None = None
    text: str | None = None

    def line(self) -> dict[str, Any]:
        """The JSON object of prompts.jsonl."""
        line = {"variant": self.variant, **self.at.line(), **asdict(self.cache)}
        line |= {"log_likelihood": self.log_likelihood, "exact": self.exact}
        return line if self.text is None else line | {"score": self.score, "text": self.text}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Measurements:
        """Read what `line` wrote."""
        cache = CacheUse(*(line[name] for name in CacheUse.__dataclass_fields__))
        answered = line["log_likelihood"], line["exact"], line.get("score"), line.get("text")
        return cls(line["variant"], CacheSize.from_line(line), cache, *answered)


def measure_answers(
    model: PreTrainedModel,
    prompt: Prompt,
    cache: Any,
    uses: Sequence[tuple[str, CacheUse]],
    at: CacheSize,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> list[Measurements]:
    """Answer a prompt from every sequence of a cache, which goes on with the question and the gold answer.

    Args:
        model: The base model.
        prompt: The prompt whose context the cache was read from.
        cache: A cache of B sequences, memx's or transformers' own.
        uses: For each sequence [B] the policy's name in the tables, and what it keeps.
        at: The size that all of them were given.
        tokenizer: Writes greedy answers too, to prompts that have a score.

    Returns:
        The measurements of each sequence [B].
    """
    texts: list[str] = []
    if tokenizer is not None and prompt.example.metric != LOG_LIKELIHOOD:
        texts = write(model, prompt, deepcopy(cache), tokenizer)  # the gold answer needs the cache as it was
    answered = answer(model, prompt, cache)
    measured = []
    for number, (variant, use) in enumerate(uses):
        likelihood, exact = float(answered.log_likelihood[number]), bool(answered.exact[number])
        written = (score(prompt.example, texts[number]), texts[number]) if texts else (None, None)
        measured.append(Measurements(variant, at, use, likelihood, exact, *written))
    return measured
