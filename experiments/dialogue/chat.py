"""A chat with one model: turns on one cache, which goes on from turn to turn, so that no token is read twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList, TextStreamer

from ...errors import MemxError
from ..base_models.rope import positions
from ..data.chat import turn_ids
from ..data.tokenizer import check_unicode, encode_text
from ..models.generation import end_tokens
from .cache_sizes import CacheSizes, cache_sizes
from .model import Loaded, ModelChoice, load
from .sampling import Sampling

if TYPE_CHECKING:
    from ...namm.attachment import Attached


@dataclass(frozen=True)
class Turn:
    """One answer of a chat.

    Attributes:
        text: The answer.
        read: Tokens that the model read for it: the new turn, and the last token of the answer before.
        tokens: New tokens.
        seconds: Time for all of them.
        stopped: Whether it was stopped before its end.
        cache: What the cache has now.
    """

    text: str
    read: int
    tokens: int
    seconds: float
    stopped: bool
    cache: CacheSizes


class Conversation:
    """A chat. `open_conversation` makes it.

    Args:
        loaded: The model.
        attached: The model with its policy attached; None for the whole cache.
        sampling: How answers are written.
        system: The system prompt; empty for the template's own.

    Attributes:
        ids: All tokens so far. The last one is not in the cache yet.
        templated: Whether the tokenizer has a chat template; else what the user writes is continued.
    """

    def __init__(self, loaded: Loaded, attached: Attached | None, sampling: Sampling, system: str = "") -> None:
        self.loaded, self.attached, self.sampling, self.system = loaded, attached, sampling, system
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.templated = bool(self.tokenizer.chat_template)
        self.ends, self.room = end_tokens(self.model), positions(self.model.config)
        self.ids: list[int] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything that was said, but for the system prompt."""
        self.ids = []
        config: Any = self.model.config
        self.cache: Any = DynamicCache(config=config) if self.attached is None else self.attached.new_cache()

    @torch.no_grad()
    def answer(self, text: str, write: Callable[[str], None], stopped: Callable[[], bool] = lambda: False) -> Turn:
        """Answer a turn of the user.

        Args:
            text: What the user writes.
            write: Gets the answer in pieces, as they come.
            stopped: Asked after each token whether to end the answer there; the chat can then go on.

        Returns:
            The answer.

        Raises:
            MemxError: The text is empty or cannot be read, or the chat has filled the model's context.
        """
        ids = [*self.ids, *self._new(text)]
        room = None if self.room is None else self.room - len(ids)
        if room is not None and room < 1:
            raise MemxError(
                f"the chat of {len(ids):,} tokens does not fit in the {self.room:,} positions of the model",
                hint="/reset starts a new chat",
            )
        most = self.sampling.max_tokens if room is None else min(self.sampling.max_tokens, room)
        begun, known = perf_counter(), self.cache.get_seq_length()
        prompt = torch.tensor([ids], device=self.model.device)
        generate: Any = self.model.generate
        output = generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=replace_most(self.sampling, most).config(self.model),
            past_key_values=self.cache,
            streamer=_Pieces(self.tokenizer, write),
            stopping_criteria=StoppingCriteriaList([_Asked(stopped)]),
        )
        self.ids = output[0].tolist()
        new = self.ids[len(ids) :]
        answer = str(self.tokenizer.decode(new, skip_special_tokens=True)).strip()
        cut = bool(new) and new[-1] not in self.ends
        return Turn(answer, len(ids) - known, len(new), perf_counter() - begun, cut, cache_sizes(self.cache))

    def _new(self, text: str) -> list[int]:
        """The tokens that a turn of the user adds."""
        check_unicode(text)
        if not text.strip():
            raise MemxError("the message is empty", hint="write something, or /quit")
        ended = bool(self.ids) and self.ids[-1] in self.ends
        if not self.templated:
            if ended:  # a text that goes on has no end within
                self.ids.pop()
            return encode_text(self.tokenizer, text if not self.ids else "\n" + text, begin=not self.ids)
        ids = turn_ids(self.tokenizer, text, first=not self.ids, system=self.system)
        return ids[1:] if ended and ids[:1] == self.ids[-1:] else ids


@contextmanager
def open_conversation(
    choice: ModelChoice,
    sampling: Sampling,
    system: str = "",
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Conversation]:
    """Load a model, and keep its policy attached inside the block.

    Args:
        choice: The model and its policy.
        sampling: How answers are written.
        system: The system prompt; empty for the template's own.
        progress: Gets a line for each thing that takes time, and what was noticed.

    Yields:
        An empty chat.

    Raises:
        MemxError: The model cannot be loaded, or there is a system prompt and no chat template.
    """
    sampling.check()
    loaded = load(choice, progress)
    if not loaded.tokenizer.chat_template:
        if system:
            raise MemxError(
                f"--system: the tokenizer of {loaded.source.label} has no chat template",
                hint="write it into the first message",
            )
        progress("no chat template: the model continues what you write")
    torch.manual_seed(sampling.seed)
    with loaded.evicting() as attached:
        yield Conversation(loaded, attached, sampling, system)


def replace_most(sampling: Sampling, most: int) -> Sampling:
    """The same way to write, with another largest number of tokens."""
    return replace(sampling, max_tokens=most)


class _Pieces(TextStreamer):
    """Hands text on as soon as its tokens are whole words."""

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Take the next piece."""
        if text:
            self.write(text)


class _Asked(StoppingCriteria):
    """Ends an answer where the user asks for it."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked = asked

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> Any:
        return torch.full((len(input_ids),), self.asked(), device=input_ids.device)
