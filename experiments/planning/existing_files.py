"""The files that a run would read, beside its facts -> checked to be there before anything is planned on them."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.points import Point
from ..config.scale import CorpusConfig
from ..config.training import TrainConfig
from ..data.corpus.readers.builtin import NAMES
from ..data.corpus.readers.document import CorruptRecords
from ..data.corpus.readers.sources import is_on_hub, open_source
from ..data.fact_text import text_of_source


def check_files(points: Sequence[Point]) -> None:
    """Look for the files and folders that runs name; what is on the hub is not asked for.

    Args:
        points: The runs.

    Raises:
        MemxError: A text, a folder or a tokenizer is not there or cannot be read.
    """
    seen: set[CorpusConfig | str] = set()
    for config in (point.config for point in points):
        if config.corpus.sources and config.corpus not in seen:
            _check_corpus(config)
            seen.add(config.corpus)
        text = config.text.source
        if text is not None and text not in NAMES and text not in seen:
            text_of_source(text)
            seen.add(text)


def _check_corpus(config: TrainConfig) -> None:
    for source in config.corpus.sources:
        if not is_on_hub(source.path):
            open_source(source, CorruptRecords(config.corpus.damaged, lambda note: None))
    name = config.corpus.tokenizer
    if name is not None and config.finetune.source is None and not is_on_hub(name):
        from ..base_models.load import load_tokenizer  # brings transformers

        load_tokenizer(name)
