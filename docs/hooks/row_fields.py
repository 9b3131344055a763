"""The reference of rows: every field of a line of `rows.jsonl`, from the model of rows."""

from __future__ import annotations

import types
from typing import get_args, get_origin

from markdown_text import cell, code, table
from memx.results.store.rows import ADDED, Row

_WORDS = {str: "text", int: "integer", float: "number", types.NoneType: "null"}


def fields() -> str:
    """Two tables: fields of every row, and fields that rows of some commands add."""
    every = [
        [code(name), _type(field.annotation), "yes" if field.is_required() else "", cell(field.description or "")]
        for name, field in Row.model_fields.items()
    ]
    added = ([code(name), cell(meaning)] for name, meaning in ADDED.items())
    return "\n\n".join([
        table(["field", "type", "required", "meaning"], every),
        "Rows of some commands have more fields:",
        table(["field", "meaning"], added),
    ])  # fmt: skip


def _type(annotation: object) -> str:
    parts = get_args(annotation) if get_origin(annotation) is types.UnionType else (annotation,)
    return " or ".join(_WORDS[part] for part in parts)
