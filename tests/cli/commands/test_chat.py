"""`memx chat`: turns on one cache where nothing is read twice, policies, a stop within an answer, and piped lines."""

import io
import sys
from types import SimpleNamespace

import pytest
import torch
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.dialogue.chat import open_conversation
from memx.experiments.dialogue.model import ModelChoice
from memx.experiments.dialogue.sampling import Sampling
from transformers import AutoTokenizer

from ...experiments.evolution.tiny_evolution import write_host

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host") / "tiny-host")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    folder = write_host(tmp_path_factory.mktemp("host") / "tiny-chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def lines(monkeypatch, *texts):
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\n".join(texts).encode()), isatty=lambda: False)
    )


def test_a_later_turn_is_answered_as_if_the_whole_chat_were_read_anew_and_nothing_is_read_twice(host):
    with open_conversation(ModelChoice(str(host), dtype="float32"), Sampling(max_tokens=5), "Be <end> kind.") as chat:
        chat.model.double()
        turns, seen, pieces = [], 0, []
        for text in ("Hello there", "And then?", "Why <end>?"):
            turns.append(chat.answer(text, pieces.append))
            seen += turns[-1].read + max(turns[-1].tokens - 1, 0)
            assert turns[-1].cache.seen == len(chat.ids) - 1 == seen
        assert "".join("".join(pieces).split()) == "".join("".join(turn.text.split()) for turn in turns)
        ids = torch.tensor([chat.ids[: -turns[-1].tokens]])
        whole = chat.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
        assert whole[0].tolist() == chat.ids
        text = chat.tokenizer.decode(chat.ids)
        assert text.startswith("<system>Be <end> kind.<end>\n<user>Hello there<end>\n<assistant>")
        assert text.count("<end>\n<user>") == 3 and "<end><end>" not in text
        chat.reset()
        again = chat.answer("Hello there", lambda piece: None)
        assert again.text == turns[0].text and again.read == turns[0].read


def test_a_policy_evicts_over_turns(host):
    choice = ModelChoice(str(host), policy="recency", budget=24, every=16)
    with open_conversation(choice, Sampling(max_tokens=4)) as chat:
        for _ in range(4):
            turn = chat.answer("one two three four five six seven", lambda piece: None)
    assert turn.cache.seen > 100 and 24 <= turn.cache.kept < 24 + 16


def test_a_stopped_answer_leaves_a_chat_that_goes_on(host):
    with open_conversation(ModelChoice(str(host), dtype="float32"), Sampling(max_tokens=9)) as chat:
        turn = chat.answer("Hello", lambda piece: None, lambda: True)
        assert turn.tokens == 1 and chat.answer("And?", lambda piece: None).tokens > 1
        assert chat.tokenizer.decode(chat.ids).count("<end>\n<user>") == 1


def test_without_a_template_the_text_is_continued(plain):
    with open_conversation(ModelChoice(str(plain)), Sampling(max_tokens=3)) as chat:
        chat.answer("one", lambda piece: None)
        model, tokenizer = load_host(str(plain), any_decoder=True)
        ids = tokenizer("one", return_tensors="pt").input_ids
        assert chat.ids == model.generate(ids, max_new_tokens=3, do_sample=False)[0].tolist()
        chat.answer("two", lambda piece: None)
        assert "\ntwo" in tokenizer.decode(chat.ids)


def test_a_chat_that_fills_the_context_says_so(plain):
    with open_conversation(ModelChoice(str(plain)), Sampling(max_tokens=3)) as chat:
        with pytest.raises(MemxError, match="does not fit in the 2,048 positions") as refused:
            chat.answer("a b c d " * 1000, lambda piece: None)
        assert "/reset" in refused.value.hint and chat.answer("a", lambda piece: None).read > 0


def test_piped_lines_are_turns_until_quit(host, monkeypatch, capsys):
    lines(monkeypatch, "Hello", "", "/reset", "Hello", "/what", "/quit", "Never")
    assert memx(["chat", str(host), "--max-tokens", "3", "--policy", "snapkv", "--budget", "0.5"]) == 0
    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if line.startswith("[cache: ")]
    assert len(notes) == 2 and notes[0].split("; read")[0] == notes[1].split("; read")[0]
    assert "a new chat" in printed.err and "/reset starts a new chat" in printed.err
    first, second = printed.out[: len(printed.out) // 2], printed.out[len(printed.out) // 2 :]
    assert first == second  # greedy answers to the same first turn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PLAIN", "--system", "Be brief."], "--system: the tokenizer of"),
        (["HOST", "--interval", "64"], "--interval needs --policy or --namm"),
        (["HOST", "--temperature", "-1"], "not between 0 and 100"),
        (["nowhere"], "no model or folder 'nowhere'"),
        (["PLAIN"], "not UTF-8 text (line 2)"),
    ],
)
def test_bad_input_is_one_line(host, plain, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n\xfc\n"), isatty=lambda: False))
    names = {"HOST": str(host), "PLAIN": str(plain)}
    assert memx(["chat", *(names.get(argument, argument) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
