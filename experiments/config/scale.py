"""Config sections for large runs: text corpora, and how processes share a model. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from .base import StrictModel


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
