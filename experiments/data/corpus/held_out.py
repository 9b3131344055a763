"""A corpus config -> rows of the text that training never shows, to measure the loss on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config.scale import CorpusConfig
from .encoder import encoder_of
from .readers.document import CorruptRecords, is_held_out
from .readers.sources import open_sources, sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_DOCUMENTS = 300_000  # that are looked at for held-out ones


def held_out_blocks(
    config: CorpusConfig,
    tokenizer: PreTrainedTokenizerFast,
    sequence: int,
    most: int,
    notes: Callable[[str], None] = lambda line: None,
) -> Tensor:
    """The first rows of held-out documents, int64 [at most `most`, sequence], each document ended as in training.

    The same for every seed and every process. Looks at the first 300,000 documents at most; a note says if that or the
    whole corpus holds fewer rows than asked for, which may be none.
    """
    encoder = encoder_of(tokenizer)
    sources = open_sources(config, CorruptRecords(config.damaged, notes))
    parts: list[NDArray[np.integer]] = []
    size = looked = 0

    def wanted(digest: int) -> bool:
        nonlocal looked
        looked += 1
        return is_held_out(digest, config.held_out)

    if config.held_out:
        for document in sample(config, sources, lambda one: wanted(one.digest), most=MOST_DOCUMENTS):
            content = document.content
            parts.append(encoder([content])[0] if isinstance(content, str) else content)
            size += len(parts[-1])
            if size >= most * sequence:
                break
    found = min(size // sequence, most)
    if found < most:
        of = f"{len(parts):,} of the first {looked:,} documents" if config.held_out else "corpus.held_out is 0"
        notes(f"only {found} rows of {sequence} tokens are held out, not {most} ({of}); raise corpus.held_out for more")
    tokens = np.concatenate([*parts, np.zeros(0, np.int64)])[: found * sequence]
    return torch.from_numpy(tokens.astype(np.int64)).view(found, sequence)
