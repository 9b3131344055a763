"""Questions on general knowledge: examples before them, their answers, files of one's own; and parts of facts."""

import json

import pytest
from memx.errors import MemxError
from memx.experiments.data.facts.biographies import biographies
from memx.experiments.data.facts.general_knowledge import begins_right, general_questions, write_questions
from memx.experiments.data.facts.parts import split_parts
from memx.experiments.data.facts.record import Fact


@pytest.mark.parametrize(
    ("completion", "accepted", "right"),
    [
        (" Paris.\nThe capital of", ["Paris"], True),
        (" the Paris of old", ["Paris"], True),
        (" Parisian", ["Paris"], False),
        (" 18", ["1"], False),
        ("\n\nParis", ["Paris"], True),
        (" Lyon, not Paris", ["Paris"], False),
        (" New York City", ["Boston", "New York"], True),
        (" .fr.\n", [".fr"], True),
        ("", ["Paris"], False),
        (" !", ["!"], False),
    ],
)
def test_an_answer_is_right_if_the_first_line_begins_with_it(completion, accepted, right):
    assert begins_right(completion, accepted) is right


def test_completions_show_two_examples_that_are_not_asked():
    questions = general_questions(["countries", "elements"])
    capitals = [question for question in questions if question.relation == "country_capital"]
    spain = next(question for question in capitals if question.subject == "Spain")
    assert spain.prompt == "The capital of France is Paris.\nThe capital of Japan is Tokyo.\nThe capital of Spain is"
    assert spain.accepted == ("Madrid",)
    assert not {"France", "Japan"} & {question.subject for question in capitals}
    assert {question.relation for question in questions} == {
        "country_capital", "country_region", "country_demonym", "country_currency", "country_domain",
        "element_symbol", "element_number",
    }  # fmt: skip
    assert len({question.prompt for question in questions}) == len(questions)


def test_own_questions_are_those_of_training():
    (found,) = (
        q for q in general_questions(["elements"], completions=False) if q.subject == "Iron" and q.answer == "Fe"
    )
    assert found.prompt.startswith("Iron") and found.prompt.endswith("?")


def test_a_file_of_questions_comes_back(tmp_path):
    questions = general_questions(["elements"])[:5]
    write_questions(tmp_path / "known.jsonl", questions)
    assert general_questions([str(tmp_path / "known.jsonl")]) == questions


@pytest.mark.parametrize(
    ("source", "message"),
    [("contries", "no questions 'contries'"), ("airports", "no questions 'airports'"), ("no.jsonl", "no file")],
)
def test_what_is_no_source(source, message):
    with pytest.raises(MemxError, match=message):
        general_questions([source])


@pytest.mark.parametrize("line", [{"prompt": "a"}, {"prompt": "", "answers": ["b"]}, {"prompt": "a", "answers": []}])
def test_a_malformed_line_is_named(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "a", "answers": ["b"]}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(MemxError, match="line 2"):
        general_questions([str(path)])


@pytest.mark.parametrize("seed", [0, 1])
def test_parts_hold_every_fact_once_and_no_subject_twice(seed):
    facts = biographies(23, seed)
    parts = split_parts(facts, 4, seed)
    assert sorted(fact for part in parts for fact in part) == sorted(facts)
    subjects = [{fact.subject for fact in part} for part in parts]
    assert sum(map(len, subjects)) == 23
    assert all(len(facts) / 4 - 5 <= len(part) <= len(facts) / 4 + 5 for part in parts)
    assert parts == split_parts(facts, 4, seed) != split_parts(facts, 4, seed + 1)


def test_a_subject_with_most_facts_leaves_too_few_parts():
    facts = [Fact("a", f"r{n}", "x") for n in range(9)] + [Fact("b", "r", "x")]
    with pytest.raises(MemxError, match="10 facts on 2 subjects cannot be split into 3 parts"):
        split_parts(facts, 3, 0)
