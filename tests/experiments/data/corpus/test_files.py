"""Files of a corpus: compressed ones, values with limits, and files that are not read."""

import json
from pathlib import Path

import pytest
import zstandard
from memx.errors import MemxError
from memx.experiments.config.scale import CorpusSource
from memx.experiments.data.corpus.readers.document import CorruptRecords, Share
from memx.experiments.data.corpus.readers.sources import notes_on, open_source

from .corpora import no_damage, texts, write_lines, write_text


def opened(path, damage=None):
    return open_source(CorpusSource(path=str(path)), damage or no_damage())


def read(source, place=None):
    return [document.content for document in source.read(Share(0, 1, None), 0, place)]


def test_zstandard_files_are_read_from_any_place(tmp_path):
    lines = Path(write_lines(tmp_path / "a.jsonl", texts("t", 40))).read_bytes()
    # two frames, as `cat a.zst b.zst` makes
    half = lines.index(b"\n", len(lines) // 2) + 1
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(lines[:half]) + zstandard.compress(lines[half:]))
    whole = read(opened(tmp_path / "a.jsonl"))
    documents = opened(path).read(Share(0, 1, None), 0)
    for at, text in enumerate(whole):
        assert read(opened(path), json.loads(json.dumps(documents.place))) == whole[at:]
        assert next(documents).content == text
    with pytest.raises(MemxError, match="cannot be split"):
        opened(path).read(Share(0, 2, None), 0)
    plain = write_text(tmp_path / "b.txt", texts("u", 40))
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(Path(plain).read_bytes()))
    assert read(opened(tmp_path / "c.txt.zst")) == read(opened(plain))


def test_a_zstandard_file_that_is_cut_off_or_damaged(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    data = zstandard.compress(Path(write_lines(tmp_path / "a.jsonl", texts("t", 400))).read_bytes())
    for broken in (data[:-9], data[:40], b"no" + data, data[:-40] + b"x" * 40):
        path.write_bytes(broken)
        notes = []
        read(opened(path, CorruptRecords("skip", notes.append)))
        assert len(notes) == 1 and f"{path}: the rest of the file cannot be read" in notes[0]
        with pytest.raises(MemxError, match=r"a\.jsonl\.zst"):
            read(opened(path))


def test_values_beyond_all_limits_are_damage(tmp_path):
    bad = {
        '{"text": "a", "n": ' + "9" * 5000 + "}": "an integer of more than 400 digits",
        '{"text": "a", "n": ' + "[" * 5000 + "]" * 5000 + "}": "nested deeper than 100 levels",
        '{"text": "a", "text": "b"}': "the key 'text' occurs twice",
        '{"text": "\\ud800"}': "a lone surrogate",
    }
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(['{"text": "one", "score": NaN}', *bad, '{"text": "two\u2028\u0085 lines"}']))
    notes = []
    assert read(opened(path, CorruptRecords("skip", notes.append))) == ["one", "two\u2028\u0085 lines"]
    for line, (note, reason) in enumerate(zip(notes, bad.values(), strict=True), start=2):
        assert f"{path} line {line}: {reason}" in note


def test_files_with_other_endings_are_named(tmp_path):
    write_lines(tmp_path / "a.jsonl", ["x"])
    for name in ("b.md", "deep/c.pdf", ".hidden.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no")
    source = opened(tmp_path)
    assert read(source) == ["x"]
    assert notes_on([source]) == [f"{tmp_path}: left out 2 files (b.md, deep/c.pdf): other endings are not read"]
    assert notes_on([opened(tmp_path / "a.jsonl")]) == []
    with pytest.raises(MemxError, match=r"no readable file, only 1 file \(c\.pdf\)"):
        opened(tmp_path / "deep")
