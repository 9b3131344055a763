"""Tables of measured figures in README.md and docs/: `python docs/tables.py` fills them from results/reference.

A table stands between `<!-- table: NAME -->` and `<!-- /table -->`; what is between them is replaced. With --check
nothing is written, and the exit code is 1 if a page differs from what its rows say.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from measured import (
    answers,
    cache_aware,
    conditions,
    costs,
    evictions,
    glance,
    memory_layers,
    namms,
    parts,
    published_namm,
    searches,
    shares,
    universal,
    written,
)

ROOT = Path(__file__).resolve().parent.parent
TABLES: dict[str, Callable[[str], str]] = {
    "baselines": memory_layers.baselines,
    "compute": memory_layers.compute,
    "widths": memory_layers.widths,
    "ablation": memory_layers.ablation,
    "shares": shares.shares,
    "memory-kinds": shares.kinds,
    "memory-kinds-time": shares.kinds_time,
    "retrofit": memory_layers.retrofit,
    "continual": memory_layers.continual,
    "continual-rows": memory_layers.continual_rows,
    "queries": memory_layers.queries,
    "step": costs.step,
    "evolution": namms.evolution,
    "evolution-heads": namms.evolution_heads,
    "tried": searches.tried,
    "policies": namms.policies,
    "differences": namms.differences,
    "bookkeeping": evictions.bookkeeping,
    "transfer": evictions.transfer,
    "transfer-memory": evictions.transfer_memory,
    "ruler": answers.ruler,
    "registers": answers.registers,
    "writing": costs.writing,
    "kinds": conditions.kinds,
    "lengths": conditions.lengths,
    "online": conditions.online,
    "unanswerable": conditions.unanswerable,
    "two-hosts": conditions.two_hosts,
    "parts": parts.parts,
    "gain": parts.gain,
    "evolved-table": parts.evolved_table,
    "with-expected": parts.with_expected,
    "allocations": parts.allocations,
    "improves": written.improves,
    "published-evolution": published_namm.evolution,
    "published-policies": published_namm.policies,
    "published-transfer": published_namm.transfer,
    "generation": costs.generation,
    "ops": costs.ops,
    "resources": costs.resources,
    "prefill": costs.prefill,
    "generate": costs.generate,
    "cache-aware": cache_aware.training,
    "cache-aware-nats": cache_aware.nats,
    "cache-memory": cache_aware.memory,
    "decision-scores": universal.decision_scores,
    "decision-differences": universal.decision_differences,
    "decision-kinds": universal.decision_kinds,
    "glance": glance.both,
    "glance-memory": glance.memory,
    "glance-namm": glance.namm,
}
_TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- /table -->)", flags=re.DOTALL)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    readmes = ["README.md", "kernels/README.md", "namm/README.md", "memory_layers/README.md"]
    return [*(ROOT / name for name in readmes), *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str, page: str) -> str:
    """A page with its tables as the rows are.

    Args:
        text: The page.
        page: Its path from the root of the repository, for links.

    Raises:
        SystemExit: A marker names no table, or a table has no end.
    """
    if len(re.findall("<!-- table: ", text)) != len(_TABLE.findall(text)) or text.count("<!-- /table -->") != len(
        _TABLE.findall(text)
    ):
        raise SystemExit(f"{page}: a table lacks its name or its end, <!-- /table -->")

    def table(found: re.Match[str]) -> str:
        start, name, end = found.groups()
        if name not in TABLES:
            raise SystemExit(f"{page}: no table {name!r}; there are: {', '.join(TABLES)}")
        return f"{start}\n{TABLES[name](page)}\n\n{end}"

    return _TABLE.sub(table, text)


def main() -> int:
    """Write the tables, or with --check say which pages differ."""
    parser = argparse.ArgumentParser(description="Fill the tables of measured figures from results/reference.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page differs")
    check = parser.parse_args().check
    stale = 0
    for path in pages():
        page = path.relative_to(ROOT).as_posix()
        text = path.read_text("utf-8")
        if (new := filled(text, page)) != text:
            stale += 1
            print(f"{page} {'differs from its rows: run `make tables`' if check else 'written'}", file=sys.stderr)
            if not check:
                path.write_text(new, "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
