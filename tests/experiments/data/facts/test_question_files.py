"""Files of complete questions: which columns they have, their answers, templates and own phrasings, and bad rows."""

import json

import pytest
from memx.errors import MemxError
from memx.experiments.config.loading import load_config
from memx.experiments.config.scale import parse_columns
from memx.experiments.config.tree_hash import tree_hash
from memx.experiments.data.facts.load import facts_digest, load_facts
from memx.experiments.data.facts.questions import build_split, documents_of, question_sets
from memx.experiments.data.facts.record import Fact
from memx.experiments.data.facts.relations import counts, relations_of

PARIS = Fact("Where is the Louvre?", "question", "Paris", ("City of Light",))


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config(path, **more):
    given = {"data.facts": [path], "data.unseen": 0.0, **{f"data.{key}": value for key, value in more.items()}}
    return load_config("questions", [*given.items()])


def many(path, count=40):
    return lines(path, *({"question": f"Who is number {i}?", "answer": f"Name {i}"} for i in range(count)))


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        ({"question": PARIS.subject, "answer": "Paris", "aliases": ["City of Light"]}, PARIS),
        ({"Question": PARIS.subject, "Answer": ["Paris", "City of Light"]}, PARIS),
        ({"question": PARIS.subject, "answers": ["Paris"], "aliases": "City of Light"}, PARIS),
        ({"question": PARIS.subject, "answer": {"value": "Paris", "aliases": ["City of Light"]}}, PARIS),
        ({"question": "How many?", "answer": 7.0}, Fact("How many?", "question", "7")),
        ({"question": "a|b?", "answer": "c|d"}, Fact("a|b?", "question", "c|d")),
        ({"prompt": "Say it:", "completion": " it"}, Fact("Say it:", "prompt", "it")),
        ({"instruction": "Say it:", "output": "it"}, Fact("Say it:", "prompt", "it")),
        (
            {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Who?"},
                          {"role": "assistant", "content": "Me"}, {"role": "user", "content": "Really?"}]},
            Fact("Who?", "prompt", "Me"),
        ),
        ({"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me"}]},
         Fact("Who?", "prompt", "Me")),
    ],
)  # fmt: skip
def test_records_are_recognised_by_their_columns(tmp_path, row, fact):
    assert load_facts(config(lines(tmp_path / "a.jsonl", row)).data).facts == [fact]


def test_a_table_in_latin_1_with_semicolons_by_column_mapping(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("Frage;Antwort;Jahr\nWo liegt Köln?;Rhein|am Rhein;1\n".encode("latin-1"))
    columns = parse_columns("question=Frage,answer=Antwort,relation==place")
    found = load_facts(config(str(path), columns=columns, encoding="latin-1").data)
    assert found.facts == [Fact("Wo liegt Köln?", "place", "Rhein", ("am Rhein",))]
    assert found.questions == {"place"} and not found.own
    with pytest.raises(MemxError, match="no column Antwrt; it has Frage, Antwort, Jahr") as refused:
        load_facts(config(str(path), columns={"question": "Frage", "answer": "Antwrt"}, encoding="latin-1").data)
    assert refused.value.hint.startswith("say which columns to use, such as --columns 'question=Frage")


def test_a_single_template_is_trained_and_asked_and_nothing_is_paraphrased(tmp_path):
    split, notes = build_split(config(many(tmp_path / "a.jsonl"), unseen=0.1))
    assert [document.text for document in documents_of(split.trained[0], split.seed, split.wording)] == [
        f"Question: {split.trained[0].subject}\nAnswer: {split.trained[0].object}"
    ]
    sets = question_sets(split)
    assert [*sets] == ["seen", "unseen"] and len(sets["unseen"]) == 4 and not notes
    assert sets["seen"][0].prompt == f"Question: {split.trained[0].subject}\nAnswer:"
    assert counts(split, 10) == "trains 36 questions, holds out 4; asks at the end: 10 seen, 4 held-out"
    assert relations_of(split)["question"] == {
        "trained": 36, "held_out": 4, "questions": ["Question: {s}\nAnswer:"], "whole": True, "aside": None,
        "example": split.trained[0].subject,
    }  # fmt: skip


def test_of_several_templates_one_is_asked_that_training_never_shows(tmp_path):
    templates = [r"Q: {question}\nA: {answer}", "{{}} {question} = {answer}", "{question} {answer}"]
    split, _ = build_split(config(many(tmp_path / "a.jsonl"), template=templates))
    sets = question_sets(split)
    for fact, seen, again in zip(split.trained, sets["seen"], sets["rephrased"], strict=True):
        shown = [document.text for document in documents_of(fact, split.seed, split.wording)]
        assert len(shown) == 2 and f"{seen.prompt} {fact.object}" in shown
        assert f"{again.prompt} {fact.object}" not in shown
    prompts = {question.prompt for tier in sets.values() for question in tier if "number 7?" in question.prompt}
    assert prompts <= {"Q: Who is number 7?\nA:", "{{}} Who is number 7? =", "Who is number 7?"} and len(prompts) == 2


def test_own_phrasings_of_relations(tmp_path):
    (tmp_path / "a.csv").write_text("subject,relation,object\n" + "".join(f"s{i},mayor,m{i}\n" for i in range(20)))
    (tmp_path / "p.yaml").write_text(
        "mayor:\n  sentences: ['{subject} obeys']\n  questions: ['Who rules {subject}?']\n"
    )
    with_own = config(str(tmp_path / "a.csv"), phrasings=str(tmp_path / "p.yaml"))
    split, notes = build_split(with_own)
    assert [one.text for one in documents_of(split.trained[0], 0, split.wording)] == [
        "s0 obeys m0.",
        "Who rules s0? m0",
    ]
    assert [*question_sets(split)] == ["seen"] and not notes
    facts = [*split.trained, *split.unseen]
    assert facts_digest(facts, split.wording) != facts_digest(facts)  # another file of phrasings is another run
    (tmp_path / "p.yaml").write_text("'*': ['{subject} has what {relation}?', '{subject}: {relation}?']\n")
    general, _ = build_split(with_own)
    assert general.wording.phrasings("mayor").questions == ("{s} has what mayor?", "{s}: mayor?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mayr: ['{subject}?']", "no fact has the relation 'mayr'"),
        ("mayor: ['who?']", "must have {subject}"),
        ("mayor: ['{subject} {x}?']", "must have {subject}"),
        ("mayor: ['{subject} {']", "must have {subject}"),
        ("mayor: {sentences: ['{subject}']}", "has no list of questions"),
        ("mayor: [1]", "not a list of texts"),
        ("- a", "has no phrasings"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_phrasings_are_one_line(tmp_path, text, message):
    (tmp_path / "a.csv").write_text("subject,relation,object\na,mayor,b\n")
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(MemxError) as refused:
        build_split(config(str(tmp_path / "a.csv"), phrasings=str(tmp_path / "p.yaml")))
    assert message in refused.value.message and "\n" not in refused.value.message


@pytest.mark.parametrize(
    "template", ["{question}", "{answer} {question}", "{question}{answer}", "{question} {answer}!"]
)
def test_bad_templates_are_refused(tmp_path, template):
    with pytest.raises(MemxError, match=r"must have {question} once and end in {answer}"):
        config(many(tmp_path / "a.jsonl"), template=template)


def test_a_template_needs_questions_and_relations_are_of_one_kind(tmp_path):
    (tmp_path / "a.csv").write_text("subject,relation,object\na,question,b\n")
    with pytest.raises(MemxError, match="is for files with the columns question and answer"):
        build_split(config(str(tmp_path / "a.csv"), template="{question} {answer}"))
    both = load_config("questions", [("data.facts", [str(tmp_path / "a.csv"), many(tmp_path / "b.jsonl")])])
    with pytest.raises(MemxError, match="'question' is the relation of facts and of complete questions"):
        load_facts(both.data)


def test_bad_rows_have_their_lines(tmp_path):
    rows = [{"question": "a?", "answer": "b"}, {"question": "", "answer": "b"}, {"question": "c?", "answer": None},
            {"question": "d?", "answer": True}, {"answer": "e"}]  # fmt: skip
    path = lines(tmp_path / "a.jsonl", *rows)
    with pytest.raises(MemxError) as refused:
        load_facts(config(path).data)
    assert "4 bad rows (line 2: no question; line 3: no answer; line 4: answer: true" in refused.value.message
    assert "line 5: no question" in refused.value.message and "skip_bad_rows" in refused.value.hint
    assert load_facts(config(path, skip_bad_rows=True).data).facts == [Fact("a?", "question", "b")]


def test_a_run_without_templates_keeps_its_name():
    tree = load_config("facts", []).model_dump(mode="json")
    older = {
        **tree,
        "data": {key: value for key, value in tree["data"].items() if key not in ("template", "phrasings")},
    }
    assert tree_hash(tree) == tree_hash(older)
