"""NAMMs and other policies: evaluations side by side, another model, bytes of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from memx.results.namm.looks import policy_label
from memx.results.namm.rows import prepared, size_of
from memx.results.summary import without_seed

from .namms import ALL, LIKELIHOOD, SIZES, by_policy, cells, differences_table, group, shares
from .text import blocks, rows_of, table

KEY_AND_VALUE = 2 * 64 * 4  # bytes of a key and value of SmolLM2-135M in float32


def transfer(page: str) -> str:
    """The universal NAMM on another model: likelihoods, and its differences to the best other policies."""
    return _on_model("namm/gemma3", "Gemma 3 270M")


def transfer_memory(page: str) -> str:
    """The same on SmolLM2 with memory layers that memx trained."""
    return _on_model("namm/with-memory", "with memory layers")


def _on_model(file: str, name: str) -> str:
    return blocks(beside({file: name}, ALL), differences_table(file, {ALL: "all tasks"}))


def bookkeeping(page: str) -> str:
    """Bytes of bookkeeping for each key that is kept, by policy and size; a head table changes nothing in them."""
    rows = [row for row in rows_of("namm/bytes") if row.dataset == ALL and not row.variant.endswith(" table")]
    held = {(row.variant, size_of(row)): row.value for row in rows if row.metric == "kv_bytes"}
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.metric == "bookkeeping_bytes" and (size := size_of(row)) in SIZES:
            of_key = row.value / (held[row.variant, size] / KEY_AND_VALUE)
            found.setdefault(without_seed(row.variant), {}).setdefault(size, []).append(of_key)
    lines = [
        [policy_label(policy, [*found]), *(f"{fmean(found[policy][size]):.0f}" for size in SIZES)]
        for policy in sorted(found, key=group)
    ]
    return table(["policy", *shares(SIZES)], lines)


def beside(files: Mapping[str, str], data: str, metric: str = LIKELIHOOD, digits: int = 2) -> str:
    """Policies of several evaluations in one table: a line for each policy, columns for each evaluation and size.

    Args:
        files: The file of an evaluation's rows -> what its columns are called.
        data: What the figures are about, such as all/all.
        metric: What was measured.
        digits: Decimals.
    """
    lines: dict[str, list[str]] = {}
    for place, name in enumerate(files):
        for label, points in by_policy(prepared(rows_of(name)), data, metric):
            line = lines.get(label, [])
            missing = [""] * (len(SIZES) * place - len(line))
            lines[label] = [*line, *missing, *cells(points, SIZES, digits)]
    width = len(SIZES) * len(files)
    columns = [f"{title}, {100 * float(size):g}%" for title in files.values() for size in SIZES]
    full = [[label, *line, *[""] * (width - len(line))] for label, line in lines.items()]
    return table(["policy", *columns], full)
