"""The answer metrics of LongBench and RULER, by the names they have there: an output and accepted answers -> 0 to 1.

Sources: Bai et al. 2023 (arXiv 2308.14508) and Hsieh et al. 2024 (arXiv 2404.06654), with their evaluation scripts.
Each takes (output, answers, classes) and returns the best over the accepted answers, as they do. No torch here.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from importlib import import_module

from ...errors import MemxError
from .answers import normalize
from .rouge import rouge_l

Metric = Callable[[str, Sequence[str], Sequence[str]], float]
_DIGITS = re.compile(r"\d+")
_PUNCTUATION_ZH = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣"
    "､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_NOT_WORDS_ZH = str.maketrans("", "", string.punctuation + _PUNCTUATION_ZH)
_NOT_CODE = ("`", "#", "//")


def string_match_all(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The share of the answers that the output contains, whatever their case (RULER's synthetic tasks)."""
    return sum(answer.lower() in output.lower() for answer in answers) / len(answers)


def string_match_part(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """1 if the output contains one of the answers, whatever its case (RULER's question answering)."""
    return float(any(answer.lower() in output.lower() for answer in answers))


def qa_f1_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """F1 of words after SQuAD's normalisation; 0 if either has no word."""
    return max(bag_f1(normalize(output).split(), normalize(answer).split()) for answer in answers)


def qa_f1_zh_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """F1 of Chinese words as jieba parts them. Raises MemxError without jieba."""
    return max(bag_f1(_words_zh(output), _words_zh(answer)) for answer in answers)


def rouge_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """ROUGE-L F1 as LongBench reports it."""
    return max(rouge_l(output, answer) for answer in answers)


def rouge_zh_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """ROUGE-L F1 of Chinese words as jieba parts them. Raises MemxError without jieba."""
    return max(rouge_l(" ".join(_parted(output)), " ".join(_parted(answer))) for answer in answers)


def classification_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """One over the number of classes that the output names, if the right one is among them.

    A named class whose name is only a part of the right one's is not counted.
    """
    return max(_class_share(output, answer, classes) for answer in answers)


def retrieval_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The share of the output's numbers that are the right paragraph's; answers are "Paragraph 7", "段落7" or "7"."""
    return count_score(output, [_DIGITS.findall(answer)[0] for answer in answers])


def count_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The share of the numbers in the output that are the right one; 0 if there are none."""
    numbers = _DIGITS.findall(output)
    return max(numbers.count(answer) / len(numbers) for answer in answers) if numbers else 0.0


def code_sim_score(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    """Edit similarity, in whole per cents, of the output's first line of code with the right one.

    A line with a comment or a back-tick is not taken for code. The similarity is 2M/T, M characters matched of T.
    """
    lines = output.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in _NOT_CODE)), "")
    return max(_similarity(line, answer) for answer in answers)


def bag_f1(got: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of two bags of words."""
    common = sum((Counter(got) & Counter(wanted)).values())
    return 2 * common / (len(got) + len(wanted)) if common else 0.0


def normalize_zh(text: str) -> str:
    """Lower case, without punctuation and blanks."""
    return "".join(text.lower().translate(_NOT_WORDS_ZH).split())


def _class_share(output: str, right: str, classes: Sequence[str]) -> float:
    named = [name for name in classes if name in output and (name == right or name not in right)]
    return 1 / len(named) if right in named else 0.0


def _similarity(line: str, right: str) -> float:
    if not line or not right:
        return 0.0
    return round(100 * SequenceMatcher(None, line, right).ratio()) / 100


def _words_zh(text: str) -> list[str]:
    return [word for part in _parted(text) if (word := normalize_zh(part))]


def _parted(text: str) -> list[str]:
    try:
        jieba = import_module("jieba")
    except ImportError:
        raise MemxError(
            "the metrics of LongBench's Chinese tasks need jieba", hint="install it: pip install jieba"
        ) from None
    return [*jieba.cut(text, cut_all=False)]


ANSWER_METRICS: dict[str, Metric] = {
    "string_match_all": string_match_all,
    "string_match_part": string_match_part,
    "qa_f1_score": qa_f1_score,
    "qa_f1_zh_score": qa_f1_zh_score,
    "rouge_score": rouge_score,
    "rouge_zh_score": rouge_zh_score,
    "classification_score": classification_score,
    "retrieval_score": retrieval_score,
    "retrieval_zh_score": retrieval_score,
    "count_score": count_score,
    "code_sim_score": code_sim_score,
}
