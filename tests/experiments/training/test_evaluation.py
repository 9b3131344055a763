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
