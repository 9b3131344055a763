"""`memx ask`: what a trained run and a folder answer, which questions are noted as unknown, and bad input."""

import json

import pytest
import torch
from memx.cli.main import run as memx
from memx.experiments.base_models.load import load_host
from memx.experiments.config.loading import load_config
from memx.experiments.data.facts.questions import build_split, question_sets
from memx.experiments.data.facts.relations import saved_relations
from memx.experiments.dialogue.ask import AskConfig, ask
from memx.experiments.dialogue.forms import Forms, forms_of
from memx.experiments.dialogue.model import ModelChoice
from memx.experiments.dialogue.sampling import Sampling

from ...experiments.evolution.tiny_evolution import write_host


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host") / "tiny-host")


@pytest.fixture(scope="module")
def seen(tiny_run):
    """A question that training showed the tiny run."""
    split, _ = build_split(load_config(str(tiny_run[0].folder / "config.yaml")))
    return question_sets(split)["seen"][0].prompt


def test_a_run_is_asked_as_it_was_trained(tiny_run, seen, capsys):
    run = str(tiny_run[0].folder)
    other = "What did the cat eat?"
    assert memx(["ask", run, seen, other, "--json"]) == 0
    printed = capsys.readouterr()
    known, unknown = json.loads(printed.out)
    assert known["prompt"] == seen and known["known"] and not unknown["known"]
    assert 0 < known["answers"][0]["probability"] <= 1
    assert f"{other!r}: not in a phrasing" in printed.err and printed.err.count("\n  ") == 3
    model, tokenizer = load_host(run, any_decoder=True)
    ids = tokenizer(seen, return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=32, do_sample=False)[0, ids.shape[1] :]
    assert known["answers"][0]["text"] == tokenizer.decode(written, skip_special_tokens=True).strip()
    logits = model(torch.cat([ids[0], written])[None]).logits[0, ids.shape[1] - 1 : -1]
    total = logits.log_softmax(-1).gather(1, written[:, None]).sum().exp()
    assert known["answers"][0]["probability"] == pytest.approx(float(total.detach()), rel=1e-3)


def test_every_seen_question_is_in_a_known_phrasing_and_the_examples_are(tiny_run):
    config = load_config(str(tiny_run[0].folder / "config.yaml"))
    split, _ = build_split(config)
    forms = forms_of(tiny_run[0].folder)
    assert not any(forms.unknown(question.prompt) for question in question_sets(split)["seen"])
    assert {forms.unknown(question.prompt) for question in question_sets(split)["unseen"]} == {"subject"}
    assert len(forms.examples()) == 3 and not any(map(forms.unknown, forms.examples()))
    gone = Forms(saved_relations(tiny_run[0].folder))  # the facts cannot be read any more
    assert gone.forms == forms.forms and not gone.unknown(question_sets(split)["unseen"][0].prompt)


def test_the_likeliest_answers_are_in_order_and_their_probabilities_add_up_to_at_most_one(tiny_run, seen):
    choice = ModelChoice(str(tiny_run[0].folder))
    (found,) = ask(AskConfig(choice, [seen], sampling=Sampling(top=4, max_tokens=4)))
    scores = [answer.probability for answer in found.answers]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True) and 0 < sum(scores) <= 1 + 1e-6


def test_a_folder_reads_the_form_of_questions_and_stops_at_the_end_of_a_line(host, tmp_path, capsys):
    (tmp_path / "asked.txt").write_text("Who is it?\n\nAnd who?\n", encoding="utf-8-sig")
    assert memx(["ask", str(host), "--file", str(tmp_path / "asked.txt"), "--json", "--sample", "--seed", "3"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [one["prompt"] for one in first] == ["Question: Who is it?\nAnswer:", "Question: And who?\nAnswer:"]
    assert all("\n" not in one["answers"][0]["text"] and one["known"] is None for one in first)
    assert memx(["ask", str(host), "--file", str(tmp_path / "asked.txt"), "--json", "--sample", "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_a_context_is_read_with_the_policy_attached(host, tmp_path, capsys):
    (tmp_path / "context.txt").write_text("a b c d e f " * 20)
    given = ["ask", str(host), "Who?", "--context", str(tmp_path / "context.txt"), "--max-tokens", "2", "--json"]
    assert memx([*given, "--policy", "recency", "--budget", "0.25", "--interval", "32"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["cache"]["kept"] < 0.5 * found["cache"]["seen"] and found["cache"]["seen"] > 60
    assert memx(given) == 0 and json.loads(capsys.readouterr().out)[0]["cache"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["HOST"], "no question"),
        (["HOST", " "], "a question is empty"),
        (["HOST", "a", "--file", "q.txt"], "exclude each other"),
        (["HOST", "--file", "gone.txt"], "cannot read gone.txt"),
        (["HOST", "--file", "LATIN"], "not UTF-8 text (line 2)"),
        (["HOST", "a", "--budget", "0.5"], "--budget needs --policy or --namm"),
        (["HOST", "a", "--policy", "nope"], "unknown policy"),
        (["HOST", "a", "--policy", "snapkv", "--namm", "universal"], "exclude each other"),
        (["HOST", "a", "--temperature", "0"], "not between 0 and 100"),
        (["HOST", "a", "--top", "2", "--sample"], "--top and sampling exclude"),
        (["HOST", "a", "--form", "chat"], "has no chat template"),
        (["HOST", "a " * 3000], "do not fit"),
        (["nowhere", "a"], "no model or folder 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(host, tmp_path, capsys, arguments, message):
    (tmp_path / "latin.txt").write_bytes(b"a\nZ\xfcrich?\n")
    names = {"HOST": str(host), "LATIN": str(tmp_path / "latin.txt")}
    assert memx(["ask", *(names.get(argument, argument) for argument in arguments)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""
