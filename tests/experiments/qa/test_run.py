"""NQ-open and TriviaQA on a taught checkpoint, held against a script of its own, unbatched; kill and resume."""

import json
import re
import string
from pathlib import Path

import pytest
from memx.experiments.qa import run as qa_run
from memx.experiments.qa.model import load_model
from memx.experiments.qa.run import eval_model
from memx.experiments.runtime.events import Progress
from memx.experiments.runtime.options import Options
from memx.results.store.runs import RunStore

from .taught_model import ASKED, nq_files, taught_once, tqa_file
from .unbatched import Script, config_of, evaluated, prompt_of


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    return taught_once(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Checkpoints are asked in float64, so that a batch chooses no other slots or tokens than one question alone."""

    def load(config):
        model, tokenizer = load_model(config)
        return model.double(), tokenizer

    monkeypatch.setattr(qa_run, "load_model", load)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    nq_files(folder)
    tqa_file(folder / "unfiltered-web-dev.json", [(q, names) for q, _, names in ASKED])
    return folder


def plain(text: str) -> str:
    """SQuAD's normalisation."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def test_nq_scores_are_those_of_an_independent_script(taught, files, tmp_path):
    config = config_of(taught, tasks=["nq"], questions=[f"nq={files}"], shots=2)
    rows, answers = evaluated(config, tmp_path)
    script = Script(taught)
    asked = [json.loads(line) for line in (files / "NQ-open.dev.jsonl").read_text().splitlines()]
    train = [json.loads(line) for line in (files / "NQ-open.train.jsonl").read_text().splitlines()]
    right, nats, tokens = [], 0.0, 0
    for number, row in enumerate(asked, start=1):
        shots = answers[number]["shots"]
        assert len(shots) == 2 and all(train[n - 1]["question"].rstrip("?") != row["question"] for n in shots)
        prompt = prompt_of([(train[n - 1]["question"], train[n - 1]["answer"][0]) for n in shots], row["question"])
        right.append(plain(script.answer(prompt, 10)) in [plain(name) for name in row["answer"]])
        assert answers[number]["exact_match"] == right[-1] and answers[number]["accepted"] == row["answer"]
        nll = script.nll(prompt, row["answer"][0])
        assert answers[number]["nll"] == pytest.approx(nll, rel=1e-4)
        nats, tokens = nats + nll, tokens + answers[number]["gold_tokens"]
    assert 0 < sum(right) < len(right)
    row = rows["nq", "exact_match"]
    assert row.value == pytest.approx(100 * sum(right) / len(right)) and row.n == len(asked)
    assert row.low < row.value < row.high
    assert rows["nq", "nll"].value == pytest.approx(nats / tokens, rel=1e-4)
    assert rows["nq", "answer_nll"].value == pytest.approx(nats / len(asked), rel=1e-4)
    assert (row.kind, row.memory_slots, row.model) == ("memory", 256, "taught")
    assert row.parameters_total == sum(p.numel() for p in script.model.parameters()) > row.parameters_active
    assert row.model_extra["shots"] == 2 and row.model_extra["fewer_shots"] == 0


def test_triviaqa_scores_are_those_of_an_independent_script(taught, files, tmp_path):
    config = config_of(taught, tasks=["tqa"], questions=[f"tqa={files}"], shots=0)
    rows, answers = evaluated(config, tmp_path, batch=5)
    script, right, shares = Script(taught), [], []
    data = json.loads((files / "unfiltered-web-dev.json").read_text())["Data"]
    for number, entry in enumerate(data, start=1):
        given = entry["Answer"]
        names = [plain(name) for name in (given["Value"], *given["Aliases"], *given["NormalizedAliases"])]
        said = plain(script.answer(prompt_of([], entry["Question"]), 10))
        right.append(said in names)
        shares.append(max(word_f1(said.split(), name.split()) for name in names))
        assert answers[number]["exact_match"] == right[-1] and answers[number]["id"] == entry["QuestionId"]
    assert 0 < sum(right) < len(right) and sum(shares) > sum(right)
    assert rows["tqa", "exact_match"].value == pytest.approx(100 * sum(right) / len(right))
    assert rows["tqa", "f1"].value == pytest.approx(100 * sum(shares) / len(shares))


def word_f1(said: list[str], name: list[str]) -> float:
    both = sum(min(said.count(word), name.count(word)) for word in set(said))
    return 2 * both / (len(said) + len(name)) if said and name else float(said == name)


def test_a_killed_evaluation_goes_on_to_the_same_rows(taught, files, tmp_path):
    config = config_of(taught, tasks=["nq"], questions=[f"nq={files}"], shots=1)
    rows, answers = evaluated(config, tmp_path / "straight")

    def kill(event):
        if isinstance(event, Progress) and event.done == 8:
            raise KeyboardInterrupt

    runs = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        eval_model(config, Options(runs), kill, batch=4)
    run = RunStore(runs).run(config.folder)
    assert run.status == "interrupted" and not run.rows()
    kept = run.folder / "answers.jsonl"
    before = kept.read_text().splitlines()
    assert len(before) == 8
    kept.write_text("\n".join(before[:6]) + "\n" + before[6][:20])  # a kill while it was written
    asked = []
    whole = qa_run.answer_batch

    def spy(model, tokenizer, chunk, most, **options):
        asked.append([one.question.number for one in chunk])
        return whole(model, tokenizer, chunk, most, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qa_run, "answer_batch", spy)
        again, resumed = evaluated(config, runs, resume=True)
    assert again == rows and resumed == answers and run.status == "finished"
    assert [len(chunk) for chunk in asked] == [4, 1]  # the first batch was whole, and stays
    assert evaluated(config, runs, resume=True)[0] == rows  # finished: nothing is asked again


def test_prompts_that_do_not_fit_lose_examples_and_are_counted(taught, files, tmp_path):
    config = config_of(taught, tasks=["nq"], questions=[f"nq={files}"], shots=3, settings={"answer_tokens": 60})
    rows, answers = evaluated(config, tmp_path)
    dropped = [line["dropped"] for line in answers.values()]
    assert all(len(line["shots"]) + line["dropped"] == 3 for line in answers.values())
    assert all(line["prompt_tokens"] + 60 <= 96 for line in answers.values())
    assert rows["nq", "f1"].model_extra["fewer_shots"] == sum(count > 0 for count in dropped) > 0


def test_other_weights_or_questions_are_another_run(taught, files, tmp_path):
    given = dict(tasks=["nq"], questions=[f"nq={files}"], shots=0)
    config = config_of(taught, **given)
    assert config_of(taught, **given).folder == config.folder
    changed = tmp_path / "questions"
    changed.mkdir()
    nq_files(changed)
    with (changed / "NQ-open.dev.jsonl").open("a") as file:
        file.write('{"question": "who", "answer": ["me"]}\n')
    assert config_of(taught, **{**given, "questions": [f"nq={changed}"]}).tasks[0].asked != config.tasks[0].asked
    copy = tmp_path / "taught"
    copy.mkdir()
    for path in taught.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert config_of(copy, **given).sha256 == config.sha256
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert config_of(copy, **given).sha256 != config.sha256
