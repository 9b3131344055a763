"""Config of data and scale: columns of facts files, text corpora, and how processes share a model. No torch here."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from ...errors import MemxError
from .base import StrictModel

FACT_COLUMNS = ("subject", "relation", "object", "aliases")
_PARTS = (*FACT_COLUMNS, "question", "answer")  # the last two are of complete questions
# names that Python has for other things than the encoding of a file
_NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "unicode-escape", "undefined", "utf-7")
_PART = re.compile(rf",(?=\s*(?:{'|'.join(_PARTS)})\s*=)")  # a column's own name may have commas


def parse_columns(text: str) -> dict[str, str]:
    """Read the columns of facts files as the command line has them.

    Args:
        text: The parts of a fact with their columns: `subject=Name,object=Value,relation==birth place`. A relation that
            begins with `=` is the same in every row.

    Raises:
        MemxError: A part has no `=`, or stands twice.
    """
    columns: dict[str, str] = {}
    for part in _PART.split(text):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column or name in columns:
            raise MemxError(
                f"--columns: {part!r} is not PART=COLUMN" if name not in columns else f"--columns: {name} stands twice",
                hint="use --columns subject=NAME,relation=NAME,object=NAME with the names in your file",
            )
        columns[name] = column
    return columns


def _known_columns(columns: dict[str, str]) -> dict[str, str]:
    for name, column in columns.items():
        if name not in _PARTS:
            raise ValueError(f"{name!r} is not a part of a fact; use {', '.join(_PARTS)}")
        if not column.strip("= "):
            raise ValueError(f"{name} has no column; give the name of one in your file")
        if column.startswith("=") and name != "relation":
            raise ValueError(f"{name} cannot be the same in every row; give the name of a column in your file")
    return columns


def _known_encoding(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        "a".encode(encoding)  # which encodings of bytes into bytes refuse
    except (LookupError, UnicodeError, ValueError):
        name = ""
    if not name or name in _NO_ENCODINGS:
        raise ValueError(f"{encoding[:40]!r} is not a known encoding; use one such as cp1252, latin-1 or utf-16")
    return encoding


FactColumns = Annotated[dict[str, str], AfterValidator(_known_columns)]
TextEncoding = Annotated[str, AfterValidator(_known_encoding)]


class CorpusSource(StrictModel):
    """One source of training text."""

    path: str = Field(
        description="file (.txt, .jsonl, .parquet), folder, pattern, `memx prepare` folder, python-docs or hub data set"
    )
    weight: float = Field(default=1.0, gt=0, description="share of the documents, relative to the other sources")
    field: str = Field(default="text", description="field or column that contains the text")
    split: str = Field(default="train", description="split of a hub data set")
    subset: str | None = Field(
        default=None, description="configuration name of a hub data set; null: the data set's default"
    )


class CorpusConfig(StrictModel):
    """Text corpus: text to train on instead of facts, streamed from files or the Hugging Face hub."""

    sources: tuple[CorpusSource, ...] = Field(
        default=(),
        description="text sources: files, folders, hub data sets or `memx prepare` folders; empty: train on facts",
    )
    tokenizer: str | None = Field(
        default=None,
        description="hub name or folder; null: that of the prepared folder, or one trained on the first documents",
    )
    shuffle: int = Field(
        default=1024, ge=0, le=10_000_000, description="shuffle buffer of each stream in documents; 0: keep their order"
    )
    lanes: int = Field(
        default=8, ge=1, le=10_000, description="data-loader streams, read in turn; a multiple of the number of ranks"
    )
    damaged: Literal["fatal", "skip"] = Field(
        default="fatal", description="corrupt lines or files: stop the run (fatal), or skip them with a note"
    )
    held_out: float = Field(
        default=0.01, ge=0, lt=1, description="share of the documents held out from training, chosen by hash"
    )
    blocks: int = Field(default=40, ge=1, le=1_000_000, description="held-out rows used to measure the loss")

    @field_validator("sources", mode="before")
    @classmethod
    def _names_are_paths(cls, sources: Any) -> Any:
        named = [sources] if isinstance(sources, str | dict) else sources
        if not isinstance(named, list | tuple):
            return () if named is None else named
        return [{"path": one} if isinstance(one, str) else one for one in named]


class ParallelConfig(StrictModel):
    """Parallelism: how the processes of torchrun shard weights and value tables, and CPU offload of the tables."""

    shard: int | None = Field(
        default=None, ge=1, le=100_000, description="FSDP degree of the dense weights; 1: not sharded; null: all ranks"
    )
    table: Literal["width", "rows", "replicated"] = Field(
        default="width",
        description="sharding of value tables: by width (columns), by rows, or replicated (a full copy per rank)",
    )
    table_ranks: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="sharding degree of value tables (ranks that share one copy); null: all ranks",
    )
    host_values: bool = Field(
        default=False, description="CPU offload: keep value tables in CPU memory and copy the rows that a step reads"
    )
    prefetch: int = Field(
        default=1, ge=0, le=1_000, description="CPU offload: micro-batches whose rows are fetched ahead; 0: none"
    )
