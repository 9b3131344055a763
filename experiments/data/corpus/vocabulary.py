"""A corpus config -> the tokenizer of its runs: a named one, that of a prepared folder, or a new one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import MemxError
from ....files import cannot_write, put_in_place
from ....leftovers import temporary_beside
from ...config.scale import CorpusConfig
from .readers.document import CorruptRecords, Source, is_held_out
from .readers.prepared import TOKENIZER, PreparedTexts
from .readers.sources import open_sources, sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_DOCUMENTS = 10_000  # that a tokenizer is trained on, at most
_CHARACTERS = 2**25


def corpus_tokenizer(
    config: CorpusConfig, vocabulary: int, notes: Callable[[str], None] = lambda line: None
) -> PreTrainedTokenizerFast:
    """Load config.tokenizer, or that of a prepared source, or train one of `vocabulary` entries on first documents.

    The same config and files give the same tokenizer. Raises MemxError if there is none, it cannot be reached, or the
    sources hold no text.
    """
    from ...base_models.load import load_tokenizer

    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer)
    sources = open_sources(config, CorruptRecords(config.damaged, notes))
    for source in sources:
        if isinstance(source, PreparedTexts):
            return load_tokenizer(str(source.folder / TOKENIZER))
    return train_on(config, sources, vocabulary)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    """Write a tokenizer's folder, whole or not at all. Raises MemxError if the disk is full or forbids it."""
    temporary = temporary_beside(target)
    try:
        tokenizer.save_pretrained(temporary)
        put_in_place(temporary, target)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) or type(error) is Exception:  # as tokenizers raises
            raise cannot_write(target, error if isinstance(error, OSError) else OSError(0, str(error))) from None
        raise


def train_on(config: CorpusConfig, sources: Sequence[Source], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the first documents that are not held out. Raises MemxError if there are none."""
    from ..tokenizer import train_tokenizer

    found = sample(config, sources, lambda one: not is_held_out(one.digest, config.held_out), most=2 * _DOCUMENTS)
    texts: list[str] = []
    size = 0
    for document in islice(found, _DOCUMENTS):
        text = str(document.content)
        texts.append(text)
        size += len(text)
        if size >= _CHARACTERS:
            break
    if not texts:
        names = ", ".join(source.name for source in sources)
        raise MemxError(
            f"{names}: no text to train a tokenizer on", hint="check the field's name and the skipped records"
        )
    return train_tokenizer(texts, vocabulary)
