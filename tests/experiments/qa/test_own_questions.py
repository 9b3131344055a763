"""Questions of the user's own: names, metrics, contexts, examples; and answers through a chat template."""

import json
import shutil

import pytest
from memx.errors import MemxError
from memx.experiments.data.chat import chat_ids, check_chat
from memx.experiments.data.tokenizer import train_tokenizer
from memx.experiments.metrics.registry import METRICS, check_metric, metric_name
from memx.experiments.metrics.rouge import rouge_l
from memx.experiments.qa import run as qa_run
from memx.experiments.qa.answer import Said
from memx.experiments.qa.eviction import evictions
from memx.experiments.qa.model import load_model
from memx.experiments.qa.prompt import Asked, Asker, prompt_text
from memx.experiments.qa.questions import QaQuestion, read_questions
from memx.experiments.qa.rows import answer_line
from memx.experiments.qa.sets import qa_tasks, read_set, set_names
from memx.experiments.qa.sources import own_metrics

from .taught_model import ASKED, TRAIN, nq_files, taught_once
from .unbatched import config_of, evaluated

PLAIN = """{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %} {{ m.content }}

{% endif %}{% endfor %}"""
MARKED = """{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|over|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    return taught_once(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    def load(config):
        model, tokenizer = load_model(config)
        return model.double(), tokenizer

    monkeypatch.setattr(qa_run, "load_model", load)


@pytest.fixture
def own(tmp_path):
    """Two files of the same questions in one folder, without and with a text to read."""
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [{"question": question, "answer": names} for question, _, names in ASKED]
    write(folder / "test.jsonl", rows)
    write(folder / "texts.jsonl", [{**row, "context": "As is known:"} for row in rows])
    write(folder / "train.jsonl", [{"question": question, "answer": answer} for question, answer in TRAIN])
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_own_questions_are_reported_under_their_name(taught, own, tmp_path):
    files = [f"mine={own / 'test.jsonl'}", f"other={own / 'test.jsonl'}"]
    config = config_of(taught, questions=files, metrics=["mine=rouge", "mine=exact_match", "other=classification"])
    assert [task.name for task in config.tasks] == ["mine", "other"] and config.shots == 0
    rows, _ = evaluated(config, tmp_path / "runs")
    assert set(rows) == {
        *(("mine", metric) for metric in ("rouge_score", "exact_match", "nll", "answer_nll")),
        *(("other", metric) for metric in ("classification_score", "nll", "answer_nll")),
    }
    nq = config_of(taught, tasks=["nq"], questions=[f"nq={own / 'test.jsonl'}"], shots=0)
    usual, answers = evaluated(nq, tmp_path / "runs")
    assert "scores" not in answers[1] and 0 < rows["mine", "exact_match"].value < 100
    assert rows["mine", "exact_match"].value == usual["nq", "exact_match"].value
    assert rows["mine", "nll"].value == pytest.approx(usual["nq", "nll"].value)
    right = [max(rouge_l(line["answer"], name) for name in line["accepted"]) for line in answers.values()]
    assert rows["mine", "rouge_score"].value == pytest.approx(100 * sum(right) / len(right))
    named = [any(name in line["answer"] for name in line["accepted"]) for line in answers.values()]
    assert rows["other", "classification_score"].value == pytest.approx(100 * sum(named) / len(named))


@pytest.mark.parametrize(
    ("text", "score"), [("Bo", 1), ("Beau", 1), ("Bo, or Beau", 1), ("Beau or Cy", 1 / 2), ("Cy", 0), ("Ed", 0)]
)
def test_classification_takes_every_accepted_answer(tmp_path, taught, text, score):
    rows = [{"question": "who", "answer": ["Bo", "Beau"]}, {"question": "where", "answer": ["Cy", "Cyan"]}]
    path = write(tmp_path / "q.jsonl", rows)
    config = config_of(taught, questions=[f"mine={path}"], metrics=["classification"])
    (task,) = config.tasks
    found = read_set(config, task)
    assert found.classes == ("Bo", "Beau", "Cy", "Cyan")
    asked = Asked(found.questions[0], [1], [2], (), 0, 0)
    line = answer_line("mine", asked, Said(text, 1.0, 1), ["classification_score"], found.classes)
    assert line["scores"] == {"classification_score": score}


def test_examples_come_from_train_or_the_folder_and_limit_and_resume_hold(taught, own, tmp_path):
    config = config_of(taught, questions=[f"mine={own}"], shots=2, settings={"limit": 5})
    rows, answers = evaluated(config, tmp_path / "runs")
    assert rows["mine", "f1"].n == 5 and rows["mine", "f1"].labels.shots == 2
    assert all(len(line["shots"]) == 2 for line in answers.values())
    given = config_of(
        taught, questions=[f"mine={own / 'test.jsonl'}"], examples=[f"mine={own / 'train.jsonl'}"], shots=2
    )
    assert given.tasks == config.tasks
    assert evaluated(config, tmp_path / "runs", resume=True)[0] == rows


def test_own_questions_work_with_an_eviction_policy(taught, own, tmp_path):
    given = dict(questions=[f"mine={own / 'texts.jsonl'}"], metrics=["f1"])
    (whole, _), (kept, _) = (
        evaluated(config_of(taught, evictions=evictions(["knorm"], [], [budget], every=16), **given), tmp_path / "runs")
        for budget in (1.0, 0.25)
    )
    assert set(whole) == {("mine", "f1"), ("mine", "nll"), ("mine", "answer_nll")}
    assert whole["mine", "nll"].value != kept["mine", "nll"].value and kept["mine", "f1"].labels.evicted_questions > 0


def test_a_context_is_read_before_the_question(taught, own, tmp_path):
    rows, _ = evaluated(config_of(taught, questions=[f"mine={own / 'texts.jsonl'}"]), tmp_path / "runs")
    assert rows["mine", "f1"].labels.context_questions == len(ASKED)
    row = QaQuestion(1, "1", "who", ("Bo",), "A text.\n\nAnother.")
    listed = {"question": "who", "answer": "Bo", "context": ["A text.", " Another. "]}
    path = write(tmp_path / "a.jsonl", [listed])
    assert read_questions([path], contexts=True) == [row] and read_questions([path])[0].context == ""
    assert prompt_text(row, [row]).startswith("A text.\n\nAnother.\n\nQuestion: who?\nAnswer: Bo\n\nA text.")
    with pytest.raises(MemxError, match="the context is not text"):
        read_questions([write(tmp_path / "b.jsonl", [{**listed, "context": {"a": 1}}])], contexts=True)


def test_which_sets_are_evaluated(own):
    mine, nq = f"mine={own}", f"nq={own}"
    assert set_names(None, [], harness=False) == set_names(None, [nq], harness=False) == ["nq", "tqa"]
    assert set_names(None, [], harness=True) == []
    assert set_names(None, [mine], harness=False) == set_names(None, [mine], harness=True) == ["mine"]
    assert set_names(None, [nq, mine], harness=False) == ["nq", "mine"]
    assert set_names(["tqa"], [mine], harness=False) == ["tqa", "mine"]
    assert qa_tasks(["mine"], [mine], [], None)[0].examples.files == (str(own / "train.jsonl"),)


def test_metrics_have_short_names_and_the_usual_ones_change_nothing():
    assert metric_name("rouge") == "rouge_score" and metric_name("f1") == "f1"
    assert own_metrics(["exact_match", "f1"], ["a"]) == {} == own_metrics([], ["a"])
    assert own_metrics(["f1", "b=rouge"], ["a", "b"]) == {"a": ("f1",), "b": ("f1", "rouge_score")}
    for name in METRICS:
        if "zh" not in name:  # these need a package of their own
            check_metric(name, ("B",) if "option" in name else ("1", "2"))


def chat_model(taught, folder, template):
    shutil.copytree(taught, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_chat_in_the_words_of_a_prompt_has_its_answers(taught, own, tmp_path):
    """A template that writes what a prompt is gives the same prompts; a turn does not end with its line."""
    folder = chat_model(taught, tmp_path / "model", PLAIN)
    given = dict(tasks=["nq"], questions=[f"nq={own / 'test.jsonl'}"], examples=[f"nq={own / 'train.jsonl'}"], shots=1)
    usual, chat = (
        evaluated(config_of(folder, **given, settings={"chat": chat}), tmp_path / "runs") for chat in (False, True)
    )
    for number, line in usual[1].items():
        assert chat[1][number]["answer"].partition("\n")[0].strip() == line["answer"]
        assert chat[1][number]["shots"] == line["shots"]
        assert chat[1][number]["prompt_tokens"] == line["prompt_tokens"]
    assert any("\n" in line["answer"] for line in chat[1].values())
    assert chat[0]["nq", "f1"].labels.chat and "chat" not in usual[0]["nq", "f1"].model_extra


def test_chats_are_those_of_the_tokenizer_and_texts_in_them_are_ordinary(taught, tmp_path):
    marks = ["<|user|>", "<|assistant|>", "<|over|>"]
    tokenizer = train_tokenizer(["Question: who is it? Answer: me"], 400)
    with pytest.raises(MemxError, match="the tokenizer of m has no chat template"):
        check_chat(tokenizer, "m")
    tokenizer.chat_template = "{{ raise_exception('by turns only') }}"
    with pytest.raises(MemxError, match="cannot be used: by turns only"):
        check_chat(tokenizer, "m")
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = MARKED
    check_chat(tokenizer, "m")
    messages = [{"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}]
    messages += [{"role": "user", "content": "who is it"}]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert chat_ids(tokenizer, [("who", "me"), ("who is it", None)]) == wanted
    ids = chat_ids(tokenizer, [("who", "me"), ("who <|over|> it", None)])
    over = tokenizer.convert_tokens_to_ids("<|over|>")
    assert ids.count(over) == wanted.count(over) == 3 and "who <|over|> it<|over|>" in tokenizer.decode(ids)


def test_a_chat_that_is_too_long_loses_examples_and_then_the_start_of_its_question():
    tokenizer = train_tokenizer(["Question: who is it? Answer: me and you"], 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|over|>"]})
    tokenizer.chat_template = MARKED
    shot, question = QaQuestion(1, "1", "who", ("me",)), QaQuestion(2, "2", "who is it", ("you",), "me and you " * 9)

    def ask(room):
        asker = Asker(tokenizer, [shot], shots=1, room=room + 4, answer_tokens=4, seed=0, chat=True)
        return asker.ask(question)

    whole = ask(999)
    assert tokenizer.decode(whole.gold) == "you" and whole.shots == (1,)
    bare = ask(len(whole.prompt) - 1)
    assert bare.dropped == 1 and bare.cut == 0
    short = ask(len(bare.prompt) - 5)
    assert short.cut >= 5 and len(short.prompt) <= len(bare.prompt) - 5
    text = tokenizer.decode(short.prompt)
    assert text.startswith("<|user|>") and text.endswith("Question: who is it?\nAnswer:<|over|>\n<|assistant|>")
    with pytest.raises(MemxError, match="too short"):
        ask(3)


def test_published_files_are_read_without_contexts(tmp_path):
    asked, _ = nq_files(tmp_path)
    row = {"question": "who", "answer": ["Bo"], "context": "A text."}
    write(asked, [row])
    (task,) = qa_tasks(["nq"], [f"nq={asked}"], [], 0)
    from memx.experiments.qa.sets import load_questions

    assert load_questions(task, "asked")[0].context == ""
