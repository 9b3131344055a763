"""What is measured after training: no answer is longer than a row of training."""

import pytest
from memx.experiments.config.loading import load_config
from memx.experiments.data.facts.questions import build_split
from memx.experiments.training.evaluation import Evaluator
from transformers import AutoTokenizer


@pytest.mark.parametrize(("asked", "longest"), [(5000, 64), (30, 30)])
def test_no_answer_is_longer_than_a_row(tiny_run, asked, longest):
    config = load_config("tiny", {"evaluation.max_answer": asked, "data.biographies": 5}.items())
    tokenizer = AutoTokenizer.from_pretrained(tiny_run[0].folder / "checkpoint")
    found = Evaluator(config, build_split(config)[0], tokenizer, print)
    assert config.data.sequence == 64 and found.max_answer == longest


def test_answers_are_grouped_by_the_tokens_of_the_name():
    from memx.experiments.data.facts.questions import Question
    from memx.experiments.data.tokenizer import encode_text, train_tokenizer
    from memx.experiments.training.fact_qa import Answer, by_name_length

    tokenizer = train_tokenizer(["ab abc abcd xyz"], 262)
    names = ["ab", "abc", "xyzxyz", "abcabcabc"]
    answers = [Answer(Question("p", name, "a", ("a",), "r"), "a", 1.0, 1) for name in names]
    groups = by_name_length(answers, tokenizer)
    for label, least, most in (("1-2", 1, 2), ("3-4", 3, 4), ("5+", 5, 99)):
        for answer in groups.get(label, []):
            assert least <= len(encode_text(tokenizer, answer.question.subject, begin=False)) <= most
    assert sorted(a.question.subject for group in groups.values() for a in group) == sorted(names) and len(groups) > 1
