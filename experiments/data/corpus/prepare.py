"""Sources of text -> a folder of memory-mapped shards of token ids, with the tokenizer and a manifest.

Shards are written one after the other. After each, unfinished.json says where reading goes on, so a killed run that
goes on ends with the same bytes as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ....errors import MemxError
from ....files import write_atomically
from ....results.store.claims import empty
from ...config.base import from_options
from ...config.scale import CorpusConfig, CorpusSource
from ...runtime.signals import Interrupted, stop_on_signals
from .encode_pool import encode_in_order
from .encoder import Encoder, encoder_of
from .prepare_folder import Progress, check_same, earlier_progress, own_folder, written
from .readers.document import CorruptRecords, Documents, Share, Source
from .readers.prepared import (
    MANIFEST,
    TOKENIZER,
    UNFINISHED,
    Manifest,
    PreparedSource,
    PreparedTexts,
    Settings,
    read_manifest,
)
from .readers.sources import notes_on, open_source
from .shards import Encoded, ShardWriter
from .vocabulary import save_tokenizer, train_on

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_TOGETHER = 256  # documents that are tokenised at once, at most
_AT_ONCE = 2**20  # characters, about
_HINT = "fix the file and start over with --force, or skip corrupt records with --damaged skip --resume"


@dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and where to. shard_tokens: a shard ends with the documents that reach so many."""

    sources: tuple[CorpusSource, ...]
    out: Path
    tokenizer: str | None = None
    vocabulary: int = 32_768
    shard_tokens: int = 100_000_000
    jobs: int = 1
    damaged: Literal["fatal", "skip"] = "fatal"
    resume: bool = False
    force: bool = False


class Written(NamedTuple):
    """How far a run is."""

    documents: int
    tokens: int
    shards: int


class _Batch(NamedTuple):
    """Documents to tokenise, and where reading goes on after them."""

    texts: list[str]
    digests: list[int]
    place: tuple[int, Any]
    left_out: int


def prepare(
    config: PrepareConfig, notes: Callable[[str], None], report: Callable[[Written], None] = lambda written: None
) -> Manifest:
    """Tokenise all documents of the sources into config.out, and return its manifest.

    Raises MemxError before anything is written for a source or tokenizer that cannot be had and a folder that may not
    be written; on damage, unless it is skipped. A signal ends it with Interrupted; `resume` goes on.
    """
    with own_folder(config.out, resume=config.resume, force=config.force):
        damage = CorruptRecords(config.damaged, notes, _HINT)
        sources = [_texts_of(one, damage) for one in config.sources]
        for note in notes_on(sources):
            notes(note)
        settings = _settings(config, sources)
        if config.resume and (config.out / MANIFEST).is_file() and not (config.out / UNFINISHED).is_file():
            return _finished(config.out, settings, notes)
        progress = earlier_progress(config.out, settings) if config.resume else None
        kept = progress is not None and (config.out / TOKENIZER).is_dir()
        tokenizer = None if kept else _tokenizer(config, sources)
        with written(config.out, force=config.force):
            if progress is None:
                empty(config.out)
                progress = Progress(settings=settings)
                progress.save(config.out)
            if tokenizer is not None:
                save_tokenizer(tokenizer, config.out / TOKENIZER)
            return _write_all(config, progress, sources, damage, report)


def _write_all(
    config: PrepareConfig,
    progress: Progress,
    sources: list[Source],
    damage: CorruptRecords,
    report: Callable[[Written], None],
) -> Manifest:
    from ...base_models.load import load_tokenizer

    encoder = encoder_of(load_tokenizer(str(config.out / TOKENIZER)))
    damage.left_out = progress.left_out
    progress = _write_shards(config, progress, encoder, _batches(sources, damage, progress.place), report)
    if not progress.shards:
        names = ", ".join(source.name for source in sources)
        raise MemxError(f"{names}: no text in the field that was read", hint="set the field's name with --field")
    manifest = Manifest(
        dtype=encoder.dtype,
        tokenizer=encoder.digest,
        settings=progress.settings,
        tokens=sum(shard.tokens for shard in progress.shards),
        documents=sum(shard.documents for shard in progress.shards),
        left_out=damage.left_out,
        shards=progress.shards,
    )
    write_atomically(config.out / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    (config.out / UNFINISHED).unlink()
    return manifest


def _write_shards(
    config: PrepareConfig,
    progress: Progress,
    encoder: Encoder,
    batches: Iterator[_Batch],
    report: Callable[[Written], None],
) -> Progress:
    """Write the shards that are missing; unfinished.json follows each."""
    writer: ShardWriter | None = None
    last: _Batch | None = None
    encoded = encode_in_order(batches, lambda batch: batch.texts, encoder, encoder.dtype, config.jobs)
    try:
        with stop_on_signals() as stop:
            for batch, (ids, lengths) in encoded:
                if stop.asked:
                    raise Interrupted(f"stopped; {len(progress.shards)} finished shards are in {config.out}")
                writer, last = writer or ShardWriter(config.out, len(progress.shards)), batch
                writer.add(Encoded(ids, lengths, batch.digests))
                if writer.tokens >= config.shard_tokens:
                    progress, writer = _with_shard(progress, writer, batch, config.out), None
                report(_written(progress, writer))
            if writer is not None and last is not None:
                progress, writer = _with_shard(progress, writer, last, config.out), None
    finally:
        encoded.close()
        if writer is not None:
            writer.drop()
    return progress


def _with_shard(progress: Progress, writer: ShardWriter, batch: _Batch, folder: Path) -> Progress:
    shards = (*progress.shards, writer.finish())
    progress = progress.model_copy(update={"shards": shards, "place": batch.place, "left_out": batch.left_out})
    progress.save(folder)
    return progress


def _written(progress: Progress, writer: ShardWriter | None) -> Written:
    documents = sum(shard.documents for shard in progress.shards) + (writer.documents if writer else 0)
    tokens = sum(shard.tokens for shard in progress.shards) + (writer.tokens if writer else 0)
    return Written(documents, tokens, len(progress.shards))


def _batches(sources: list[Source], damage: CorruptRecords, place: tuple[int, Any]) -> Iterator[_Batch]:
    """All documents of all sources from a place on; where a batch ends depends on nothing but where it begins."""
    first, inside = place
    for number in range(first, len(sources)):
        documents = sources[number].read(Share(0, 1, None), 0, inside if number == first else None)
        while batch := _take(documents):
            texts, digests = map(list, zip(*batch, strict=True))
            yield _Batch(texts, digests, (number, documents.place), damage.left_out)


def _take(documents: Documents) -> list[tuple[str, int]]:
    taken: list[tuple[str, int]] = []
    size = 0
    while len(taken) < _TOGETHER and size < _AT_ONCE and (found := next(documents, None)) is not None:
        taken.append((str(found.content), found.digest))
        size += len(taken[-1][0])
    return taken


def _texts_of(source: CorpusSource, damage: CorruptRecords) -> Source:
    found = open_source(source, damage)
    if isinstance(found, PreparedTexts):
        raise MemxError(f"{source.path} is already prepared", hint=f"train on it: memx train --corpus {source.path}")
    return found


def _settings(config: PrepareConfig, sources: list[Source]) -> Settings:
    told = [
        PreparedSource(**one.model_dump(exclude={"weight"}), sizes=source.sizes)
        for one, source in zip(config.sources, sources, strict=True)
    ]
    return from_options(
        Settings,
        sources=tuple(told),
        tokenizer=config.tokenizer,
        vocabulary=config.vocabulary,
        shard_tokens=config.shard_tokens,
    )


def _finished(folder: Path, settings: Settings, notes: Callable[[str], None]) -> Manifest:
    manifest = read_manifest(folder)
    check_same(folder, manifest.settings, settings)
    notes(f"{folder} is already complete")
    return manifest


def _tokenizer(config: PrepareConfig, sources: list[Source]) -> PreTrainedTokenizerFast:
    from ...base_models.load import load_tokenizer

    if config.tokenizer is not None:
        tokenizer = load_tokenizer(config.tokenizer)
        encoder_of(tokenizer)  # tells what it lacks before anything is written
        return tokenizer
    silent = CorruptRecords(config.damaged, lambda line: None, _HINT)
    corpus = CorpusConfig(sources=config.sources, lanes=1, held_out=0.0)
    return train_on(corpus, [open_source(one, silent) for one in config.sources], config.vocabulary)
