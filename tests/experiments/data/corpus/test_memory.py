"""Streaming a corpus holds a buffer of it, whatever its size."""

import tracemalloc

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from memx.experiments.data.corpus.lane import Lane
from memx.experiments.data.corpus.readers.sources import open_sources

from .corpora import no_damage, settings, texts, write_lines, write_text

SIZE = 8_000_000  # bytes of text


def by_character(given):
    """What stands for a tokenizer here: a token for each character."""
    return [np.frombuffer(text.encode(), np.uint8) for text in given]


def write_table(path, documents):
    """One row group, of small pages."""
    table = pyarrow.table({"text": documents})
    pyarrow.parquet.write_table(table, path, use_dictionary=False, data_page_size=2**16, compression="none")


@pytest.mark.parametrize(
    ("write", "name"), [(write_lines, "a.jsonl"), (write_text, "a.txt"), (write_table, "a.parquet")]
)
def test_memory_stays_far_below_the_size_of_the_text(write, name, tmp_path):
    (paragraph,) = texts("p", 1, most=600)
    path = tmp_path / name
    documents = [f"{i} {paragraph}" for i in range(SIZE // len(paragraph))]
    write(path, documents)
    del documents
    config = settings(str(path), lanes=2, shuffle=16)
    lanes = [Lane(config, open_sources(config, no_damage()), by_character, 0, number) for number in range(2)]
    read = tables = 0
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    try:
        while read < SIZE:
            read += sum(len(lane.row(16_384).tokens) for lane in lanes)
            tables = max(tables, pyarrow.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak + tables < SIZE / 2, (peak, tables)
