"""What files of records contain -> records, bad records with their places, and errors that say what to do."""

import gzip
import sys
import zipfile

import pytest
import zstandard
from memx.errors import MemxError
from memx.experiments.data.records.read import read_records
from memx.experiments.data.records.record import BadRecord, BadRecords
from memx.experiments.data.records.values import NotText, text_of, texts_of

from .written import write_rows, write_xlsx

TABLE = "a,b\n" + "".join(f"{i},2\n" for i in range(1000))


def read(path, data, **more):
    """The places with the values or reasons of a file's records."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    found = read_records(path, **more)
    return [
        f"{one.place}: {one.reason}" if isinstance(one, BadRecord) else [one.place, *one.values.values()]
        for one in found
    ]


def refused(path, data=None, **more):
    with pytest.raises(MemxError) as error:
        read(path, data, **more) if data is not None else list(read_records(path, **more))
    assert "\n" not in error.value.message and error.value.hint
    return f"{error.value.message} | {error.value.hint}"


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [("a;b", "1,5;2", "';'"), ("a\tb", "1,5\t2", "tabs"), ("a|b", "1,5|2", "'|'"), ("sep=;\na;b", "1,5;2", "';'")],
)
def test_other_separators_are_told(tmp_path, header, row, said):
    found = read_records(tmp_path / "a.csv") if (tmp_path / "a.csv").write_text(f"{header}\n{row}\n") else None
    assert found.columns == ["a", "b"] and found.notes == [f"{tmp_path / 'a.csv'}: columns are separated by {said}"]
    assert [list(one.values.values()) for one in found] == [["1,5", "2"]]


def test_a_comma_stays_the_separator_where_rows_agree(tmp_path):
    assert read(tmp_path / "a.csv", "a,b (x;y;z;w)\n1,2\n") == [["line 2", "1", "2"]]
    assert read(tmp_path / "b.csv", "name;town, country\na;b\n") == [["line 2", "a", "b"]]
    assert read(tmp_path / "c.csv", "only\nx\n") == [["line 2", "x"]]


def test_lines_end_where_their_format_says(tmp_path):
    odd = "\u2028\u2029\u0085\x0b\x1c"
    assert read(tmp_path / "a.jsonl", f'{{"a": "x{odd[:3]}"}}\r\n\n{{"a": 1}}') == [
        ["line 1", "x" + odd[:3]],
        ["line 3", 1],
    ]
    assert read(tmp_path / "a.csv", f'\ufeffa,b\r\nx{odd},\x0c\r\n\r\n"1\r\n2",3\r\n') == [
        ["line 2", "x" + odd, "\x0c"],
        ["line 4", "1\r\n2", "3"],
    ]
    assert read(tmp_path / "b.csv", "a,b\r1,2\r3,4") == [["line 2", "1", "2"], ["line 3", "3", "4"]]


def test_bad_rows_of_a_table(tmp_path):
    found = read(tmp_path / "a.csv", b'a,b\n1\n1,2,3\n"1"x,2\n1,\0\n\xe9,1\n\xe6\x97\xa5\xe6,1\n,\n"x\ny"z,1\n5,6\n')
    assert found == [
        "line 2: 1 cells for 2 columns",
        "line 3: 3 cells for 2 columns",
        'line 4: a quoted cell goes on after its closing quote; write a quote inside it as ""',
        "line 5: a NUL byte",
        "line 6: not UTF-8; it looks like Windows-1252 or Latin-1",
        "line 7: not UTF-8",
        'line 9: a quoted cell goes on after its closing quote; write a quote inside it as ""',
        ["line 11", "5", "6"],
    ]


def test_long_cells(tmp_path):
    (row,) = read(tmp_path / "a.csv", "a,b\n" + "x" * 200_000 + ",1\n")
    assert len(row[1]) == 200_000
    assert "a quote is opened and not closed" in refused(tmp_path / "a.csv", 'a,b\n1,"2\n' + "3,4\n" * 9)


def test_bad_objects(tmp_path):
    lines = [
        '{"a": 1, "a": 2}',
        "[1]",
        '{"a": "\\ud800"}',
        '{"a": NaN}',
        "[" * 9999,
        '{"a": ' + "9" * 5000 + "}",
        '{"a"',
    ]
    reasons = ["the key 'a' occurs twice", "not a JSON object", "a lone surrogate (half of a character)", None]
    reasons += ["nested deeper than 100 levels", "an integer of more than 400 digits"]
    reasons.append("not JSON (Expecting ':' delimiter at character 5)")
    found = read(tmp_path / "a.jsonl", "\n".join(lines))
    for line, (one, reason) in enumerate(zip(found, reasons, strict=True), start=1):
        assert one == f"line {line}: {reason}" if reason else one[1] != one[1]
    found = read(tmp_path / "b.jsonl", b'{"a": "\xff"}\n{"a": "\0"}')
    assert found == ["line 1: not UTF-8; it looks like Windows-1252 or Latin-1", "line 2: a NUL byte"]


def test_documents(tmp_path):
    path = tmp_path / "a.json"
    assert read(path, '[{"a": 1}, {"a": 2}]') == [["entry 1", 1], ["entry 2", 2]]
    assert read(path, '[\n {"a": 1},\n\n {"a": 1,\n "a": 2},\n 5]') == [
        ["entry 1 (line 2)", 1],
        "entry 2 (line 4): the key 'a' occurs twice",
        "entry 3 (line 6): not a JSON object",
    ]
    assert read(path, '{"Data": [{"a": 1}], "n": [1], "x": {}}') == [["entry 1", 1]]
    assert read(path, '{"a": 1}') == [["entry 1", 1]] and read(path, "[]") == []
    assert read(path, '{"a": 1}\n{"a": 2}\n') == [["line 1", 1], ["line 2", 2]]
    assert "several lists of objects: 'a', 'b'" in refused(path, '{"a": [{}], "b": []}')
    assert "not a list of JSON objects" in refused(path, "5")
    assert "line 2 is not JSON (Expecting value)" in refused(path, '[{"a": 1},\n]')
    assert "line 2 is not UTF-8" in refused(path, b'["x",\n\xe9]')
    assert "nested too deeply" in refused(path, "[" * 100_000)


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zst"])
def test_compressed_files_that_are_cut_off(tmp_path, ending):
    packed = gzip.compress(TABLE.encode()) if ending == ".csv.gz" else zstandard.compress(TABLE.encode())
    assert len(read(tmp_path / f"a{ending}", packed)) == 1000
    assert len(read(tmp_path / f"a{ending}", packed + packed)) == 2001  # the header once more, as a row
    for broken in (packed[:-9], packed[:40], packed[:-40] + b"x" * 40):
        assert "compressed data is" in refused(tmp_path / f"a{ending}", broken)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("b.csv", b"\n \n", "is empty"),
        ("c.csv", b"a, A\n1,2\n", "has two columns of one name: 'a' and 'A'"),
        ("d.csv", "a,b\n".encode("utf-16"), "is UTF-16, not UTF-8 | save it as UTF-8: iconv -f UTF-16"),
        ("e.csv", b"PK\x03\x04", "is a spreadsheet or zip file, not text"),
        ("f.csv", gzip.compress(b"a", mtime=0), "is compressed with gzip | rename it to end in .gz"),
        ("g.csv", b"\xe9,b\n1,2\n", "line 1: not UTF-8; it looks like Windows-1252"),
        ("h.xlsx", b"PK\x03\x04", "is not a valid spreadsheet"),
        ("i.parquet", b"PAR1", "is not a valid parquet file"),
        ("j.jsonl", b"", "is empty"),
        ("k.md", b"x", "the format of"),
    ],
)
def test_files_that_cannot_be_read_as_a_whole(tmp_path, name, data, message):
    assert message in refused(tmp_path / name, data)


def test_a_spreadsheet_whose_sheet_is_missing(tmp_path):
    write_xlsx(tmp_path / "whole.xlsx", [["a"], ["1"]])
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as file:
        for name in whole.namelist():
            if "worksheets/" not in name:
                file.writestr(name, whole.read(name))
    with pytest.raises(MemxError, match=r"a\.xlsx is not a valid spreadsheet: its sheet .+ is missing"):
        list(read_records(tmp_path / "a.xlsx"))


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert "no file" in refused(tmp_path / "none.csv") and "is a folder" in refused(tmp_path / "folder.csv")
    assert "too long" in refused(tmp_path / ("x" * 999 + ".csv"))


def test_a_file_that_changes_while_it_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n2\n")
    found = iter(read_records(tmp_path / "a.csv"))
    next(found)
    with (tmp_path / "a.csv").open("a") as file:
        file.write("3\n")
    with pytest.raises(MemxError, match="changed while it was read"):
        list(found)


def test_a_cell_far_away_does_not_fill_memory(tmp_path):
    write_xlsx(tmp_path / "a.xlsx", [["a", "b"], ["1", "2"]])
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b'r="B2"', b'r="XFD1048576"')
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert "a sheet of 1,048,576 rows and 16,384 columns" in refused(tmp_path / "b.xlsx")


def test_packages_that_are_not_installed(tmp_path, monkeypatch):
    rows = [{"a": "1"}]
    for form, package in [(".parquet", "pyarrow.parquet"), (".xlsx", "python_calamine"), (".tsv.zst", "zstandard")]:
        path = write_rows(tmp_path, form, rows)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert "pip install 'memx[data]'" in refused(path)


def test_bad_records_end_the_run_unless_they_are_skipped():
    bad = BadRecords("a.csv", "--set key=true")
    assert bad.notes(skip=False) == []
    for number in range(7):
        bad.add(BadRecord(f"line {number}", "odd"))
    (note,) = bad.notes(skip=True)
    assert note.startswith("a.csv: skipped 7 bad rows (line 0: odd; ") and note.endswith("line 4: odd; and 2 more)")
    with pytest.raises(MemxError, match=r"^a\.csv: 7 bad rows") as error:
        bad.notes(skip=False)
    assert error.value.hint == "fix them, or skip them with --set key=true"


def test_texts_of_values():
    assert text_of("x" * 2001, most=None) == "x" * 2001 and text_of(float("nan")) is None
    assert texts_of("a|b|a") == ("a", "b") and texts_of(["a|b", None]) == ("a|b",)
    with pytest.raises(NotText, match="1,001 texts, more than 1,000"):
        texts_of([str(number) for number in range(1001)])


def test_the_first_visible_sheet_is_read(tmp_path):
    write_xlsx(tmp_path / "a.xlsx", [["a"], ["1"]], ("Hidden", "Facts"))
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/workbook.xml"] = parts["xl/workbook.xml"].replace(b'name="Hidden"', b'name="Hidden" state="hidden"')
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert "'Hidden'" in read_records(tmp_path / "a.xlsx").notes[0] and read_records(tmp_path / "b.xlsx").notes == []
