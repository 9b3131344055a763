"""A corpus config -> its open sources, and the documents of all of them in turn, as far as one wants to look."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from glob import has_magic
from pathlib import Path

from .....errors import MemxError, nearest
from ....config.scale import CorpusConfig, CorpusSource
from .builtin import NAMES, BuiltinText
from .document import CorruptRecords, Document, Share, Source
from .files import KINDS, FileTexts, suffix_of
from .hub import HUB_NAME, HubTexts
from .prepared import PreparedTexts, is_prepared


def open_sources(config: CorpusConfig, damage: CorruptRecords) -> list[Source]:
    """Open every source. Raises MemxError for one that is not there or cannot be reached."""
    assert config.sources, "no sources"
    return [open_source(source, damage) for source in config.sources]


def open_source(source: CorpusSource, damage: CorruptRecords) -> Source:
    """Open the named text, file, folder, pattern, prepared folder or hub data set that a source's path means."""
    name = source.path
    path = Path(name).expanduser()
    if name in NAMES:
        return BuiltinText(name)
    if path.is_dir() and is_prepared(path):
        return PreparedTexts(path, damage)
    if path.exists() or has_magic(name):
        return FileTexts(source, damage)
    if not is_on_hub(name):
        raise MemxError(
            f"no file, folder or built-in text {name!r}",
            hint=nearest(name, NAMES)
            or f"give files that end in {', '.join(KINDS)}, or a hub data set such as OWNER/NAME",
        )
    return HubTexts(source, damage)


def is_on_hub(name: str) -> bool:
    """Whether a name, of texts or of a tokenizer, is one of the Hugging Face hub rather than of this machine."""
    path = Path(name).expanduser()
    local = name in NAMES or path.exists() or has_magic(name) or suffix_of(path) is not None
    return not local and HUB_NAME.fullmatch(name) is not None


def notes_on(sources: Sequence[Source]) -> list[str]:
    """What to say once about sources: which files of a folder have endings that are not read."""
    return [note for source in sources if isinstance(source, FileTexts) for note in source.notes]


def sample(
    config: CorpusConfig, sources: Sequence[Source], wanted: Callable[[Document], bool], *, most: int
) -> Iterator[Document]:
    """Documents of the first epoch, as files have them, lanes in turn and sources by their weights; the same always.

    Looks at no more than `most` documents, wanted or not.
    """
    draw = random.Random("sample")
    lanes = range(config.lanes)
    open_ = {
        index: [source.read(Share(lane, config.lanes, None), 0) for lane in lanes]
        for index, source in enumerate(sources)
    }
    looked = 0
    while open_ and looked < most:
        indices = list(open_)
        (index,) = draw.choices(indices, [config.sources[i].weight for i in indices])
        documents = open_[index].pop(0)
        found = next(documents, None)
        if found is not None:
            open_[index].append(documents)
            looked += 1
            if wanted(found):
                yield found
        elif not open_[index]:
            del open_[index]
