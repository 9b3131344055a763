"""Facts: the real tables, a user's files with everything that files contain, tiers that do not leak."""

import json

import pytest
from memx.errors import MemxError
from memx.experiments.config.training import DataConfig
from memx.experiments.data.facts.biographies import CHOICES, biographies
from memx.experiments.data.facts.files import read_facts_file
from memx.experiments.data.facts.load import answers_of, load_facts, merge_duplicates
from memx.experiments.data.facts.phrasings import phrasings
from memx.experiments.data.facts.questions import (
    Guesser,
    documents_of,
    held_out,
    question_sets,
    split_entities,
)
from memx.experiments.data.facts.record import Fact
from memx.experiments.data.facts.tables import airport_cities, airports, countries, elements


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_tables_state_known_facts():
    facts = set(airports()) | set(airport_cities()) | set(elements()) | set(countries())
    known = [
        ("LHR", "airport_country", "United Kingdom"),
        ("JFK", "airport_time_zone", "New York"),
        ("CDG", "airport_city", "Paris"),
        ("Gold", "element_symbol", "Au"),
        ("Gold", "element_number", "79"),
        ("Iron", "element_period", "4"),
        ("France", "country_capital", "Paris"),
        ("Japan", "country_currency", "JPY"),
    ]
    for fact in known:
        assert Fact(*fact) in facts
    assert len(facts) > 24_000
    assert all(fact.subject and fact.object and fact.object != "nan" for fact in facts)


def test_countries_are_distinct_and_their_answers_well_formed():
    facts = countries()
    by_relation = {}
    for fact in facts:
        by_relation.setdefault(fact.relation, {})[fact.subject] = fact.object
    domains = list(by_relation["country_domain"].values())
    assert len(domains) == len(set(domains))
    assert all(code.replace("-", "").isdigit() for code in by_relation["country_calling_code"].values())
    assert not any(fact.object[0] in "[{(" for fact in facts)
    assert len({name.lower() for name in by_relation["country_subregion"].values()}) == 17
    assert by_relation["country_capital"]["Kazakhstan"] == "Astana"
    assert {fact.object for fact in airports() if fact.subject in ("PRN", "CWL")} == {
        "Kosovo", "United Kingdom", "Belgrade", "London"
    }  # fmt: skip


def test_csv_with_quotes_accents_newlines_aliases_and_byte_order_mark(tmp_path):
    path = write(
        tmp_path / "my.csv",
        "\ufeffSubject,relation,object,aliases\n"
        '"Müller, Jürgen",born in,"São Paulo",Sao Paulo|SP\n'
        '"the ""Blue"" book",author,Ανδρέας,\n'
        '"two\nlines",kind,x,\n'
        "\n"
        "short,kind,y,\n",
    )
    facts, notes, _ = read_facts_file(path)
    assert facts == [
        Fact("Müller, Jürgen", "born in", "São Paulo", ("Sao Paulo", "SP")),
        Fact('the "Blue" book', "author", "Ανδρέας"),
        Fact("two lines", "kind", "x"),
        Fact("short", "kind", "y"),
    ]
    assert notes == []


def test_bad_rows_are_reported_with_their_line_numbers(tmp_path):
    path = write(tmp_path / "bad.csv", 'subject,relation,object\na,r,1\n"b\nb",r,\nc,r,2,3,4\n,,x\nd,r,4\n')
    with pytest.raises(MemxError) as error:
        read_facts_file(path)
    assert "3 bad rows (line 3: empty object; line 5: 5 cells for 3 columns; line 6: empty subject and relation)" in (
        error.value.message
    )
    facts, notes, _ = read_facts_file(path, skip_bad_rows=True)
    assert [fact.subject for fact in facts] == ["a", "d"]
    assert "3 bad rows" in notes[0]


def test_jsonl(tmp_path):
    lines = [
        {"subject": "a", "relation": "r", "object": 7, "aliases": ["seven", "VII"]},
        {"subject": "b", "relation": "r", "object": "é"},
    ]
    path = write(tmp_path / "f.jsonl", "\n".join(json.dumps(line) for line in lines))
    assert read_facts_file(path).facts == [Fact("a", "r", "7", ("seven", "VII")), Fact("b", "r", "é")]
    path = write(tmp_path / "g.jsonl", '{"subject": "a"}\n{"subject": \n[1]\n')
    with pytest.raises(MemxError, match=r"3 bad rows \(line 1: no relation, object; line 2: not JSON"):
        read_facts_file(path)


def test_columns_that_are_ignored_are_named(tmp_path):
    path = write(tmp_path / "f.csv", "subject,relation,object,alias\na,r,x,y\n")
    assert "ignored columns alias;" in read_facts_file(path).notes[0]


def test_parquet(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "f.parquet"
    table = {"subject": ["a", "b"], "relation": ["r", "r"], "object": ["x", "y"], "aliases": [["z", "w"], None]}
    pandas.DataFrame(table).to_parquet(path)
    assert read_facts_file(str(path)).facts == [Fact("a", "r", "x", ("z", "w")), Fact("b", "r", "y")]
    path.write_bytes(b"not parquet at all")
    with pytest.raises(MemxError, match="is not a valid parquet file"):
        read_facts_file(str(path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.csv", None, "no file "),
        ("empty.csv", "", "is empty"),
        ("header.csv", "subject,relation,object\n", "contains no usable facts"),
        ("column.csv", "subject,object\na,b\n", "has no column relation"),
        ("quote.csv", 'subject,relation,object\na,b,"c"d\n', "line 2"),
        ("latin.csv", "subject,relation,object\nM\udcfcller,r,x\n", "line 2: not UTF-8"),
        ("open.csv", 'subject,relation,object\na,b,"c\n', "line 2"),
    ],
)
def test_malformed_files_are_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MemxError, match=message) as error:
        read_facts_file(str(path))
    assert "\n" not in error.value.message


def test_duplicates_are_merged_and_their_aliases_united():
    facts = [Fact("a", "r", "x", ("1",)), Fact("a", "r", "y"), Fact("a", "r", "x", ("2", "1"))]
    merged, gone = merge_duplicates(facts)
    assert (merged, gone) == ([Fact("a", "r", "x", ("1", "2")), Fact("a", "r", "y")], 1)
    assert answers_of(merged) == {("a", "r"): ("x", "1", "2", "y")}


def test_sources_relations_and_limit(tmp_path):
    config = DataConfig(facts=("biographies",), biographies=50, relations=("hobby", "employer"), limit=60)
    facts = load_facts(config).facts
    assert len(facts) == 60 and {fact.relation for fact in facts} == {"hobby", "employer"}
    assert load_facts(config).facts == facts
    with pytest.raises(MemxError) as error:
        load_facts(DataConfig(facts=("airport",)))
    assert error.value.hint == "did you mean 'airports'?"
    with pytest.raises(MemxError, match="no relation 'hobbies'") as error:
        load_facts(DataConfig(facts=("biographies",), relations=("hobbies",)))
    assert error.value.hint == "did you mean 'hobby'?"


def test_biographies_are_distinct_seeded_and_of_known_entropy():
    people = biographies(3000, seed=1)
    assert people == biographies(3000, seed=1) != biographies(3000, seed=2)
    assert len({fact.subject for fact in people}) == 3000
    for relation, choices in CHOICES.items():
        objects = {fact.object for fact in people if fact.relation == relation}
        assert len(objects) == choices  # each is drawn alike, so that an answer carries log2(choices) bits


def test_unseen_entities_are_in_no_training_text():
    split = split_entities(biographies(200), 0.1, seed=0)
    subjects = {fact.subject for fact in split.unseen}
    assert len(subjects) == 20
    texts = "\n".join(document.text for fact in split.trained for document in documents_of(fact, 0))
    assert not any(subject in texts for subject in subjects)


def test_tiers_ask_what_they_say():
    split = split_entities(biographies(200), 0.1, seed=0)
    sets = question_sets(split)
    taught = {fact: {document.text for document in documents_of(fact, 0)} for fact in split.trained}
    everything = "\n".join(text for texts in taught.values() for text in texts)
    for fact, seen, rephrased in zip(split.trained, sets["seen"], sets["rephrased"], strict=True):
        assert f"{seen.prompt} {fact.object}" in taught[fact]
        assert f"{rephrased.prompt} {fact.object}" not in taught[fact]
        assert rephrased.prompt.replace(fact.subject, "") in everything.replace(fact.subject, "")
    assert len(sets["unseen"]) == len(split.unseen)
    assert all(question.prompt not in everything for question in sets["unseen"])


def test_every_held_out_phrasing_is_taught_for_other_entities():
    for relation in ("airport_country", "hobby", "anything else"):
        count = len(phrasings(relation).questions)
        drawn = {held_out(Fact(f"s{i}", relation, "x"), seed=0) for i in range(200)}
        assert drawn == set(range(count)) and count >= 3


def test_documents_end_in_their_answer():
    for fact in [Fact("a {b}", "r {x}", "o {y}"), Fact("LHR", "airport_country", "United Kingdom")]:
        for document in documents_of(fact, 0):
            assert document.text[document.answer_start :].rstrip(".") == f" {fact.object}"


def test_several_objects_all_count_as_right():
    split = split_entities([Fact("France", "borders", "Spain"), Fact("France", "borders", "Italy", ("Italia",))], 0, 0)
    for question in question_sets(split)["seen"]:
        assert question.accepted == ("Spain", "Italy", "Italia")


def test_guessers():
    facts = [Fact("ab", "r", "x"), Fact("ba", "r", "y"), Fact("bc", "r", "y"), Fact("a", "s", "z")]
    by_relation, by_letter = Guesser(facts, "relation"), Guesser(facts, "first letter")
    assert [by_relation.guess(s, r) for s, r in [("ax", "r"), ("bx", "r"), ("q", "s"), ("q", "t")]] == [
        "y",
        "y",
        "z",
        "",
    ]
    assert [by_letter.guess(s, r) for s, r in [("ax", "r"), ("bx", "r"), ("q", "r"), ("q", "t")]] == ["x", "y", "y", ""]
