"""The answer metrics of InfiniteBench, one a task: an output and the answers -> 0 to 1. No torch here.

Source: Zhang et al. 2024 (arXiv 2402.13718) with its evaluation script. Names are the tasks', with `_score`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .longbench import Metric, bag_f1, normalize_zh, qa_f1_score
from .rouge import rouge_l_sum

_INTEGER = re.compile(r"[0-9]+")
_NUMBER = re.compile(r"\d+\.\d+|\d+")
_RETRIEVAL = "\n:\"'.,?!{}"  # what parts words in the answers of these tasks
_CHOICE_LEADS = ("answer is:", "answer:", "answer is", "option is")
_DEBUG_LEADS = ("answer is:", "is:", "answer:")


def first_integer_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the first run of digits is the answer (passkey, number_string)."""
    found = _INTEGER.search(output)
    return float(found is not None and found.group() in answers)


def kv_retrieval_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if one of the output's words, punctuation taken away, is the answer."""
    return float(any(answer in _parted(output, _RETRIEVAL) for answer in answers))


def longdialogue_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if one of the output's words in capitals is the name, the first answer."""
    return float(answers[0] in _parted(output.upper(), _RETRIEVAL))


def code_run_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the last word is the returned number."""
    words = _parted(output.strip(), "\n.`'\":")
    return float(bool(words) and re.fullmatch(r"[+-]?\d+", words[-1]) is not None and str(int(words[-1])) in answers)


def code_debug_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the output begins with the letter and a full stop or colon, or gives letter or function after "answer:".

    answers: the letter and the function's name.
    """
    if output[:2] in (f"{answers[0]}.", f"{answers[0]}:"):
        return 1.0
    text = output.strip()
    for mark in ("\n", "`", "'", '"', "-", "*", "Option", "option"):
        text = text.replace(mark, " ")
    return _after_lead(re.sub(" +", " ", text), _DEBUG_LEADS, answers) or 0.0


def longbook_choice_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the letter that the output begins with, says after "answer is", or names first is right.

    answers: the letter and the option's text.
    """
    if output[:1] in tuple("ABCD"):
        return float(output[0] == answers[0])
    text = " ".join(_parted(output, "\n\"'.,?!{}"))
    led = _after_lead(text, _CHOICE_LEADS, answers)
    if led is not None:
        return led
    return float(next((word for word in text.split() if word in tuple("ABCD")), "") == answers[0])


def math_find_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the first number is the answer's."""
    right, found = [float(answer) for answer in answers], _NUMBER.search(output)
    return float(found is not None and float(found.group()) in right)


def math_calc_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The share of the intermediate values, all of `answers` in their order, that come before the first wrong one."""
    values, right = [int(answer) for answer in answers], 0
    for number, value in zip(_INTEGER.findall(output), values, strict=False):
        if int(number) != value:
            break
        right += 1
    return right / len(answers)


def longbook_sum_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """ROUGE-Lsum."""
    return max(rouge_l_sum(output, answer) for answer in answers)


def longbook_qa_chn_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """F1 of Chinese characters."""
    return max(bag_f1([*normalize_zh(output)], [*normalize_zh(answer)]) for answer in answers)


def _parted(text: str, marks: str) -> list[str]:
    return text.translate(str.maketrans(marks, " " * len(marks))).split()


def _after_lead(text: str, leads: Sequence[str], answers: Sequence[str]) -> float | None:
    """Whether an answer follows the first of the leads that is there; None if none is."""
    for lead in leads:
        place = text.find(lead)
        if place >= 0:
            return float(text[place + len(lead) + 1 :].startswith(tuple(answers)))
    return None


INFINITEBENCH_METRICS: dict[str, Metric] = {
    "passkey_score": first_integer_score,
    "number_string_score": first_integer_score,
    "kv_retrieval_score": kv_retrieval_score,
    "longdialogue_qa_eng_score": longdialogue_score,
    "longbook_qa_eng_score": qa_f1_score,
    "longbook_sum_eng_score": longbook_sum_score,
    "longbook_choice_eng_score": longbook_choice_score,
    "longbook_qa_chn_score": longbook_qa_chn_score,
    "math_find_score": math_find_score,
    "math_calc_score": math_calc_score,
    "code_run_score": code_run_score,
    "code_debug_score": code_debug_score,
}
