"""Any text on any stream: control characters, other encodings, readers that have enough, disks that are full."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memx.cli.output.console import print_json, print_json_text, print_table, wrapped
from memx.cli.output.streams import OutputLost, finish_output, note, printable, readable, say

CLI = Path(__file__).resolve().parents[3] / "cli"
COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def stream(monkeypatch, encoding, name="stdout"):
    """A stream of that encoding in place of stdout or stderr, which refuses what the encoding lacks."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")
    monkeypatch.setattr(sys, name, file)
    return file


def written(file):
    file.flush()
    return file.buffer.getvalue().decode(file.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_results_are_printed_in_characters_that_the_encoding_has(monkeypatch, encoding):
    file = stream(monkeypatch, encoding)
    say("3 → 4 ±0.5 × 2 ≤ 9 … 中")
    print_table("before → after", ["a ± b", "é"], [["1.0 ±0.2", "4 → 5"], ["[0.1, 0.2]", "\udcff"]])
    text = written(file)
    if encoding == "utf-8":
        assert "3 → 4 ±0.5 × 2 ≤ 9 … 中" in text and "before → after" in text and "\\xff" in text
    else:
        assert "before -> after" in text and "\\u4e2d" in text and "\\xff" in text and "[0.1, 0.2]" in text
        assert ("1.0 +-0.2" if encoding == "ascii" else "1.0 ±0.2") in text
    assert len({len(line) for line in text.splitlines() if "0.2" in line}) == 1  # columns align


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(st.characters(codec=None), max_size=30), st.sampled_from(["ascii", "cp1252", "utf-8", "utf-16"]))
def test_no_text_commands_the_terminal_or_ends_a_command(text, encoding):
    with pytest.MonkeyPatch.context() as patch:
        out, error = stream(patch, encoding), stream(patch, encoding, "stderr")
        say(text)
        note(text)
        print_table(text, [text or "x", "b"], [[text, text]])
        for one in (out, error):
            assert not COMMANDS.search(written(one))
        json_out = stream(patch, encoding)
        print_json({"text": text, text: [text]})
        shown = written(json_out)
        assert json.loads(shown) == {"text": text, text: [text]} and not COMMANDS.search(shown)


def test_escapes_show_what_was_there():
    assert printable("a\x1b[31mb\r\x07\u202e\udcff\ud800\n") == "a\\x1b[31mb\\x0d\\x07\\u202e\\xff\\ud800\n"
    assert readable("plain ±[bold]:smile:") == "plain ±[bold]:smile:"


def test_json_has_no_numbers_that_json_has_not(capsys):
    nan, infinity = float("nan"), float("inf")
    print_json([{"a": nan, "b": [infinity, -infinity, (1.5, nan)]}, "NaN"])
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == [
        {"a": None, "b": [None, None, [1.5, None]]},
        "NaN",
    ]
    print_json_text('{"a": NaN}')
    assert json.loads(capsys.readouterr().out) == {"a": None}


class Failing(io.StringIO):
    """A stream whose disk is full, or whose reader has gone."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        if not text:
            return 0
        raise OSError(self.number, os.strerror(self.number))


def test_a_reader_that_has_enough_ends_no_command(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    say("text")
    print_table("t", ["a"], [["b"]])
    print_json({"a": 1})
    finish_output()


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_notes_that_nobody_can_read_end_no_command(monkeypatch, number):
    monkeypatch.setattr(sys, "stderr", Failing(number))
    note("text")


def test_results_that_cannot_be_written_are_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    with pytest.raises(OutputLost, match="No space left"):
        say("text")


NAMES = st.text("abcdefghij-_/.[]", min_size=1, max_size=90)
NUMBERS = st.builds("{:,.{}f} ±{}".format, st.floats(0, 1e9), st.integers(0, 4), st.integers(0, 99))
TABLES = st.integers(1, 9).flatmap(
    lambda columns: st.tuples(
        st.lists(NAMES, min_size=columns, max_size=columns),
        st.lists(st.tuples(NAMES, *[st.one_of(NUMBERS, NAMES, st.just(""))] * (columns - 1)), min_size=1, max_size=3),
        st.integers(1, columns),
    )
)


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(TABLES, st.integers(60, 120), st.booleans())
def test_every_name_and_number_is_printed_whole_at_any_width(capsys, table, width, terminal):
    (columns, rows, left), title = table, "a/name/of/some/folder/" + "x" * 70
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        if terminal:
            patch.setenv("FORCE_COLOR", "1")
            patch.setenv("TERM", "xterm")
        print_table(title, columns, rows, left=left)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    words = set(text.replace(":", " ").split()) | set(text.split())
    assert title in words
    for cell in [*(one for row in rows for one in row), *columns[1:]]:
        if cell in columns and not any(row[columns.index(cell)] for row in rows):
            continue  # a block has no line for an empty cell
        assert set(cell.split()) <= words | {word.removesuffix(":") for word in words}, cell


@pytest.mark.parametrize("columns", ["0", "1", "abc", "10000", "9" * 6, ""])
@pytest.mark.parametrize("terminal", ["1", ""])
def test_odd_widths_are_no_failure(capsys, monkeypatch, columns, terminal):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", terminal)
    print_table("Title", ["name", "about"], [["first", "some words that may be wrapped"]], left=2)
    assert "first" in capsys.readouterr().out


def test_a_word_that_is_too_long_has_a_line_of_its_own():
    assert wrapped("one two-three " + "x" * 20 + " four", 10) == ["one", "two-three", "x" * 20, "four"]
    assert wrapped("a\n\nb", 10) == ["a", "", "b"]


def test_commands_print_only_with_what_is_safe():
    """`print` fails on encodings, full disks and readers that have gone."""
    found = [
        f"{path.relative_to(CLI)}: {line.strip()}"
        for path in sorted(CLI.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"(?<![\w.])(print|echo)\(|sys\.std(out|err)\.write", line) and "typer.echo(f" not in line
    ]
    assert [line for line in found if not line.startswith("output/streams.py")] == []


def memx(script, **environment):
    """Run a shell line in which memx is the command; what it printed on stderr, and its own exit code."""
    program = f'memx() {{ {sys.executable} -m memx "$@"; echo "code $?" >&2; }}; {script}'
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    *lines, code = done.stderr.splitlines()
    return done.stdout, lines, int(code.removeprefix("code "))


@pytest.mark.parametrize(
    ("script", "code", "last"),
    [
        ("memx presets --json | true", 0, None),
        ("memx --help >/dev/full", 1, "error: cannot write to standard output: No space left on device"),
        ("memx runs --runs . <&- >&-", 0, "no runs in ."),
    ],
)
def test_streams_of_a_shell(tmp_path, script, code, last):
    _, lines, found = memx(f"cd {tmp_path}; {script}")
    assert found == code and [line[: len(str(last))] for line in lines[-1:]] == ([last] if last else []), lines
    assert not any("Traceback" in line or "ignored" in line for line in lines)


def test_python_that_is_strict_and_leaves_out_docstrings_is_no_failure():
    environment = {
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "ascii",
        "COLUMNS": "²",
        "TERMINAL_WIDTH": "x",
    }
    out, lines, code = memx("memx train --help", **environment)
    assert code == 0 and not lines and "Train a Llama-style model" in " ".join(out.split()) and out.isascii()
