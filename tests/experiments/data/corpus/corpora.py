"""Small corpora of every kind for the tests of corpora, with the documents that are in them."""

from __future__ import annotations

import gzip
import json
import random
from functools import cache
from pathlib import Path

import pyarrow
import pyarrow.parquet
from memx.experiments.config.scale import CorpusConfig, CorpusSource
from memx.experiments.data.corpus.prepare import PrepareConfig, prepare
from memx.experiments.data.corpus.readers.document import CorruptRecords
from memx.experiments.data.tokenizer import train_tokenizer

WORDS = "the of a river mill café naïve 3 41 stone old 日本 house under green — runs".split()
HUB = {"who/what": 5, "who/few": 3}  # data sets and their shards
KINDS = ("line file", "text file", "table", "line files", "text files", "tables", "zipped", *HUB, "prepared", "mixed")


def texts(name: str, count: int, *, most: int = 30, seed: int = 0) -> list[str]:
    """Documents that begin with their name and number."""
    draw = random.Random(f"{name} {seed}")
    return [f"{name} {i} " + " ".join(draw.choices(WORDS, k=draw.randint(0, most))) for i in range(count)]


@cache
def tokenizer():
    """A small tokenizer."""
    return train_tokenizer(texts("any", 300), 400)


def write_lines(path: Path, documents: list[str], field: str = "text") -> str:
    """A .jsonl or .jsonl.gz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(
        json.dumps({"id": i, field: text}, ensure_ascii=i % 2 == 0) + "\n" for i, text in enumerate(documents)
    )
    data = lines.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def write_table(path: Path, documents: list[str], *, group: int = 7, field: str = "text") -> str:
    """A .parquet file of row groups of `group` rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"id": range(len(documents)), field: documents})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return str(path)


def write_text(path: Path, documents: list[str]) -> str:
    """A .txt file whose documents are cut where an empty line is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n\n" for text in documents), "utf-8")
    return str(path)


def write_kind(kind: str, folder: Path) -> tuple[str | CorpusSource, ...]:
    """The sources of a corpus of a kind, written under a folder; those of HUB need `stream_from_here`."""
    if kind == "mixed":
        one, two = write_kind("line file", folder), write_kind("tables", folder)
        return (
            CorpusSource(path=str(one[0]), weight=2.0),
            CorpusSource(path=str(two[0])),
            *write_kind("prepared", folder),
        )
    if kind in HUB:
        return (kind,)
    if kind == "line file":
        return (write_lines(folder / "one.jsonl", texts("l", 40)),)
    if kind == "text file":
        return (write_text(folder / "one.txt", texts("t", 60)),)
    if kind == "table":
        return (write_table(folder / "one.parquet", texts("p", 40)),)
    if kind == "prepared":
        source = write_lines(folder / "raw.jsonl", texts("m", 40))
        saved = folder / "tokenizer"
        tokenizer().save_pretrained(saved)
        out = folder / "prepared"
        prepare(PrepareConfig((CorpusSource(path=source),), out, str(saved), shard_tokens=150), print)
        return (str(out),)
    write, suffix = {
        "line files": (write_lines, ".jsonl"),
        "text files": (write_text, ".txt"),
        "tables": (write_table, ".parquet"),
        "zipped": (write_lines, ".jsonl.gz"),
    }[kind]
    for i in range(5):
        write(folder / kind / f"part{i}{suffix}", texts(f"f{i}", 9))
    return (str(folder / kind),)


def stream_from_here(monkeypatch) -> None:
    """Let `datasets` stream the small data sets of HUB."""
    import datasets

    def rows(shards):
        for shard in shards:
            for text in texts(f"h{shard}", 9):
                yield {"id": shard, "text": text}

    def load(path, *, name, split, streaming):
        assert streaming and name is None and split == "train"
        return datasets.IterableDataset.from_generator(rows, gen_kwargs={"shards": list(range(HUB[path]))})

    monkeypatch.setattr(datasets, "load_dataset", load)


def settings(*sources, **changes) -> CorpusConfig:
    """A config of few lanes and a small buffer that holds nothing out."""
    return CorpusConfig(**{"sources": sources, "lanes": 4, "shuffle": 6, "held_out": 0.0, **changes})


def no_damage() -> CorruptRecords:
    """Where damage would fail a test."""
    return CorruptRecords("fatal", print)
