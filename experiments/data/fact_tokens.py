"""Facts in tokens: the tokenizer that is trained on them, and whether every document and question fits in the model.

Every text that could be too long is measured in tokens before training begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..config.training import TrainConfig
from .facts.load import TABLES
from .facts.phrasings import Phrasings, Wording
from .facts.questions import FactSplit, documents_of
from .facts.record import Fact
from .tokenizer import encode_texts, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_ADDED = 3  # tokens around a text: those that begin it, and the end token
_AT_ONCE = 2**20  # characters, about, that are tokenised at once
_SHOWN = 40  # characters of a subject in an error
# built-in facts fit in so many tokens with at least so large a vocabulary, the invented people with a smaller one
_KNOWN_SEQUENCE, _KNOWN_VOCABULARY, _INVENTED_VOCABULARY = 64, 1024, 512


def train_on_facts(split: FactSplit, vocabulary: int, text: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Train the tokenizer of facts on all their training documents, with at most `vocabulary` entries.

    text: ordinary text that the model is trained on as well.
    """
    texts = (document.text for fact in split.trained for document in documents_of(fact, split.seed, split.wording))
    return train_tokenizer(chain(texts, text), vocabulary)


def possibly_long(split: FactSplit, sequence: int) -> list[Fact]:
    """The facts with a text of more than `sequence` bytes, so that only these can have as many tokens.

    That is so for byte-level tokenizers that change no text, such as memx's own.
    """
    return [fact for fact in (*split.trained, *split.unseen) if _most_bytes(fact, split.wording) > sequence]


def built_in_fit(config: TrainConfig) -> bool:
    """Whether the facts of a config are memx's own, and known to fit without a tokenizer: tests measure them."""
    vocabulary = _KNOWN_VOCABULARY if config.finetune.source is None else 0
    own = all(source in TABLES or source == "biographies" for source in config.data.facts)
    invented = set(config.data.facts) == {"biographies"} and config.data.vocabulary >= _INVENTED_VOCABULARY
    own = own and config.data.phrasings is None
    return own and config.data.sequence >= _KNOWN_SEQUENCE and (invented or config.data.vocabulary >= vocabulary)


def check_lengths(
    split: FactSplit, tokenizer: PreTrainedTokenizerBase, sequence: int, context: int | None = None
) -> None:
    """Check that every training document fits in a row, and every question with its answer in the model's context.

    Args:
        split: The facts.
        tokenizer: What they are encoded with.
        sequence: The tokens of a row (`data.sequence`).
        context: The tokens that the model reads at once; None for those of a row.

    Raises:
        MemxError: Some do not fit; names the longest one's fact, its tokens, and the setting that would do.
    """
    facts: Sequence[Fact] = (*split.trained, *split.unseen)
    if getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", "") is None:
        facts = possibly_long(split, sequence)
    room = context or sequence
    trained = set(split.trained) if facts else set()
    documents, questions = _Longest(sequence), _Longest(room)
    for part in _parts(facts):
        texts = [
            (fact, text.text)
            for fact in part
            if fact in trained
            for text in documents_of(fact, split.seed, split.wording)
        ]
        documents.measure(texts, tokenizer)
        asked = [(fact, f"{start} {fact.object}") for fact in part for start in _questions(fact, split.wording)]
        questions.measure(asked, tokenizer)
    if documents.found or questions.found:
        raise _too_long(documents, questions, sequence, room)


class _Longest:
    """The facts that do not fit in so many tokens, and the longest text of them."""

    def __init__(self, room: int) -> None:
        self.room, self.tokens = room, 0
        self.found: dict[Fact, None] = {}
        self.fact: Fact | None = None

    def measure(self, texts: Sequence[tuple[Fact, str]], tokenizer: PreTrainedTokenizerBase) -> None:
        """Measure more texts, each with the end token."""
        encoded = encode_texts(tokenizer, [text for _, text in texts])
        for (fact, _), one in zip(texts, encoded, strict=True):
            length = len(one.ids) + 1
            if length > self.room:
                self.found[fact] = None
            if length > self.tokens:
                self.tokens, self.fact = length, fact


def _too_long(documents: _Longest, questions: _Longest, sequence: int, room: int) -> MemxError:
    longest = documents if documents.found else questions
    assert longest.fact is not None
    subject, count = longest.fact.subject, len({**documents.found, **questions.found})
    shown = subject if len(subject) <= _SHOWN else f"{subject[:_SHOWN]}…"
    what, key, limit = "a document", "data.sequence", sequence
    if longest is questions:
        what, key, limit = "a question with its answer", "model.context", room
    fits = _rounded(max(documents.tokens, questions.tokens))
    wanted = f"--set data.sequence={_rounded(max(documents.tokens, sequence))} " if documents.found else ""
    more = f"; so are {count - 1:,} more facts" if count > 1 else ""
    return MemxError(
        f"{what} on {shown!r} ({longest.fact.relation}) is {longest.tokens:,} tokens long, above {key} {limit}{more}",
        hint=f"remove or shorten such facts, or use {wanted}--set model.context={max(fits, room)}",
    )


def _rounded(tokens: int) -> int:
    return -(-tokens // 16) * 16


def _parts(facts: Sequence[Fact]) -> Iterator[list[Fact]]:
    """The facts in lists whose documents have about so many characters."""
    part: list[Fact] = []
    size = 0
    for fact in facts:
        part.append(fact)
        size += 12 * (len(fact.subject) + len(fact.object) + len(fact.relation) + 40)
        if size >= _AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _questions(fact: Fact, wording: Wording) -> list[str]:
    return [start.format(s=fact.subject) for start in wording.phrasings(fact.relation).questions]


def _most_bytes(fact: Fact, wording: Wording) -> int:
    """Bytes of the longest text on a fact, with an end, and as many more as there may be tokens around it."""
    words, times = _longest_phrasing(wording.phrasings(fact.relation))
    return words + times * len(fact.subject.encode()) + len(fact.object.encode()) + len(" .") + _ADDED


@cache
def _longest_phrasing(found: Phrasings) -> tuple[int, int]:
    """Bytes of the longest phrasing of a relation, and how often the subject is in one at most."""
    starts = [*found.sentences, *found.questions]
    return max(len(start.encode()) for start in starts), max(start.count("{s}") for start in starts)
