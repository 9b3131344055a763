"""Tables on terminals of any width: no name and no figure is ever broken, and nothing is lost."""

import re

import pytest
from memx.cli.output.console import print_table
from memx.cli.output.table_layout import fit, measure, split, width_of

PRESETS = ["name", "what it is"]
ABOUT = [
    ["1.3b-64m-1t", "The published 1.3B model with 64M memory slots in three layers, trained on 1T tokens of text."],
    ["namm-llama-3-8b", "A NAMM for Llama 3 8B on long documents, in three stages of tasks; takes days on a GPU."],
]
RUNS = [
    "model",
    "kind",
    "slots",
    "params",
    "FLOPs",
    "EM % seen",
    "EM % paraphrased",
    "EM % held-out",
    "NLL seen",
    "time",
]
LINES = [
    [
        "tiny-4x64",
        "memory",
        "65,536",
        "8.75M",
        "332,352",
        "83.8 ±2.3",
        "84.0 ±2.2",
        "22.8 ±7.5",
        "0.42 ±0.05",
        "1,024 s",
    ],
    ["tiny-4x64", "dense", "", "399k", "332,352", "42.8 ±3.1", "42.5 ±3.0", "13.7 ±6.0", "1.88 ±0.09", "96 s"],
]
FRONT = ["policy", "trained\nexact %", "trained\nlost nats", "kept %"]
SCORES = [
    ["StreamingLLM", "  41.2 ±5.5", "0.312 ±0.044", "50.0"],
    ["NAMM (3 seeds)", "* 47.9 ±5.1", "0.208 ±0.031", "50.0"],
]


@pytest.fixture
def shown(monkeypatch, capsys):
    """Prints a table on a terminal of a width and returns its lines without colours."""

    def show(width, *table, left=1, names=None):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(*table, left=left, names=names)
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split("\n")]

    return show


@pytest.mark.parametrize("width", [60, 80, 120, 160])
@pytest.mark.parametrize(
    ("columns", "rows", "left"), [(RUNS, LINES, 1), (FRONT, SCORES, 1), (["a", "b", *RUNS], None, 3)], ids=str
)
def test_no_cell_is_broken(shown, width, columns, rows, left):
    rows = rows or [["one long name of a row", "x", *line] for line in LINES]
    lines = shown(width, "A title of some words that say what the figures of the table are", columns, rows, left=left)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for row in rows:
        for cell in row:
            assert text.count(cell.strip()) >= sum(other.count(cell) > 0 for other in rows), cell
    for word in " ".join(columns).split():
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text), word


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_names_stay_whole_and_texts_wrap_between_words(shown, width):
    lines = shown(width, "Presets", PRESETS, ABOUT, left=2)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for name, about in ABOUT:
        assert name in words and all(word in words for word in about.split())
    assert len(lines) < 20


def test_a_wide_table_is_split_and_repeats_the_names(shown):
    lines = shown(80, "Runs", RUNS, LINES)
    headers = [line for line in lines if line.split()[:1] == ["model"]]
    assert len(headers) == 2 and sum(line.count("tiny-4x64") for line in lines) == 2 * len(LINES)
    assert not any(line.count("EM") for line in shown(160, "Runs", RUNS[:5], [line[:5] for line in LINES]))


def test_each_part_repeats_all_columns_that_name_a_row(shown):
    columns, rows = RUNS[1:], [["memory", f"{slots:,}", *LINES[0][3:]] for slots in (1024, 4096, 16_384)]
    lines = shown(60, "Runs", columns, rows, names=2)
    assert len([line for line in lines if line.split()[:2] == ["kind", "slots"]]) == 3
    assert all(sum(line.split()[:2] == row[:2] for line in lines) == 3 for row in rows)


def test_a_part_has_no_rows_without_a_cell_but_keeps_headings(shown):
    rows = [["shape 1", *[""] * 9], *LINES, ["half", "dense", "64", "1M", "1k", *[""] * 5]]
    text = "\n".join(shown(80, "Runs", RUNS, rows))
    assert text.count("shape 1") == 2 and text.count("half") == 1


def test_a_table_that_cannot_be_split_becomes_a_block_for_each_row(shown):
    columns = [f"column {i}" for i in range(20)]
    lines = shown(60, "Many", columns, [["a name", *(f"{i},000.5 ±{i}" for i in range(19))]])
    assert "a name" in lines and "  column 19: 18,000.5 ±18" in lines


def test_output_that_is_no_terminal_is_as_wide_as_columns_says(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_table("Runs", RUNS, LINES)
    narrow = capsys.readouterr().out.split("\n")
    assert max(map(len, narrow)) <= 80 and sum(line.count("tiny-4x64") for line in narrow) == 2 * len(LINES)
    monkeypatch.setenv("COLUMNS", "none")
    print_table("Runs", RUNS, LINES)
    assert capsys.readouterr().out.count("tiny-4x64") == len(LINES)


def test_output_that_is_no_terminal_is_as_wide_as_it_needs(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    columns = [f"column{i}" for i in range(40)]
    print_table("Wide", columns, [[f"{i}.000" for i in range(40)]])
    line = next(line for line in capsys.readouterr().out.split("\n") if "39.000" in line)
    assert line.split() == [f"{i}.000" for i in range(40)]


def test_brackets_are_text(capsys):
    print_table("Title [a]", ["[b]"], [["[bold]x"], ["[+0.1, +0.2]"]])
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("Title [a]", "[b]", "[bold]x", "[+0.1, +0.2]"))


def test_widths_add_up():
    measured = measure(RUNS, LINES, 1)
    assert fit(measured, 40) is None
    whole = fit(measured, 400)
    assert whole == [column.natural for column in measured]
    assert width_of(fit(measured, 120)) <= 120
    parts = split(measured, 1, 80)
    assert [i for part in parts for i in part if i] == list(range(1, len(RUNS))) and all(part[0] == 0 for part in parts)
