"""A line per input or kill in results.jsonl -> totals by command, and failures by what they say."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .rules import EXIT, HANG, LEFT, TRACEBACK, WORDS

LOST = "lost or different"
COLUMNS = (EXIT, TRACEBACK, WORDS, HANG, LEFT, LOST)
Line = dict[str, Any]


class Results:
    """A file of JSON lines, one for each input or kill that has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Line]:
        """The last line of each input and kill; half of a line, as a stopped campaign may leave it, is none."""
        lines: dict[tuple[str, int], Line] = {}
        for text in self.path.read_text("utf-8").splitlines() if self.path.exists() else ():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            lines[line["what"], line["number"]] = line
        return list(lines.values())

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def totals(lines: Iterable[Line]) -> list[Line]:
    """Totals of each command and of all: inputs, kills, and the inputs and trials that broke each kind of rule."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        for name in (line["command"], "all"):
            counts[name][line["what"]] += line.get("kills", 1)
            for kind in {kind for kind, _ in line["faults"]}:
                counts[name][kind] += 1
    names = sorted(counts.keys() - {"all"})
    columns = ("input", "kill", *COLUMNS)
    names += ["all"][: len(names)]
    return [{"command": name} | {one: counts[name][one] for one in columns} for name in names]


def note(lines: Iterable[Line], seed: int) -> str:
    """One sentence or two on where the totals come from."""
    lines = list(lines)
    again = sum(bool(line.get("again")) for line in lines)
    trials = sum(line["what"] == "kill" for line in lines)
    said = f"Seed {seed}; {len(lines) - trials:,} inputs, and {trials:,} commands to stop, most of them several times."
    return said + (f" {again:,} of them ran again after a fault was mended." if again else "")


def table(rows: Sequence[Line]) -> list[list[str]]:
    """The cells of the totals, with headings."""
    heads = ["command", "inputs", "kills", *COLUMNS]
    return [heads, *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values()] for row in rows)]


def as_text(cells: Sequence[Sequence[str]]) -> str:
    """The table in columns."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for row in cells:
        right = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *right[1:]]))
    return "\n".join(lines)


def as_markdown(cells: Sequence[Sequence[str]]) -> str:
    """The table for the documentation."""
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|---" + "|--:" * (len(cells[0]) - 1) + "|", *lines[1:]])


def groups(lines: Iterable[Line]) -> list[tuple[int, Line]]:
    """Failures that say the same: how many, and the first of each, the most frequent first."""
    found: dict[tuple, list[Line]] = defaultdict(list)
    for line in lines:
        if line["faults"]:
            kinds = tuple(sorted(kind for kind, _ in line["faults"]))
            found[line["command"].split()[0], kinds, _shape(line)].append(line)
    return sorted(((len(same), same[0]) for same in found.values()), key=lambda one: -one[0])


def _shape(line: Line) -> str:
    """What was printed or left, without numbers and without what is quoted."""
    said = line["said"][-1] if line["said"] else ""
    first = next((one for one in line["said"] if one.startswith(("error", "failed"))), said)
    return re.sub(r"'[^']*'|\S*/\S*|\d[\d,.]*", "…", first)[:80] + "|" + re.sub(r"\d+", "…", line["faults"][0][1])[:60]


def write_docs(page: Path, cells: Sequence[Sequence[str]], note: str) -> None:
    """Put the table between the markers of a page."""
    begin, end = "<!-- campaign: begin -->", "<!-- campaign: end -->"
    text = page.read_text("utf-8")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n{note}\n\n{as_markdown(cells)}\n{end}{after}", encoding="utf-8")
