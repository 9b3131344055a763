"""What a training config says beyond one machine: corpora, and what processes share out. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from .base import StrictModel


class CorpusSource(StrictModel):
    """One source of training text."""

    path: str = Field(
        description="a .txt, .jsonl or .parquet file, a folder or pattern of them, a folder that `memx prepare` wrote, "
        "python-docs, python-source, or a hub data set"
    )
    weight: float = Field(default=1.0, gt=0, description="its share of the documents, against the other sources'")
    field: str = Field(default="text", description="the field or column that holds the text")
    split: str = Field(default="train", description="of a hub data set")
    subset: str | None = Field(default=None, description="of a hub data set: the configuration's name")


class CorpusConfig(StrictModel):
    """Ordinary text to train on in place of facts, read as a stream that never lies in memory as a whole."""

    sources: tuple[CorpusSource, ...] = Field(
        default=(), description="files, folders, hub data sets, folders that `memx prepare` wrote; none: facts"
    )
    tokenizer: str | None = Field(
        default=None,
        description="a hub name or a folder; none: that of a prepared folder, or one trained on the first documents",
    )
    shuffle: int = Field(default=1024, ge=0, description="documents that a lane shuffles at a time; 0: in their order")
    lanes: int = Field(
        default=8, ge=1, description="independent streams that rows are taken from in turn; ranks share them out"
    )
    damaged: Literal["fatal", "skip"] = Field(
        default="fatal", description="what becomes of a line or file that cannot be read: end the run, or leave it out"
    )
    held_out: float = Field(
        default=0.01, ge=0, lt=1, description="share of the documents that training never shows, by their hash"
    )
    blocks: int = Field(default=40, ge=1, description="rows of held-out text whose loss is measured")

    @field_validator("sources", mode="before")
    @classmethod
    def _names_are_paths(cls, sources: Any) -> Any:
        named = [sources] if isinstance(sources, str | dict) else sources or ()
        return [{"path": one} if isinstance(one, str) else one for one in named]


class ParallelConfig(StrictModel):
    """What the processes that torchrun starts share out; a single process holds everything."""

    shard: int | None = Field(
        default=None, ge=1, description="ranks that the dense weights are sharded over (FSDP); 1: none; none: all"
    )
    table: Literal["width", "rows", "replicated"] = Field(
        default="width", description="what of a value table a rank holds: some of its columns, some rows, or all"
    )
    table_ranks: int | None = Field(
        default=None, ge=1, description="ranks that together hold one copy of the value tables; none: all"
    )
    host_values: bool = Field(
        default=False, description="keep value tables in host memory and copy the rows that a step reads"
    )
    prefetch: int = Field(
        default=1, ge=0, description="host values: micro-batches whose rows are fetched while another computes"
    )
