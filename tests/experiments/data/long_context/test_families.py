"""Long-context tasks: the same for the same seed, of the length asked for, with their answers where they belong."""

import re
from dataclasses import replace
from random import Random

import pytest
from memx.errors import MemxError
from memx.experiments.config.eviction.tasks import HELD_OUT_TASKS, NAMED_TASKS, TRAINING_TASKS
from memx.experiments.data.long_context import families
from memx.experiments.data.long_context.example import (
    Example,
    Recipe,
    Span,
    fit,
    most,
    shortened,
)
from memx.experiments.data.long_context.families import FAMILIES, examples
from memx.experiments.data.long_context.material import SPLITS, Draw, documents, prose, sentences, split_of, weave
from memx.experiments.eviction.score import LOG_LIKELIHOOD, score
from memx.experiments.metrics.registry import METRICS

ONCE = ("passkey", "repeated", "needles", "key_values", "variables")  # the answer stands in the context exactly once
IN_CONTEXT = (*ONCE, "quote", "facts", "people", "frequent_word")


def words(text):
    return len(text.split())


def without_evidence(example):
    """The same task with its evidence cut out of the context: what the answer scores without being known."""
    context = example.context
    for start, stop in sorted(example.evidence, reverse=True):
        context = context[:start] + context[stop:].lstrip(" \n")
    return replace(example, context=context.rstrip(), evidence=())


def made(task, **options):
    return examples(task, words, **{"length": 300, "count": 4, "split": "validation", **options})


def times(answer, text):
    return len(re.findall(rf"(?<!\w){re.escape(answer)}(?!\w)", text))


@pytest.mark.parametrize("task", FAMILIES)
def test_examples_are_determined_by_their_arguments(task):
    first = made(task, count=3)
    assert first == made(task, count=3)
    assert first[1:] == made(task, count=2, first=1)
    assert len({example.prompt for example in [*first, *made(task, seed=1, count=3)]}) == 6


@pytest.mark.parametrize("length", [150, 900])
@pytest.mark.parametrize("task", FAMILIES)
def test_prompts_have_the_length_asked_for_and_never_more(task, length):
    for example in made(task, length=length, count=2):
        assert length - max(0.03 * length, 10) <= words(example.prompt) <= length  # a fact may have ten words


@pytest.mark.parametrize("task", FAMILIES)
def test_prompts_split_where_tokenizers_part_words_and_end_where_the_answer_begins(task):
    for example in made(task):
        assert example.context == example.context.rstrip()
        assert example.question[0].isspace() and not example.question[-1].isspace()
        assert (example.target[0].isspace()) != (example.question[-1] in '"[')
        assert example.answers and all(example.answers)
        assert example.metric in METRICS or example.metric == LOG_LIKELIHOOD


@pytest.mark.parametrize("task", [name for name in FAMILIES if not name.endswith("_next")])
def test_the_gold_answer_scores_full_marks_and_silence_none(task):
    for example in made(task):
        assert score(example, example.target + "\nand more") == 1
        assert score(example, "") == 0


@pytest.mark.parametrize("task", ONCE)
def test_the_answer_is_in_the_context_once_and_not_in_the_question(task):
    for example in made(task, count=8):
        (answer,) = example.answers
        assert times(answer, example.context) == 1 and times(answer, example.question) == 0
        told = "".join(example.context[start:stop] for start, stop in example.evidence)
        assert answer in told
        assert times(answer, without_evidence(example).context) == 0


@pytest.mark.parametrize("task", IN_CONTEXT)
def test_the_answer_is_in_the_evidence_and_not_in_the_question(task):
    for example in made(task, count=8):
        assert times(example.answers[0], example.context) >= 1
        if task not in ("facts", "people"):  # a country may be asked for its demonym
            assert times(example.answers[0], example.question) == 0
        if example.evidence:
            told = " ".join(example.context[start:stop] for start, stop in example.evidence)
            assert example.answers[0] in told


def test_passages_ask_for_the_number_that_follows_the_quoted_end():
    for example in made("passages", count=12):
        (span,) = example.evidence
        (quoted,) = re.findall(r"\n(.+) [(\[].*$", example.question)
        lead = example.question.rpartition(quoted)[2]
        assert f"{quoted}{lead}{example.target}" in example.context[span.start : span.stop]
        numbers = re.findall(r"\(Paragraph (\d+)\)|\[(\d+)\]|\(End of paragraph (\d+)", example.context)
        assert len(numbers) == len(set(numbers)) > 2


def test_abstracts_are_words_of_the_paragraph_whose_place_is_asked_for():
    for example in made("abstracts", count=8):
        (span,) = example.evidence
        assert example.context[: span.start].removeprefix("Here").count("\n\n") == int(example.answers[0]) - (
            not example.context.startswith("Here")
        )
        (keywords,) = re.findall(r"about (.+)\?|words (.+) are all", example.question)
        listed = "".join(keywords).split(", ")
        assert listed and all(word in example.context[span.start : span.stop].lower() for word in listed)


def test_counts_are_the_number_of_copies():
    for example in made("count", count=12):
        mark = example.context[slice(*example.evidence[0])]
        assert (
            len(example.evidence)
            == int(example.answers[0])
            == example.context.count(mark) - (example.context.startswith("Count"))
        )


def test_variables_lead_to_the_answer_in_two_steps():
    for example in made("variables", length=900):
        first, last = (example.context[start:stop] for start, stop in example.evidence)
        assert example.answers[0] in first and example.answers[0] not in last
        assert first.split()[1] in last


def test_continuations_go_on_where_the_document_was_cut():
    for task, kind in (("prose_next", "python-docs"), ("code_next", "python-source")):
        for example in made(task):
            assert any(example.question + example.answers[0] in text for text in documents(kind, "validation"))


def test_splits_share_no_document_word_number_or_entity():
    texts = [set(prose(split)) for split in SPLITS]
    assert all(texts) and not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    for task in ("needles", "passkey", "people", "facts"):
        told = {
            split: {
                word
                for example in made(task, split=split, length=200)
                for start, stop in example.evidence
                for word in re.findall(r"\d{3,4}", example.context[start:stop])
            }
            for split in ("train", "test")
        }
        if task in ("needles", "passkey"):
            assert not told["train"] & told["test"]
            assert {split_of(f"number {number}") for number in told["test"]} == {"test"}
    draws = [Draw("needles", Random(0), split, 100) for split in SPLITS]
    nouns = [set(draw.words(20)) for draw in draws]
    assert not (nouns[0] & nouns[1] or nouns[0] & nouns[2] or nouns[1] & nouns[2])


def test_training_and_held_out_families_are_apart():
    assert sorted((*TRAINING_TASKS, *HELD_OUT_TASKS, *NAMED_TASKS)) == sorted(FAMILIES)  # each in one of them
    assert len(TRAINING_TASKS) >= 3 and len(HELD_OUT_TASKS) >= 3


def test_repeated_sentences_surround_the_number():
    for example in made("repeated"):
        (span,) = example.evidence
        rest = example.context[: span.start] + example.context[span.stop :].lstrip()
        assert "There and back again. The grass is green." in rest
        body = rest.removeprefix("A pass key is hidden in the following text.").split()
        assert len(set(body)) < 20 < len(body)
        assert rest[: span.start].rstrip()[-1:] in (".", "")  # a sentence was over


def test_an_example_that_does_not_fit_is_drawn_again():
    least = [families._least("facts", words, 10**6, "train", f"0 {number}") for number in range(8)]
    length = sorted(least)[4]  # too short for some as they are drawn first
    found = families.examples("facts", words, length=length, count=8)
    assert len(found) == 8 and all(words(one.prompt) <= length for one in found)
    assert families.misfits(["facts"], words, length=length, count=8, split="train", seed=0) == {}
    assert families.misfits(["facts"], words, length=5, count=2, split="train", seed=0)["facts"] > 5


def test_mistakes_are_one_line_with_a_hint():
    with pytest.raises(MemxError, match="no long-context task 'paskey'") as error:
        made("paskey")
    assert "passkey" in error.value.hint
    with pytest.raises(MemxError, match="no split 'dev'"):
        made("passkey", split="dev")
    with pytest.raises(MemxError, match="passkey does not fit in 5 tokens"):
        made("passkey", length=5)
    with pytest.raises(MemxError, match=r"passages: the text is only \d+ of 100000 tokens"):
        made("passages", length=100_000)


def test_fit_takes_the_most_that_fits_in_few_calls():
    calls = []

    def size(n):
        calls.append(n)
        return 7 + 3 * n + n % 3

    for limit in (7, 8, 100, 9_999):
        calls.clear()
        found = most(size, 1_000_000, limit)
        assert size(found) <= limit < size(found + 2)
        assert len(calls) < 40 and max(calls) < 10 * limit
    assert most(lambda n: n, 5, 100) == 5
    with pytest.raises(MemxError, match="only 6 of 100"):
        fit(Recipe(5, lambda n: Example("t", "x " * n, "q", ("a",), "count_score")), words, 100)


def test_weave_places_evidence_at_its_depth_and_after_a_stop():
    text, spans = weave("H ", ["a ", "b. ", "c ", "d. "], ["X! ", "Y! "], [0.8, 0.1], [0, 2, 4])
    assert text == "H Y! a b. X! c d."
    assert [text[start:stop] for start, stop in spans] == ["Y!", "X!"]
    assert weave("", [], ["X "], [0.5]) == ("X", (Span(0, 1),))


def test_a_context_cut_in_its_middle():
    (example,) = made("passkey", count=1)
    short = shortened(example, words, 100)
    assert 90 <= words(short.prompt) <= 100 and short.question == example.question
    assert short.context[:50] == example.context[:50] and short.context[-50:] == example.context[-50:]
    assert shortened(example, words, 300) is example
    with pytest.raises(MemxError, match="is longer than 3 tokens"):
        shortened(example, words, 3)


def test_sentences():
    assert sentences("It is one (e.g. this). A second. Third") == ["It is one (e.g. this).", "A second.", "Third"]
