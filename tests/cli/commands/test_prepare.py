"""`memx prepare`: what it writes and prints, exit codes, and a folder checked against its hashes."""

import json

import pytest
from memx.cli.main import run as memx

from ...experiments.data.corpus.corpora import texts, tokenizer, write_lines


@pytest.fixture
def source(tmp_path):
    return write_lines(tmp_path / "a.jsonl", texts("a", 60))


@pytest.fixture
def saved(tmp_path):
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_a_corpus_is_prepared_and_checked(source, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert memx(["prepare", source, "--out", out, "--vocabulary", "300"]) == 0
    shown = capsys.readouterr()
    assert "shard-00000" in shown.out and "60" in shown.out and f"next: memx train 134m --corpus {out}" in shown.err
    assert memx(["prepare", out, "--check"]) == 0
    assert "ok" in capsys.readouterr().out
    assert memx(["prepare", source, "--out", out]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {out} already exists",
        "hint: use --resume to continue it, or --force to delete it and start over",
    ]
    assert memx(["prepare", source, "--out", out, "--force", "--vocabulary", "310", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["documents"] == 60 and told["settings"]["vocabulary"] == 310 and told["folder"] == out
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == {
        key: value for key, value in told.items() if key != "folder"
    }


def test_a_damaged_shard_exits_1_with_its_name(source, saved, tmp_path, capsys):
    out = tmp_path / "out"
    assert memx(["prepare", source, "--out", str(out), "--tokenizer", saved]) == 0
    data = (out / "shard-00000.bin").read_bytes()
    (out / "shard-00000.bin").write_bytes(data[:-2] + b"\1\1")
    capsys.readouterr()
    assert memx(["prepare", "--check", str(out)]) == 1
    shown = capsys.readouterr()
    assert f"FAIL {out / 'shard-00000'}: shard-00000.bin has a wrong checksum" in shown.err
    assert "1 of 1 shards are corrupt" in shown.err
    assert memx(["prepare", "--check", str(out), "--json"]) == 1
    assert "wrong checksum" in json.loads(capsys.readouterr().out)["shards"][0]["wrong"]


def test_damaged_lines_end_it_or_are_left_out(tmp_path, saved, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one"}\n{"body": 2}\n{"body": "three"}\n')
    command = ["prepare", str(path), "--out", str(tmp_path / "out"), "--tokenizer", saved, "--field", "body"]
    assert memx(command) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {path} line 2: no text in the field 'body'",
        "hint: fix the file and start over with --force, or skip corrupt records with --damaged skip --resume",
    ]
    assert memx([*command, "--damaged", "skip", "--resume"]) == 0
    shown = capsys.readouterr()
    assert f"skipped {path} line 2: no text in the field 'body'" in shown.err
    assert "1 corrupt parts were skipped" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["no.jsonl", "--out", "x"], "no file, folder or built-in text 'no.jsonl'", ".parquet"),
        (["python-dox", "--out", "x"], "no file, folder or built-in text 'python-dox'", "did you mean 'python-docs'?"),
        (["python-docs"], "no output folder", "--out FOLDER"),
        (["python-docs", "--out", "x", "--vocabulary", "2147483648"], "--vocabulary must be at most 1000000", ""),
        (["é/日本.csv", "--out", "x"], "no file, folder or built-in text 'é/日本.csv'", ".parquet"),
        (["python-docs", "--out", "x", "--subset", "\udcff"], "--subset: ", ""),
        (["python-docs", "--out", "x", "--tokenizer", "\udcff"], "--tokenizer: ", ""),
        (["python-docs", "--out", "x", "--resume", "--force"], "exclude each other", ""),
        (["python-docs", "--out", "x", "--check"], "--check takes one prepared folder", "memx prepare FOLDER --check"),
        (["nothing", "--check", "--tokenizer", "x"], "--tokenizer has no effect with --check", "memx prepare nothing"),
        (["nothing", "--check", "--force"], "--force has no effect with --check", "memx prepare nothing --check"),
        (["nothing", "--check"], "nothing is not a prepared corpus", "written by `memx prepare`"),
        (["who/what", "--out", "x"], "hub cannot be reached", "hf download who/what --repo-type dataset"),
        (["python-docs", "--out", "x", "--tokenizer", "who/what"], "hub cannot be reached", "hf download who/what"),
        (["python-docs", "--out", "x", "--vocabulary", "9"], "--vocabulary must be at least ", "--help"),
    ],
)
def test_a_mistake_is_one_line_and_a_hint(arguments, message, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert memx(["prepare", *arguments]) == 2
    first, *rest = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("error: ") and message in first and len(rest) <= 1
    assert hint in " ".join(rest) and not list(tmp_path.iterdir())


def test_help_ends_in_three_examples(capsys):
    assert memx(["prepare", "--help"]) == 0
    assert capsys.readouterr().out.rsplit("Examples:", 1)[1].count("memx prepare ") >= 3
