"""Facts of a user's files: columns by other names, values as a person writes them, and what is refused by its line."""

import json
from datetime import date, datetime
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest
from memx.errors import MemxError
from memx.experiments.config.base import config_hash
from memx.experiments.config.loading import load_config
from memx.experiments.config.scale import parse_columns
from memx.experiments.config.training import DataConfig
from memx.experiments.data.facts.files import read_facts_file
from memx.experiments.data.facts.load import load_facts
from memx.experiments.data.facts.questions import build_split
from memx.experiments.data.facts.record import Fact

from ..records.written import write_xlsx

HEADER = "subject,relation,object\n"
NOBEL = "Name;Property;Value;Other\nMarie Curie;born in;Warsaw;Warszawa|Varsovie\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(source, **more):
    with pytest.raises(MemxError) as error:
        read_facts_file(str(source), **more)
    assert "\n" not in error.value.message
    return error.value


def test_columns_by_other_names(tmp_path):
    path = write(tmp_path / "a.csv", NOBEL)
    error = refused(path)
    assert "has no column subject, relation, object; it has Name, Property, Value, Other" in error.message
    option = "subject=Name,relation=Property,object=Value"
    assert f"--columns '{option}'" in error.hint
    facts, notes, used = read_facts_file(path, columns=parse_columns(f"{option},aliases=Other"))
    assert facts == [Fact("Marie Curie", "born in", "Warsaw", ("Warszawa", "Varsovie"))]
    assert notes == [f"{path}: columns are separated by ';'"] and used == {"subject", "relation", "object", "aliases"}
    lines = write(tmp_path / "a.jsonl", '{"NAME": "a", "relation": "r", "Value": "x", "Other": ["y"]}\n')
    assert read_facts_file(lines, columns=parse_columns(option + ",aliases=Other")).facts == [
        Fact("a", "r", "x", ("y",))
    ]
    assert "--columns 'subject=NAME,relation=relation,object=Value'" in refused(lines).hint


def test_columns_apply_to_the_files_that_have_them(tmp_path):
    files = (write(tmp_path / "a.csv", NOBEL), write(tmp_path / "b.csv", HEADER + "a,r,x\n"))
    columns = {"subject": "name", "relation": "Property", "object": "Value"}
    assert [fact.subject for fact in load_facts(DataConfig(facts=files, columns=columns)).facts] == ["Marie Curie", "a"]
    with pytest.raises(MemxError, match=r"data\.columns: no facts file has a column 'Nmae'"):
        load_facts(DataConfig(facts=files[1:], columns={"subject": "Nmae"}))


def test_a_relation_that_is_the_same_in_every_row(tmp_path):
    path = write(tmp_path / "a.csv", "name,birth place\nAda,London\n")
    option = "subject=name,relation==birth place,object=birth place"
    assert f"--columns '{option}'" in refused(path).hint
    assert read_facts_file(path, columns=parse_columns(option)).facts == [Fact("Ada", "birth place", "London")]


def test_the_columns_of_the_command_line():
    assert parse_columns("subject=Name, of all,object=a=b") == {"subject": "Name, of all", "object": "a=b"}
    for text in ("subject", "subject=", "subject=a,subject=b"):
        with pytest.raises(MemxError, match="--columns"):
            parse_columns(text)
    for key, value, message in [
        ("data.columns", {"subjct": "a"}, "'subjct' is not a part of a fact"),
        ("data.columns", {"object": "=x"}, "cannot be the same in every row"),
        ("data.encoding", "latin-17", "is not a known encoding"),
        ("data.encoding", "rot13", "is not a known encoding"),
    ]:
        with pytest.raises(MemxError, match=message):
            load_config("facts", [(key, value)])


def test_unset_columns_and_encoding_leave_the_name_of_a_run():
    plain, tree = load_config("facts"), load_config("facts", [("data.columns", {"subject": "Name"})])
    assert config_hash(plain) == config_hash(load_config("facts", [("data.columns", None), ("data.encoding", None)]))
    assert config_hash(plain) != config_hash(tree)


def test_only_text_and_numbers_are_text(tmp_path):
    good = {7: "7", 1998.0: "1998", 1.5: "1.5", 1e22: "1" + "0" * 22, -0.0: "0", 1e-7: "0.0000001", " a\n b ": "a b"}
    bad = {"true": "true is not text", "[1]": "a list is not text", '{"a": 1}': "an object is not text"}
    bad |= {"NaN": "empty object", "1e999": "an infinite number is not text", '"\\ud800"': "lone surrogate"}
    bad |= {
        "null": "empty object",
        '" "': "empty object",
        '"\\u0000"': "a NUL byte",
        f'"{"x" * 2001}"': "2,001 characters",
    }
    bad |= {"9" * 401: "an integer of more than 400 digits", "[" * 999 + "]" * 999: "nested deeper than 100 levels"}
    bad |= {'"x", "object": "y"': "the key 'object' occurs twice", '"x", "Object": "y"': "two keys of one name"}
    lines = [f'{{"subject": "s", "relation": "r", "object": {value}}}' for value in (*map(json.dumps, good), *bad)]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert [fact.object for fact in read_facts_file(path, skip_bad_rows=True).facts] == list(good.values())
    for number, (line, reason) in enumerate(zip(lines[len(good) :], bad.values(), strict=True)):
        path = write(tmp_path / f"{number}.jsonl", f"{lines[0]}\n\n{line}\n")
        assert "1 bad row (line 3: " in refused(path).message and reason in refused(path).message


def test_aliases_are_texts(tmp_path):
    def aliases(value):
        row = {"subject": "s", "relation": "r", "object": "o", "aliases": value}
        return read_facts_file(write(tmp_path / "a.jsonl", json.dumps(row))).facts[0].aliases

    assert aliases(["a", None, 2, " ", 3.0]) == ("a", "2", "3")
    assert aliases("a| b |") == ("a", "b") and aliases(5) == ("5",) and aliases(None) == ()
    for value, reason in [(True, "true"), ([["a"]], "a list"), ({"a": "b"}, "an object"), (["x" * 2001], "2,001")]:
        with pytest.raises(MemxError, match=f"aliases: {reason}"):
            aliases(value)


def test_values_of_parquet(tmp_path):
    objects = {
        "float": (pyarrow.array([1998.0, None]), "1998"),
        "integer": (pyarrow.array([7, None]), "7"),
        "date": (pyarrow.array([date(1998, 7, 24), None]), "1998-07-24"),
        "day": (pyarrow.array([datetime(1998, 7, 24), None]), "1998-07-24"),
        "time": (pyarrow.array([datetime(1998, 7, 24, 12, 30), None]), "1998-07-24 12:30:00"),
        "decimal": (pyarrow.array([Decimal("1.50"), None]), "1.50"),
        "true": (pyarrow.array([True, None]), None),
        "bytes": (pyarrow.array([b"x", None]), None),
        "list": (pyarrow.array([["x"], None]), None),
    }
    for name, (values, expected) in objects.items():
        path = tmp_path / f"{name}.parquet"
        table = {"subject": ["a", "b"], "relation": ["r", "r"], "object": values}
        pyarrow.parquet.write_table(pyarrow.table(table), path)
        if expected is None:
            assert "2 bad rows (row 1: object: " in refused(path).message
        else:
            assert read_facts_file(str(path), skip_bad_rows=True).facts == [Fact("a", "r", expected)]
            assert "1 bad row (row 2: empty object)" in refused(path).message


def test_values_of_a_spreadsheet(tmp_path):
    cells = [["Subject", "relation ", "object", None], ["a", "r", 1998, "x"], [None] * 4, ["b", "r", True, None]]
    cells += [["c", "r", "=36000", None], ["d", "r", "#REF!", None], ["e", "r", 0.5, None]]
    write_xlsx(tmp_path / "a.xlsx", cells, ("Facts", "Notes"))
    facts, notes, _ = read_facts_file(str(tmp_path / "a.xlsx"), skip_bad_rows=True)
    assert facts == [Fact("a", "r", "1998"), Fact("c", "r", "1998-07-24"), Fact("e", "r", "0.5")]
    assert "read the first of 2 sheets, 'Facts'" in notes[0]
    assert "2 bad rows (row 4: object: true is not text; row 6: empty object)" in notes[1]


def test_keys_of_one_name_that_are_no_part_of_a_fact(tmp_path):
    path = tmp_path / "a.jsonl"
    line = '{"ID": 1, "id": 2, "subject": "a", "relation": "r", "object": "x", "%s": "y"}'
    path.write_text(line % "other")
    assert read_facts_file(str(path)).facts == [Fact("a", "r", "x")]
    path.write_text(line % "Object")
    with pytest.raises(MemxError, match="two keys of one name: 'object' and 'Object'"):
        read_facts_file(str(path))


def test_rows_may_end_before_columns_that_may_be_empty(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("subject,relation,object,aliases,note\na,r,x\nb,r,y,z|w\nc,r\nd,r,y,z,n,m\n")
    facts, notes, _ = read_facts_file(str(path), skip_bad_rows=True)
    assert facts == [Fact("a", "r", "x"), Fact("b", "r", "y", ("z", "w"))]
    assert "2 bad rows (line 4: 2 cells for 5 columns; line 5: 6 cells for 5 columns)" in notes[0]
    path.write_text("aliases,object,relation,subject\n,x,r\n")
    with pytest.raises(MemxError, match="line 2: 3 cells for 4 columns"):
        read_facts_file(str(path))


@pytest.mark.parametrize(
    ("name", "data", "message", "hint"),
    [
        ("twice.csv", b"subject,relation,object, Object\n", "two columns of one name: 'object' and 'Object'", "rename"),
        ("short.csv", b"subject,relation,object\na,r\n", "line 2: 2 cells for 3 columns", "data.skip_bad_rows=true"),
        ("latin.csv", HEADER.encode() + b"\xe9,r,x\n", "line 2: not UTF-8; it looks", "latin.csv > utf8-latin.csv"),
        ("wide.csv", HEADER.encode("utf-16"), "is UTF-16, not UTF-8", "iconv -f UTF-16"),
        ("nul.csv", HEADER.encode() + b"a\0,r,x\n", "line 2: a NUL byte", "fix"),
        ("a.txt", b"x", "the format of", ".csv"),
        ("none", b"x", "the format of", ".csv"),
        ("few.csv", b"only\nx\n", "object; it has only", "whose first row has the names of the columns"),
        (
            "headless.csv",
            b"France,capital,Paris\n",
            "it has France, capital, Paris",
            "the first row must name the columns",
        ),
        ("key.jsonl", b'{"only": 1}', "line 1: no subject", "give a file with the columns"),
    ],
)
def test_what_is_refused_says_what_to_do(tmp_path, name, data, message, hint):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(MemxError) as error:
        load_facts(DataConfig(facts=(str(path),)))
    assert message in error.value.message and hint in error.value.hint


def test_files_that_are_not_there(tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    for source, message in [("folder.csv", "is a folder"), ("b.tsv", "no file b.tsv"), ("x/y", "no file x/y")]:
        with pytest.raises(MemxError, match=message):
            load_facts(DataConfig(facts=(source,)))
    with pytest.raises(MemxError, match="no fact table or file 'contries'") as error:
        load_facts(DataConfig(facts=("contries",)))
    assert error.value.hint == "did you mean 'countries'?"


def test_another_encoding(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes((HEADER + "Müller,r,x\n").encode("cp1252"))
    assert load_facts(DataConfig(facts=(str(path),), encoding="cp1252")).facts == [Fact("Müller", "r", "x")]
    path.write_bytes((HEADER + "Müller,r,x\n").encode("utf-16"))
    assert load_facts(DataConfig(facts=(str(path),), encoding="utf-16")).facts == [Fact("Müller", "r", "x")]
    assert "as utf-16" in refused(write(tmp_path / "b.csv", HEADER), encoding="utf-16").message


def test_templates_of_known_relations_are_told(tmp_path):
    rows = "".join(f"s{i},{relation},x\n" for i in range(9) for relation in ("birth_year", "Birth year", "other"))
    config = load_config("facts", [("data.facts", [write(tmp_path / "a.csv", HEADER + rows)])])
    assert build_split(config)[1] == [
        "relations with specific templates: birth_year; others use the general ones",
        "relation 'Birth year' uses the general templates; only 'birth_year' has specific ones",
    ]
    assert build_split(load_config("facts", [("data.facts", ["biographies"])]))[1] == []
