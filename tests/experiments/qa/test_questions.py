"""NQ-open and TriviaQA in every form that they are published in, what is wrong with a row, and prompts of them."""

import json
import sys
from types import ModuleType

import pytest
from memx.errors import MemxError
from memx.experiments.config.base import config_hash, to_tree, tree_hash
from memx.experiments.config.question_answering import QaConfig, QaTask
from memx.experiments.data.tokenizer import train_tokenizer
from memx.experiments.qa.prompt import Asker, not_asked, prompt_text, sample
from memx.experiments.qa.questions import QaQuestion, read_questions
from memx.experiments.qa.sets import load_questions, qa_tasks

from .taught_model import nq_files, tqa_entry, tqa_file

NQ = {"question": "who wrote fix you", "answer": ['"Coldplay"', "Coldplay"]}
HUB_TQA = {
    "question": "Who wrote Fix You?",
    "question_id": "tc_7",
    "answer": {"aliases": ["Cold play", "Coldplay"], "normalized_aliases": ["cold play", "coldplay"],
               "matched_wiki_entity_name": "", "normalized_value": "coldplay", "type": "Other", "value": "Coldplay"},
}  # fmt: skip


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_nq_lines(tmp_path):
    more = {"question": "what is 54 mbit", "answer": ["54\u00a0Mbit/s"], "answer_and_def_correct_predictions": ["x"]}
    found = read_questions([lines(tmp_path / "NQ-open.dev.jsonl", NQ, "", more)])
    assert found[0] == QaQuestion(1, "1", "who wrote fix you", ('"Coldplay"', "Coldplay"))
    assert found[1] == QaQuestion(2, "2", "what is 54 mbit", ("54\u00a0Mbit/s",))


def test_triviaqa_as_its_authors_publish_it(tmp_path):
    path = tqa_file(tmp_path / "unfiltered-web-dev.json", [("who is it", ["The Band", "Band", "A Band"])])
    (found,) = read_questions([path])
    assert found == QaQuestion(1, "tc_33", "Who is it?", ("The Band", "Band", "A Band", "the band", "band", "a band"))


@pytest.mark.parametrize("form", ["lines", "list", "lines in .json", "parquet"])
@pytest.mark.parametrize("row", [NQ, HUB_TQA], ids=["nq", "tqa"])
def test_rows_of_the_hub(tmp_path, form, row):
    if form == "parquet":
        import pyarrow
        from pyarrow import parquet

        path = tmp_path / "validation-00000-of-00001.parquet"
        parquet.write_table(pyarrow.Table.from_pylist([row, row]), path)
    elif form == "list":
        path = tmp_path / "rows.json"
        path.write_text(json.dumps([row, row]))
    else:
        path = lines(tmp_path / ("rows.jsonl" if form == "lines" else "rows.json"), row, row)
    found = read_questions([path])
    assert [one.number for one in found] == [1, 2]
    if row is NQ:
        assert found[1].answers == ('"Coldplay"', "Coldplay")
    else:
        assert found[1].answers == ("Coldplay", "Cold play", "cold play", "coldplay") and found[1].id == "tc_7"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "a", "answer": ["b"', "line 2: not JSON"),
        ('{"question": "a", "answer": [' + "9" * 5000 + "]}", "line 2: "),
        ('{"question": "a", "answer": ' + "[" * 500 + "]" * 500 + "}", "line 2: "),
        ('{"question": "\\ud83d", "answer": ["b"]}', "line 2: "),
        ('{"question": "a", "question": "b", "answer": ["b"]}', "line 2: "),
        ("[1]", "line 2: not a JSON object"),
        ({"query": "a", "answer": ["b"]}, "line 2: no question"),
        ({"question": " ", "answer": ["b"]}, "line 2: no question"),
        ({"question": " ?? ", "answer": ["b"]}, "line 2: no question"),
        ({"question": "\u200b\ufeff", "answer": ["b"]}, "line 2: no question"),
        ({"question": ["a"], "answer": ["b"]}, "line 2: the question is not text: a list is not text"),
        ({"question": "a"}, "line 2: no answers"),
        ({"question": "a", "answer": []}, "line 2: no answers"),
        ({"question": "a", "answer": [" "]}, "line 2: no answers"),
        ({"question": "a", "answer": ["\u200b"]}, "line 2: no answers"),
        ({"question": "a", "answer": [True]}, "line 2: an answer is not text: true is not text"),
        ({"question": "a", "answer": [{"b": 1}]}, "line 2: an answer is not text: an object is not text"),
        ({"question": "a", "answer": {"value": "<unk>", "aliases": []}}, "line 2: no answers"),
        ({"question": "a", "answer": {"aliases": ["b"]}}, "line 2: no answers"),
    ],
    ids=str,
)
def test_a_bad_row_is_told_by_file_and_line(tmp_path, row, message):
    path = lines(tmp_path / "bad.jsonl", NQ, row)
    with pytest.raises(MemxError) as told:
        read_questions([path])
    assert str(path) in told.value.message and message in told.value.message and told.value.hint


def test_numbers_are_answers_as_a_person_writes_them(tmp_path):
    rows = [{"question": "when", "answer": [1998, 2.0, "c. 1998", None]}, {"question": 7, "answer": 0.5}]
    found = read_questions([lines(tmp_path / "own.jsonl", *rows, {"question": "who", "answer": "A | B"})])
    assert [one.answers for one in found] == [("1998", "2", "c. 1998"), ("0.5",), ("A | B",)]
    assert found[1].text == "7"


def test_only_a_line_feed_ends_a_line(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "a\u2028b\x85", "answer": ["c"]}\n{"question": "d", "answer": ["e"]}\n', "utf-8")
    assert [one.text for one in read_questions([path])] == ["a\u2028b", "d"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl.gz", ".csv.zst"])
def test_tables_and_compressed_files(tmp_path, ending):
    import gzip
    import io

    import pandas

    table = pandas.DataFrame({"Question": ["who, then", "when"], "answer": ["A|An A", 1998]})
    path = tmp_path / f"own{ending}"
    if ending == ".jsonl.gz":
        path.write_bytes(
            gzip.compress(b'{"question": "who, then", "answer": ["A", "An A"]}\n{"question": "when", "answer": 1998}')
        )
    elif ending == ".csv.zst":
        import zstandard

        path.write_bytes(zstandard.compress(table.to_csv(index=False).encode()))
    else:
        text = io.StringIO()
        table.to_csv(text, index=False, sep="\t" if ending == ".tsv" else ",")
        path.write_text(text.getvalue(), "utf-8")
    found = read_questions([path])
    assert [(one.text, one.answers) for one in found] == [("who, then", ("A", "An A")), ("when", ("1998",))]


def test_bad_rows_are_skipped_where_the_user_says_so(tmp_path):
    path = lines(tmp_path / "own.jsonl", NQ, "no JSON", {"question": "a"}, NQ)
    with pytest.raises(MemxError, match=r"2 bad rows .line 2: not JSON.*line 3: no answers") as told:
        read_questions([path])
    assert "--skip-bad-rows" in told.value.hint
    notes = []
    found = read_questions([path], skip_bad_rows=True, notes=notes.append)
    assert [one.number for one in found] == [1, 2] and "skipped 2 bad rows" in notes[0]


def test_bad_files(tmp_path):
    cut = tqa_file(tmp_path / "dev.json", [("who is it", ["B"])])
    cut.write_text(cut.read_text()[:-40])
    (tmp_path / "x.parquet").write_bytes(b"PAR1 is no parquet PAR1")
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe")
    (tmp_path / "none.jsonl").write_text("\n")
    entries = [tqa_entry(1, "who", ["B"]), {"Question": "Who?", "Answer": {}}]
    (tmp_path / "entry.json").write_text(json.dumps({"Data": entries}))
    for name, message in {
        "dev.json": "is not JSON", "x.parquet": "x.parquet", "x.jsonl": "not UTF-8", "none.jsonl": "no questions",
        "entry.json": "entry 2: no answers", "gone.jsonl": "no file",
    }.items():  # fmt: skip
        with pytest.raises(MemxError, match=message) as told:
            read_questions([tmp_path / name])
        assert name in told.value.message


def test_a_folder_is_searched_for_published_names(tmp_path):
    asked, train = nq_files(tmp_path)
    hub = tmp_path / "hub" / "rc.nocontext"
    hub.mkdir(parents=True)
    for name in ("validation-00000-of-00001.parquet", "train-00000-of-00001.parquet"):
        (hub / name).write_bytes(b"")
    other = tmp_path / "hub" / "rc"
    other.mkdir()
    (other / "validation-00000-of-00001.parquet").write_bytes(b"")
    nq, tqa = qa_tasks(["nq", "tqa"], [f"nq={tmp_path}", f"tqa={tmp_path / 'hub'}"], [], 5)
    assert nq.asked.files == (str(asked),) and nq.examples.files == (str(train),)
    assert tqa.asked.files == (str(hub / "validation-00000-of-00001.parquet"),)
    (zero,) = qa_tasks(["nq"], [f"nq={asked}"], [], 0)
    assert not zero.examples.files  # none are needed
    with pytest.raises(MemxError, match="few-shot examples from") as told:
        qa_tasks(["nq"], [f"nq={asked}"], [], 5)
    assert "--train nq=PATH" in told.value.hint


def test_the_hub_is_asked_for_the_published_sets(monkeypatch):
    calls = []

    def load_dataset(path, **options):
        calls.append((path, options))
        if len(calls) > 2:
            raise ConnectionError("Couldn't reach it on the Hub")
        return [HUB_TQA if "trivia" in path else NQ]

    module = ModuleType("datasets")
    monkeypatch.setattr(module, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert load_questions(QaTask(name="nq"), "examples")[0].answers[0] == '"Coldplay"'
    assert load_questions(QaTask(name="tqa"), "asked")[0].answers[0] == "Coldplay"
    assert calls == [
        ("google-research-datasets/nq_open", {"split": "train"}),
        ("mandarjoshi/trivia_qa", {"split": "validation", "name": "rc.nocontext"}),
    ]
    with pytest.raises(MemxError, match="cannot load mandarjoshi/trivia_qa") as told:
        load_questions(QaTask(name="tqa"), "asked")
    assert "hf download mandarjoshi/trivia_qa" in told.value.hint and "--file tqa=trivia_qa" in told.value.hint


def questions(count):
    return [QaQuestion(i + 1, str(i + 1), f"what is number {i}", (f"n{i}", "x")) for i in range(count)]


def test_prompts_have_the_fields_form_and_lose_examples_that_do_not_fit():
    pool, (asked, *_) = questions(9), questions(1)
    assert prompt_text(asked, pool[3:4]) == (
        "Question: what is number 3?\nAnswer: n3\n\nQuestion: what is number 0?\nAnswer:"
    )
    assert prompt_text(asked._replace(text="what?"), []) == "Question: what?\nAnswer:"  # one mark, not two
    tokenizer = train_tokenizer([prompt_text(asked, pool)], 400)

    def ask(room, shots=5):
        return Asker(tokenizer, pool, shots=shots, room=room, answer_tokens=8, seed=1).ask(asked)

    whole = ask(1000)
    assert len(whole.shots) == 5 and (whole.dropped, whole.cut) == (0, 0)
    assert tokenizer.decode(whole.prompt) == prompt_text(asked, [pool[i - 1] for i in whole.shots])
    assert tokenizer.decode(whole.gold) == " n0"
    tight = ask(len(whole.prompt) + 8 - 1)
    assert tight.shots == whole.shots[1:] and tight.dropped == 1 and len(tight.prompt) < len(whole.prompt)
    bare = ask(1000, shots=0)
    cut = ask(len(bare.prompt) + 8 - 2)
    assert cut.shots == () and cut.dropped == 5 and cut.cut == 2 and cut.prompt == bare.prompt[2:]
    with pytest.raises(MemxError, match="is too short for a question"):
        ask(8)


def test_examples_are_never_asked_and_draws_depend_on_the_seed_alone():
    pool = questions(50)
    twin = QaQuestion(99, "99", "What is  Number 7?", ("n7",))
    assert [one.number for one in not_asked(pool, [twin])] == [n for n in range(1, 51) if n != 8]
    some = sample(pool, 10, 3)
    assert some == sample(pool, 10, 3) != sample(pool, 10, 4) and some == sorted(some) and len(set(some)) == 10
    assert sample(pool, None, 0) == sample(pool, 99, 0) == pool
    tokenizer = train_tokenizer(["Question: what is number?"], 300)

    def draw(seed):
        asker = Asker(tokenizer, pool, shots=4, room=9999, answer_tokens=8, seed=seed)
        return [asker.ask(one).shots for one in pool[:5]]

    assert draw(0) == draw(0) != draw(1) and len(set(draw(0))) == 5
    assert all(len(set(shots)) == 4 for shots in draw(0))


def test_an_evaluation_keeps_its_folder_unless_rows_are_skipped():
    usual = QaConfig(name="a", model="b")
    older = {key: value for key, value in to_tree(usual).items() if key not in ("skip_bad_rows", "metrics", "chat")}
    assert config_hash(QaConfig(name="a", model="b", chat=True)) != config_hash(usual)
    assert config_hash(usual) == tree_hash(older) != config_hash(QaConfig(name="a", model="b", skip_bad_rows=True))
