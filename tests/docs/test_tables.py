"""Tables of measured figures: pages hold what the rows of results/reference give, and numbers are those of the rows."""

import re
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from statistics import fmean

import pytest
from memx.results.bench.rows import floor_share, measured
from memx.results.store.rows import read_rows
from memx.results.summary import summarize

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"


@pytest.fixture(scope="module")
def tables():
    """The module docs/tables.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield import_module("tables")


def rows_of(name):
    return read_rows(REFERENCE / f"{name}.rows.jsonl")


def lines_of(text):
    """The cells of each line of the tables of a text, by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells] for cells in lines}


def test_pages_hold_what_the_rows_give():
    check = subprocess.run([sys.executable, "docs/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr


def test_a_changed_number_is_found_and_mended(tables):
    text = "<!-- table: published-evolution -->\n<!-- /table -->\n"
    written = tables.filled(text, "README.md")
    assert written.count("\n| ") == 5 and tables.filled(written, "README.md") == written
    assert tables.filled(written.replace("+0.188", "+0.199"), "README.md") == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: nothing -->\n<!-- /table -->", "no table 'nothing'"),
        ("<!-- table: step -->\n", "lacks its name or its end"),
        ("<!-- /table -->\n", "lacks its name or its end"),
    ],
)
def test_a_wrong_marker_is_named(tables, text, message):
    with pytest.raises(SystemExit, match=message):
        tables.filled(text, "docs/page.md")


def test_every_table_stands_in_a_page(tables):
    text = "".join(path.read_text("utf-8") for path in tables.pages())
    assert set(re.findall(r"<!-- table: ([a-z-]+) -->", text)) == set(tables.TABLES)


def test_links_at_a_glance_lead_from_the_page_to_the_results(tables):
    for page in ("README.md", "docs/index.md", "docs/results/index.md"):
        for name in ("glance", "glance-memory", "glance-namm"):
            links = re.findall(r"\]\(([^)]+)\)", tables.TABLES[name](page))
            assert links and all(
                (ROOT / page).parent.joinpath(link).resolve().parent.name == "results" for link in links
            )


def test_numbers_of_the_baselines(tables):
    lines = lines_of(tables.TABLES["baselines"]("README.md"))
    for s in summarize(rows_of("rivals/rivals")):
        place = {"seen": 3, "rephrased": 4, "unseen": 5}[s.dataset]
        if s.metric == "exact_match":
            assert lines[s.variant][place] == f"{s.value:.1f} ± {(s.high - s.low) / 2:.1f}"
        elif (s.metric, s.dataset) == ("nll", "seen"):
            assert lines[s.variant][6] == f"{s.value:.2f} ± {(s.high - s.low) / 2:.2f}"


def test_numbers_of_the_step(tables):
    lines = lines_of(tables.TABLES["step"]("README.md"))
    values = {(row.kind, row.memory_slots, row.metric): row.value for row in rows_of("step/step")}
    sizes = sorted({size for _, size, _ in values})
    for kind in {kind for kind, *_ in values}:
        cells = lines[kind.replace(" a row", " per row")]
        assert [cell.split(" ")[0] for cell in cells[1:6]] == [f"{values[kind, s, 'step_ms']:,.0f}" for s in sizes]
        assert cells[7] == f"{values[kind, sizes[-1], 'peak_memory_gb']:.1f}"


def test_numbers_of_the_ops(tables):
    lines = lines_of(tables.TABLES["ops"]("kernels/README.md"))
    found = measured(rows_of("bench/bench"))
    for op, cells in list(lines.items())[2:]:
        shape = [line.shape for line in found if line.op == op][-1]
        here = {line.name: line for line in found if (line.op, line.shape) == (op, shape) and line.time("forward")}
        own, other = here[cells[2]], here[cells[7]]
        times = {name: line.time("forward").value for name, line in here.items()}
        assert times[own.name] == min(times[name] for name, line in here.items() if not line.rival)
        assert times[other.name] == min(times[name] for name, line in here.items() if line.rival)
        for which, (time, share, ratio) in {"forward": (3, 4, 8), "backward": (5, 6, 9)}.items():
            if (row := own.time(which)) is None:
                assert not cells[time] and not cells[share]
                continue
            assert float(cells[time]) == pytest.approx(row.value, rel=0.01)
            assert cells[share] == f"{100 * floor_share(row):.0f}%"
            assert cells[ratio] == f"{other.time(which).value / row.value:.1f}x"


def test_numbers_of_the_policies_are_means_over_seeds(tables):
    found = defaultdict(list)
    for row in rows_of("namm-published/namm"):
        if row.size == "budget":
            name = "namm" + " per head" * row.variant.endswith("per head") if row.variant[:4] == "namm" else row.variant
            found[name, row.budget, row.dataset, row.metric].append(row.value)
    names = {"NAMM": "namm", "NAMM per head": "namm per head", "H2O": "h2o", "SnapKV": "snapkv", "random": "random"}
    text = tables.TABLES["published-policies"]("README.md")
    parts = re.split(r"^\*\*.*$", text, flags=re.MULTILINE)[1:]
    wanted = [(d, m) for m in ("relative_log_likelihood", "exact") for d in ("held-out/all", "trained/all")]
    for part, (data, metric) in zip(parts, wanted, strict=False):
        lines = lines_of(part)
        for label, name in names.items():
            values = [fmean(found[name, budget, data, metric]) for budget in (0.75, 0.5, 0.25, 0.125)]
            digits = 0 if metric == "exact" else 2
            assert [cell.split(" ")[0] for cell in lines[label][1:]] == [f"{value:.{digits}f}" for value in values]


def test_numbers_of_the_newer_namms(tables):
    rows = [row for row in rows_of("namm/namm") if row.size == "budget" and row.dataset == "held-out/all"]
    values, over = defaultdict(list), defaultdict(list)
    for row in rows:
        name = re.sub("-[0-9a-f]{8}(?= )", "", row.variant)
        if row.metric == "relative_log_likelihood":
            values[name, row.budget].append(row.value)
        if row.metric == "relative_log_likelihood_over":
            over[name, row.rival, row.budget].append(row)
    table = lines_of(re.split(r"^\*\*.*$", tables.TABLES["policies"]("README.md"), flags=re.MULTILINE)[1])
    universal = next(name for name, _ in values if "universal" in name)
    for label, name in ((universal.replace("namm namm-", "NAMM "), universal), ("KeyDiff table", "keydiff table")):
        wanted = [f"{fmean(values[name, budget]):.2f}" for budget in (0.5, 0.25, 0.125)]
        assert [cell.split(" ")[0] for cell in table[label][1:]] == wanted
    found = [line.strip("| ").split(" | ") for line in tables.TABLES["differences"]("README.md").splitlines()]
    (line,) = [
        line
        for line in found
        if line[0] == "held-out tasks" and "universal" in line[1] and line[2].endswith("equal shares")
    ]
    for cell, budget in zip(line[3:], (0.5, 0.25, 0.125), strict=True):
        means = {
            rival: fmean(row.value for row in same)
            for (name, rival, at), same in over.items()
            if (name, at) == (universal, budget) and not rival.endswith((" table", " global"))
        }
        best = min(means, key=lambda rival: means[rival])
        bounds = over[universal, best, budget]
        low, high = min(row.low for row in bounds), max(row.high for row in bounds)
        assert cell.startswith(f"{means[best]:+.2f} [{low:+.2f}, {high:+.2f}] ")
