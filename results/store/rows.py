"""A row is one fact that a run found: a JSON object per line of `rows.jsonl`. Plots and tables read rows only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import MemxError
from ...files import write_atomically


class Row(BaseModel):
    """One measured value, with what it was measured on.

    run: the run folder's name. experiment: the name its points share. kind: dense, memory, memory+, peer, moe, or of
    an op, its implementation. variant: the point's name in an experiment of named variants. dataset: what was asked;
    metric: exact_match, f1, nll (nats per token), …; value in the metric's unit (accuracies in percent); n: how many
    questions; low, high: 95% interval; stderr: standard error. parameters_active: used for one token; flops: per
    token, forward.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str
    experiment: str
    kind: str
    model: str
    variant: str = ""
    dataset: str
    metric: str
    value: float
    n: int
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    memory_slots: int = 0
    parameters_total: int | None = None
    parameters_active: int | None = None
    flops: int | None = None
    device: str = ""
    seed: int = 0
    commit: str = ""


def extra(row: Row, name: str, otherwise: Any = None) -> Any:
    """A fact that a row holds beside its own fields."""
    value = (row.model_extra or {}).get(name)
    return otherwise if value is None else value


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, atomically."""
    write_atomically(path, "".join(row.model_dump_json() + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Read a file of rows. Raises MemxError, naming file and line, if one is no row."""
    rows = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise MemxError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MemxError(f"{path} is not text", hint="a rows file has one JSON object per line") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            rows.append(_row(path, number, line))
    return rows


def _row(path: Path, number: int, line: str) -> Row:
    try:
        data: Any = json.loads(line)
        return Row.model_validate(data)
    except json.JSONDecodeError:
        raise MemxError(f"{path} line {number} is not JSON", hint="a rows file has one JSON object per line") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MemxError(f"{path} line {number} is no row: {where}: {first['msg']}") from None
