"""The benchmarks' answer metrics against values worked out by hand."""

import sys
from itertools import product
from math import prod
from pathlib import Path
from statistics import fmean

import pytest
from memx.errors import MemxError
from memx.experiments.data.long_context.example import Example
from memx.experiments.eviction.score import cut_at, score
from memx.experiments.metrics.infinitebench import (
    code_debug_score,
    code_run_score,
    first_integer_score,
    kv_retrieval_score,
    longbook_choice_score,
    longbook_qa_chn_score,
    longdialogue_score,
    math_calc_score,
    math_find_score,
)
from memx.experiments.metrics.longbench import (
    classification_score,
    code_sim_score,
    count_score,
    qa_f1_score,
    qa_f1_zh_score,
    retrieval_score,
    rouge_score,
    rouge_zh_score,
    string_match_all,
    string_match_part,
)
from memx.experiments.metrics.registry import METRICS, check_metric, misfit
from memx.experiments.metrics.rouge import rouge_l, rouge_l_sum, rouge_l_words, rouge_n
from memx.experiments.metrics.zeroscrolls import (
    concordance_index_score,
    exponential_similarity_score,
    option_letter_score,
    stated_option_score,
    zeroscrolls_f1_score,
    zeroscrolls_rouge_score,
)


def test_containment_as_in_ruler():
    assert string_match_all(" 12 and PEAR", ["12", "pear", "34", "56"]) == 0.5
    assert string_match_part("It is Paris.", ["London", "paris"]) == 1
    assert string_match_part("", ["paris"]) == 0


def test_qa_f1_by_hand():
    assert qa_f1_score("The New York City", ["Rome", "new york"]) == pytest.approx(2 * 2 / (3 + 2))
    assert qa_f1_score("a b b", ["b b b c"]) == pytest.approx(2 * 2 / (2 + 4))  # "a" is an article
    assert qa_f1_score("", ["x"]) == qa_f1_score("the", ["the"]) == 0


def test_rouge_l_by_hand():
    # longest common subsequence "the sat": 2 of 3 words each
    assert rouge_l("the dog sat", "the cat sat") == pytest.approx(2 / 3)
    # sentences part at full stops; different words count once: hits {a, b, c}, 4 words and 3 words
    assert rouge_l("a b x. c", "c a b. b") == pytest.approx(2 * 3 / (4 + 3))
    assert rouge_l("", "a") == rouge_l("...", "a") == 0
    assert rouge_score("a b", ["c", "a b"]) == 1


def test_zeroscrolls_by_hand():
    # half for every ten points; the first percentage counts, and a number alone is none
    assert exponential_similarity_score("Of 50, 20 are good, so 40% are, 60% not.", ["40%"]) == 1
    assert exponential_similarity_score("50 %", ["40%"]) == pytest.approx(0.5)
    assert exponential_similarity_score("25%", ["40%"]) == pytest.approx(2**-1.5)
    assert exponential_similarity_score("40", ["40%"]) == 0 and exponential_similarity_score("40%", ["40"]) == 1
    # pairs of 3 in the right order: (2,1) is not, (2,3) and (1,3) are
    assert concordance_index_score("Order: 2, 1, 3", ["1, 2, 3"]) == pytest.approx(2 / 3)
    assert concordance_index_score("3,2,1", ["1, 2, 3"]) == 0 and concordance_index_score("1 2 3", ["1, 2, 3"]) == 1
    for output in ("1, 2", "1, 2, 2", "1, 2, 4", ""):
        assert concordance_index_score(output, ["1, 2, 3"]) == 0
    assert option_letter_score("The answer is (C).", ["C"]) == 1 and option_letter_score("Cat", ["C"]) == 0
    assert option_letter_score("B, or C", ["C"]) == 0 and option_letter_score("D", ["(D) a word"]) == 1
    assert zeroscrolls_f1_score("café au lait", ["cafe lait"]) == pytest.approx(2 * 2 / (3 + 2))
    assert rouge_n("a b c", "a b d", 1) == pytest.approx(2 / 3) and rouge_n("a b c", "a b d", 2) == pytest.approx(1 / 2)
    assert rouge_l_words("a c b", "a b d") == pytest.approx(2 / 3)
    assert zeroscrolls_rouge_score("a b c", ["a b d"]) == pytest.approx((2 / 3 * 1 / 2 * 2 / 3) ** (1 / 3))
    # of several answers, the best of each kind
    assert zeroscrolls_rouge_score("a b", ["b a", "a b c d e f"]) == pytest.approx((1 * 2 / 6 * 1 / 2) ** (1 / 3))
    assert zeroscrolls_rouge_score("", ["a b"]) == 0


def test_zeroscrolls_rouge_is_at_most_the_published_score_and_its_texts_say_so():
    pairs = [("a b c", "a b d"), ("b a", "a b"), ("a b c d", "a b c d")]
    measures = [[rouge_n(*pair, 1), rouge_n(*pair, 2), rouge_l_words(*pair)] for pair in pairs]
    published = prod(map(fmean, zip(*measures, strict=True))) ** (1 / 3)
    scores = [zeroscrolls_rouge_score(output, [answer]) for output, answer in pairs]
    assert scores[1] == 0 and measures[1][0] == 1  # no common bigram
    assert fmean(scores) < published
    guide = Path(__file__).parents[3] / "docs" / "guides" / "compare-policies.md"
    for text in (zeroscrolls_rouge_score.__doc__, guide.read_text("utf-8")):
        words = " ".join(str(text).split())
        assert "at most the published score" in words and "without a common bigram" in words and "stem" not in words


BAD = {
    "math_calc_score": ("1", "x"),
    "math_find_score": ("0", "x"),
    "option_letter_score": ("A", "forty"),
    "stated_option_score": ("A", "forty"),
    "exponential_similarity_score": ("40%", "forty"),
    "concordance_index_score": ("1, 2", "forty"),
    "retrieval_score": ("7", "forty"),
    "retrieval_zh_score": ("7", "forty"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_answer_that_a_metric_cannot_score_is_found_whatever_the_output(name):
    right, wrong = BAD[name]
    assert misfit(name, [right]) is None and misfit(name, [right, wrong]) == misfit(name, [wrong]) == wrong
    with pytest.raises(MemxError, match=f"{name} cannot score the answer '{wrong}'"):
        check_metric(name, [right, wrong])


@pytest.mark.parametrize("name", [name for name in METRICS if "zh" not in name])
def test_answers_that_pass_the_check_are_scored_whatever_the_output(name):
    texts = ("0", "1", "x", "A", "40%", "1, 2", "Paragraph 1", "-1", "1.5")
    for answers in [*product(texts, repeat=1), *product(texts, repeat=2)]:
        if misfit(name, answers) is None:
            for output in ("", *texts, " ".join(texts), "1 2", "The correct answer is (A)", "9 8", *answers):
                assert 0 <= METRICS[name](output, answers, ()) <= 1


def test_longbench_v2_by_hand():
    assert stated_option_score("So: **The correct answer is (B)**, not (A).", ["The correct answer is (B)"]) == 1
    assert stated_option_score("The correct answer is B", ["B"]) == 1
    assert stated_option_score("The correct answer is (C)", ["B"]) == stated_option_score("B", ["B"]) == 0


def test_rouge_l_sum_by_hand():
    assert rouge_l_sum("The Cat!", "the cat") == 1
    # lines "a b" and "c"; the answer "a c b": union of "a b" and "c", 3 hits of 3 and 3
    assert rouge_l_sum("a b\nc", "a c b") == 1
    assert rouge_l_sum("a a a", "a b") == pytest.approx(2 * 1 / (3 + 2))
    assert rouge_l_sum("", "a b") == 0


def test_classification_by_hand():
    classes = ["Person", "Group of person", "City", "person"]
    assert classification_score("City", ["City"], classes) == 1
    assert classification_score("City or Person", ["City"], classes) == 0.5
    assert classification_score("Group of person", ["Group of person"], classes) == 1  # "person" is a part of it
    assert classification_score("nothing", ["City"], classes) == 0


def test_retrieval_and_count_by_hand():
    assert retrieval_score("Paragraph 7", ["Paragraph 7"]) == 1
    assert retrieval_score("7 or 8, 7", ["Paragraph 7"]) == pytest.approx(2 / 3)
    assert retrieval_score("段落3", ["段落3"]) == 1
    assert retrieval_score("17", ["7"]) == retrieval_score("none", ["7"]) == 0
    assert count_score("5 of 10", ["5"]) == 0.5


def test_code_similarity_by_hand():
    assert code_sim_score("\n\n# a comment\nreturn x\nmore", ["return x"]) == 1
    assert code_sim_score("abcd", ["bcde"]) == 0.75  # 2 * 3 / 8
    assert code_sim_score("abc", ["abd"]) == 0.67
    assert code_sim_score("`x`", ["x"]) == code_sim_score("", ["x"]) == 0


def test_chinese_metrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(MemxError, match="jieba"):
        qa_f1_zh_score("你好", ["你好"])
    parts = type("jieba", (), {"cut": staticmethod(lambda text, cut_all: iter(text))})
    monkeypatch.setitem(sys.modules, "jieba", parts)
    assert qa_f1_zh_score("北京。", ["北 京！"]) == 1
    assert rouge_zh_score("北京", ["北平"]) == pytest.approx(0.5)
    assert longbook_qa_chn_score("北京！", ["北平"]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("metric", "output", "answers", "value"),
    [
        (first_integer_score, " is 12345.", ["12345"], 1),
        (first_integer_score, "1 12345", ["12345"], 0),
        (kv_retrieval_score, ' "ab-1c".', ["ab-1c"], 1),
        (kv_retrieval_score, "ab-1cd", ["ab-1c"], 0),
        (longdialogue_score, "it is Anna, I think", ["ANNA"], 1),
        (longdialogue_score, "Annabel", ["ANNA"], 0),
        (code_run_score, "The value is: -7.", ["-7"], 1),
        (code_run_score, "7 apples", ["7"], 0),
        (code_debug_score, "B. load", ["B", "load"], 1),
        (code_debug_score, "The answer is: load", ["B", "load"], 1),
        (code_debug_score, "The answer is: C", ["B", "load"], 0),
        (code_debug_score, "load", ["B", "load"], 0),
        (longbook_choice_score, "B", ["B", "a dog"], 1),
        (longbook_choice_score, "Because the answer is C.", ["B", "a dog"], 1),  # the first letter decides
        (longbook_choice_score, "The answer is a dog", ["B", "a dog"], 1),
        (longbook_choice_score, "I choose C, not B", ["B", "a dog"], 0),
        (longbook_choice_score, "", ["B", "a dog"], 0),
        (math_find_score, "is 3.5 or 4", ["3.5"], 1),
        (math_find_score, "none", ["3"], 0),
        (math_calc_score, "[1, 4, 8]", ["1", "4", "9", "2"], 0.5),
    ],
)
def test_infinitebench_by_hand(metric, output, answers, value):
    assert metric(output, answers) == value


def test_an_output_is_scored_up_to_its_stop():
    example = Example("t", "c", "q", ("7",), "count_score", stop=("\n", "##"))
    assert cut_at("\n\na##b\nc", example.stop) == "a"
    assert cut_at("ab", ()) == "ab"
    assert score(example, "\n7\n8") == 1
    assert {"qa_f1_score", "passkey_score", "string_match_all"} < set(METRICS)
    with pytest.raises(AssertionError, match="log-likelihood"):
        score(Example("t", "c", "q", ("7",), "log_likelihood"), "7")
