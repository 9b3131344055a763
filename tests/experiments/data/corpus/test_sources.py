"""Sources of a corpus: every document once whatever the lanes, and damage told by file and place, skipped or fatal."""

import gzip
import json
import sys

import pyarrow
import pyarrow.parquet
import pytest
from memx.errors import MemxError
from memx.experiments.config.scale import CorpusSource
from memx.experiments.data.corpus.readers import hub
from memx.experiments.data.corpus.readers import json_lines as lines
from memx.experiments.data.corpus.readers.document import CorruptRecords, Share
from memx.experiments.data.corpus.readers.sources import open_source
from memx.experiments.data.text import ordinary_text

from .corpora import KINDS, no_damage, stream_from_here, texts, write_kind, write_lines, write_table, write_text


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(lines, "PIECE", 30)
    monkeypatch.setattr(lines, "WIDEST", 400)


def opened(path, damage=None, **more):
    return open_source(CorpusSource(path=str(path), **more), damage or no_damage())


def read(source, lanes=1, seed=None, epoch=0):
    """The texts of each lane."""
    return [[one.content for one in source.read(Share(lane, lanes, seed), epoch)] for lane in range(lanes)]


def flat(parts):
    """The texts of all lanes."""
    return [text for part in parts for text in part]


def skipped(path, **more):
    """What is read of a source where damage is left out, and the notes."""
    notes = []
    source = opened(path, CorruptRecords("skip", notes.append), **more)
    return read(source)[0], notes


def fatal(path, **more):
    """The message on the damage of a source."""
    with pytest.raises(MemxError) as told:
        read(opened(path, **more))
    assert "corpus.damaged=skip" in told.value.hint
    return told.value.message


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mixed", "prepared")])
@pytest.mark.parametrize("seed", [None, 3])
def test_lanes_share_out_every_document_and_go_on_from_any_place(kind, seed, tmp_path, monkeypatch):
    stream_from_here(monkeypatch)
    source = opened(write_kind(kind, tmp_path)[0])
    (whole,) = read(source)
    assert len(whole) == len(set(whole)) and len(whole) > 25
    for lanes in (2, 3, 5):
        parts = read(source, lanes, seed, epoch=1)
        together = flat(parts)
        # a .txt file is cut anew in each part of it
        assert ("".join(together) if kind == "text file" else sorted(together)) == (
            "".join(whole) if kind == "text file" else sorted(whole)
        )
        share = Share(lanes - 1, lanes, seed)
        documents, places = source.read(share, 1), []
        for text in parts[-1]:
            places.append(json.loads(json.dumps(documents.place)))
            assert next(documents).content == text
        for at, place in enumerate(places):
            assert [one.content for one in source.read(share, 1, place)] == parts[-1][at:]


def test_files_are_read_in_another_order_in_each_epoch(tmp_path):
    source = opened(write_kind("line files", tmp_path)[0])
    orders = {tuple(read(source, 1, 0, epoch)[0]) for epoch in range(4)}
    assert len(orders) > 1 and tuple(read(source, 1, None, 1)[0]) == tuple(read(source)[0])


TEXTS = {
    "paragraphs": "".join(f"{text}\n\n" for text in texts("t", 50)),
    "no empty line": "".join(f"{text}\n" for text in texts("t", 80)),
    "no line at all": "日本 naïve ☕ " * 300,
    "windows": "\ufeff" + "".join(f"{text}\r\n\r\n" for text in texts("t", 50)),
    "empty lines": "\n\n\n".join(texts("t", 50)) + "\n" * 9,
    "one": "one",
    "long lines": "\n\n".join(["é" * 500, "x" * 401, "☕" * 133 + "\n" + "a" * 400, "end"]),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("lanes", [1, 2, 7])
def test_a_text_file_is_cut_without_losing_a_character(name, lanes, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXTS[name].encode())
    found = flat(read(opened(path), lanes))
    whole = TEXTS[name].removeprefix("\ufeff").replace("\r\n", "\n")
    # a piece of empty lines is no document
    assert "".join(found).replace("\n", "") == whole.replace("\n", "")
    assert lanes > 1 or "".join(found).strip() == whole.strip()
    assert max(len(piece.encode()) for piece in found) <= 403
    if name == "paragraphs":
        assert all(len(piece) >= 30 and piece.endswith("\n\n") for piece in found[:-lanes])


def test_text_is_cut_as_in_smaller_experiments(tmp_path, monkeypatch):
    monkeypatch.setattr("memx.experiments.data.text._PIECE", 30)
    path = write_text(tmp_path / "a.txt", texts("t", 50))
    assert read(opened(path))[0] == ordinary_text(path)


def test_folders_patterns_and_hidden_files(tmp_path):
    write_lines(tmp_path / "a" / "one.jsonl", ["1"])
    write_text(tmp_path / "a" / "deep" / "two.TXT", ["2"])
    write_table(tmp_path / "three.parquet", ["3"])
    write_lines(tmp_path / ".cache" / "no.jsonl", ["no"])
    (tmp_path / "notes.md").write_text("no")

    def found(path):
        return sorted(text.strip() for text in read(opened(path))[0])

    assert found(tmp_path) == ["1", "2", "3"]
    assert found(tmp_path / "**" / "*.jsonl") == ["1", "no"] and found(tmp_path / "a" / "*") == ["1"]
    assert found(tmp_path / "*.parquet") == ["3"]


def test_fields_and_named_texts(tmp_path):
    assert read(opened(write_lines(tmp_path / "a.jsonl", ["x"], field="body"), field="body")) == [["x"]]
    assert read(opened(write_table(tmp_path / "a.parquet", ["x"], field="body"), field="body")) == [["x"]]
    assert sorted(flat(read(opened("python-docs"), 3))) == sorted(ordinary_text("python-docs"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("python-doc", "did you mean 'python-docs'?"),
        ("no.jsonl", ".parquet"),
        ("./who/what", ".parquet"),
        ("no/such/*.txt", ".parquet"),
    ],
)
def test_a_source_that_is_not_there(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MemxError) as told:
        opened(name)
    assert hint in told.value.hint


def test_damaged_lines_are_named_and_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    good = [json.dumps({"text": text}).encode() for text in ("one", "two", "three")]
    bad = {
        b'{"text": "cut': "not JSON",
        b'{"text": "\xff"}': "not UTF-8",
        b'{"other": 1}': "no text in the field 'text'",
        b'{"text": null}': "no text in the field 'text'",
        b'["text"]': "not a JSON object",
        b'{"text": "\\ud83d"}': "surrogate",
    }
    path.write_bytes(b"\n".join([good[0], *bad, b"", good[1], b'{"text": " "}', good[2]]))
    found, notes = skipped(path)
    assert found == ["one", "two", "three"] and len(notes) == len(bad)
    for line, (note, reason) in enumerate(zip(notes, bad.values(), strict=True), start=2):
        assert f"{path} line {line}: " in note and reason in note
    assert f"{path} line 2: not JSON" in fatal(path)


def test_damage_is_told_at_most_ten_times_for_a_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('no\n{"text": "x"}\n' * 40)
    notes = []
    source = opened(path, CorruptRecords("skip", notes.append))
    for _ in range(2):
        assert read(source) == [["x"] * 40]
    assert len(notes) == 11 and "line 19" in notes[9] and "more corrupt records were skipped" in notes[10]


def test_a_line_without_an_end_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    monkeypatch.setattr(lines, "_BUFFER", 64)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "' + "x" * 5000 + '"}\n{"text": "two"}\n')
    found, notes = skipped(path)
    assert found == ["one", "two"] and "line 2: a line longer than 1,000 bytes" in notes[0]
    assert sorted(flat(read(opened(path, CorruptRecords("skip", notes.append)), 3))) == ["one", "two"]


def test_a_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(
        b"first part of this text\n\n\n" * 2 + b"bad \xe9\n\nmore of this very part\n\n" + b"the end of it all"
    )
    found, notes = skipped(path)
    assert "".join(found) == ("first part of this text\n\n\n" * 2)[:-1] + "the end of it all"
    assert notes == [f"skipped {path} line 7: not UTF-8"] and "line 7" in fatal(path)


def test_damaged_tables_are_named_and_left_out(tmp_path):
    whole = tmp_path / "b.parquet"
    write_table(whole, texts("b", 30), group=10)
    data = whole.read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-9])
    (tmp_path / "c.parquet").write_bytes(b"no table")
    write_table(tmp_path / "d.parquet", ["x"], field="body")
    found, notes = skipped(tmp_path)
    assert found == texts("b", 30) and [name in note for name, note in zip("acd", notes, strict=True)]
    assert all(f"{tmp_path / name}.parquet" in note for name, note in zip("acd", notes, strict=True))
    assert "no column 'text' (columns: id, body)" in notes[2] and "a.parquet" in fatal(tmp_path)
    # lanes that share one file: what cannot be opened is reported, too
    assert "a.parquet" in fatal(tmp_path / "a.parquet")
    first = pyarrow.parquet.ParquetFile(whole).metadata.row_group(1).column(1)
    at = first.dictionary_page_offset or first.data_page_offset
    whole.write_bytes(data[:at] + b"\xff" * 40 + data[at + 40 :])
    found, notes = skipped(whole)
    assert found == texts("b", 30)[:10] + texts("b", 30)[20:] and "row group 1" in notes[0] and len(notes) == 1
    assert f"{whole} row group 1" in fatal(whole)


def test_rows_without_text(tmp_path):
    table = pyarrow.table({"text": ["one", None, "two", "  "]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found, notes = skipped(tmp_path / "a.parquet")
    assert found == ["one", "two"] and "row 2: no text" in notes[0] and len(notes) == 1


def test_zipped_files(tmp_path):
    for name in "ab":
        write_lines(tmp_path / f"{name}.jsonl.gz", texts(name, 30))
    with pytest.raises(MemxError, match=r"2 files for corpus\.lanes 4") as told:
        read(opened(tmp_path), 4)
    assert "corpus.lanes=2" in told.value.hint
    assert sorted(flat(read(opened(tmp_path), 2))) == sorted(texts("a", 30) + texts("b", 30))
    cut = gzip.compress((tmp_path / "b.jsonl.gz").read_bytes() * 3)[:-8]
    (tmp_path / "a.jsonl.gz").write_bytes(cut[:100])
    found, notes = skipped(tmp_path)
    assert found == texts("b", 30) and f"{tmp_path / 'a.jsonl.gz'}: the rest of the file cannot be read" in notes[-1]
    assert "a.jsonl.gz" in fatal(tmp_path)


def test_a_hub_data_set_that_cannot_be_had(monkeypatch):
    import datasets

    def fail(error):
        def load(*given, **more):
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load)
        with pytest.raises(MemxError) as told:
            opened("who/what")
        return told.value

    offline = fail(ConnectionError("Couldn't reach 'who/what' on the Hub"))
    assert "cannot be reached" in offline.message
    assert "hf download who/what --repo-type dataset --local-dir what" in offline.hint
    assert "hf auth login" in fail(datasets.exceptions.DatasetNotFoundError("'who/what' is a gated dataset")).hint
    assert "subset" in fail(ValueError("Config name is missing. Pick one among ['a', 'b']")).hint
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MemxError, match="needs the package datasets") as told:
        opened("who/what")
    assert told.value.hint == "pip install 'memx[data]'"


def test_the_hub_is_not_there_offline():
    with pytest.raises(MemxError, match="hub cannot be reached"):
        opened("who/what")


def test_rows_of_the_hub_without_text(monkeypatch):
    import datasets

    rows = [{"text": "one"}, {"text": None}, {"text": "two"}]
    data = datasets.Dataset.from_list(rows).to_iterable_dataset()
    monkeypatch.setattr(hub, "_load", lambda source: data)
    found, notes = skipped("who/what")
    assert found == ["one", "two"] and "who/what row 2: no text in the field 'text'" in notes[0]
    assert "row 2" in fatal("who/what")
