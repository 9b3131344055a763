"""The config of fact data: the keys of `data:` in a YAML file. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from .base import StrictModel
from .scale import FactColumns, TextEncoding


def _listed(templates: Any) -> Any:
    return (templates,) if isinstance(templates, str) else templates


def _usable(templates: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Templates with \\n as the end of a line. Raises ValueError for one that is none."""
    if templates is None:
        return None
    found = tuple(template.replace("\\n", "\n").rstrip() for template in templates)
    for template in found:
        fits = template.count("{question}") == template.count("{answer}") == 1 and template.endswith(" {answer}")
        if not fits or template.index("{question}") > template.index("{answer}"):
            raise ValueError(
                f"template {template!r} must have {{question}} once and end in {{answer}} after a blank; "
                "write e.g. 'Q: {question}\\nA: {answer}'"
            )
    if not found or len({*found}) < len(found):
        raise ValueError("template has no texts, or one of them twice; give different ones")
    return found


class DataConfig(StrictModel):
    """Fact data: which facts to train on, how they are split, tokenized and packed."""

    facts: tuple[str, ...] = Field(
        default=("airports", "elements", "countries"),
        min_length=1,
        description="fact tables: airports, elements, countries, biographies, or files: CSV, JSON, Parquet, Excel",
    )
    columns: FactColumns | None = Field(
        default=None,
        description="column of each part of a fact in your files, as {subject: Name}; null: columns of the same names",
    )
    template: Annotated[tuple[str, ...] | None, BeforeValidator(_listed), AfterValidator(_usable)] = Field(
        default=None, description="how complete questions are put, e.g. 'Q: {question}\\nA: {answer}'; null: memx's way"
    )
    phrasings: str | None = Field(
        default=None, description="YAML file with your phrasings of relations; null: memx's templates"
    )
    encoding: TextEncoding | None = Field(
        default=None, description="encoding of facts files, such as cp1252; null: UTF-8"
    )
    relations: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="relations to keep, by name; null: all"
    )
    limit: int | None = Field(
        default=None, ge=10, description="largest number of facts, sampled with data.seed; null: all"
    )
    biographies: int = Field(
        default=1000, ge=1, le=1_000_000, description="number of invented people, if data.facts names biographies"
    )
    unseen: float = Field(default=0.05, ge=0, lt=1, description="share of entities held out from training")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="random seed for the splits, the invented people and data.limit"
    )
    skip_bad_rows: bool = Field(
        default=False, description="skip invalid rows of a facts file, with a note, instead of stopping"
    )
    vocabulary: int = Field(
        default=2048, ge=259, le=1_000_000, description="vocabulary size of the byte-level BPE tokenizer"
    )
    sequence: int = Field(
        default=64, ge=8, description="sequence length of a training row in tokens, at most model.context"
    )
    loss_on: Literal["answers", "all"] = Field(
        default="answers", description="tokens that count in the loss: those of the answers, or all"
    )
