"""Closed-book QA: a model and sets of questions -> greedy exact match, F1 and NLL per answer token, as rows.

B questions, T tokens of the longest prompt and answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from ..data.facts.questions import Guesser, Question
from ..data.facts.record import Fact
from ..data.tokenizer import encode_texts
from ..metrics.answers import exact_match, f1
from ..metrics.estimates import Estimate, overlap_estimate, ratio_estimate, share_estimate
from ..models.generation import generate_texts, log_likelihoods

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Answer(NamedTuple):
    """What a model said to one question, and the NLL (nats, summed over `tokens`) of the answer that was taught."""

    question: Question
    text: str
    nll: float
    tokens: int


def by_name_length(answers: Sequence[Answer], tokenizer: PreTrainedTokenizerFast) -> dict[str, list[Answer]]:
    """Group answers by the number of tokens in the name of the entity that was asked about.

    Args:
        answers: To questions on facts.
        tokenizer: Of the model.

    Returns:
        The answers of each group that is not empty, by its tokens: "1-2", "3-4" or "5+".
    """
    names = list(dict.fromkeys(answer.question.subject for answer in answers))
    encoded = encode_texts(tokenizer, names, begin=False)
    lengths = {name: len(one.ids) for name, one in zip(names, encoded, strict=True)}
    groups: dict[str, list[Answer]] = {"1-2": [], "3-4": [], "5+": []}
    for answer in answers:
        length = lengths[answer.question.subject]
        groups["1-2" if length < 3 else "3-4" if length < 5 else "5+"].append(answer)
    return {name: group for name, group in groups.items() if group}


def sample_questions(sets: Mapping[str, Sequence[Question]], most: int | None, seed: int) -> dict[str, list[Question]]:
    """At most `most` questions of each set, in the set's order, the same for the same seed.

    Sets of one length ask of the same facts in the same order, so the same places are drawn from each.
    """
    drawn = {}
    for name, questions in sets.items():
        chosen = range(len(questions))
        if most is not None and most < len(questions):
            chosen = sorted(random.Random(f"questions {seed} {len(questions)}").sample(chosen, most))
        drawn[name] = [questions[i] for i in chosen]
    return drawn


@torch.no_grad()
def answer_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    *,
    batch: int = 256,
    max_answer: int = 24,
    synced: bool = False,
    end: bool = True,
) -> list[Answer]:
    """Ask every question: a greedy answer by `generate`, and the NLL of the taught answer.

    synced: all ranks of the default process group do so together. end: whether the end token counts in the NLL.
    """
    was_training = model.training
    model.eval()
    answers: list[Answer | None] = [None] * len(questions)
    by_length = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt) + len(questions[i].answer))
    for start in range(0, len(by_length), batch):
        chunk = by_length[start : start + batch]
        asked = [questions[i] for i in chunk]
        prompts, pad = _ids(tokenizer, [question.prompt for question in asked], begin=True), tokenizer.pad_token_id
        texts = generate_texts(model, tokenizer, prompts, max_answer, pad=pad, synced_gpus=synced)
        scores = answer_nll(model, tokenizer, asked, end=end)
        for i, question, text, (nll, tokens) in zip(chunk, asked, texts, scores, strict=True):
            answers[i] = Answer(question, text.strip(), nll, tokens)
    model.train(was_training)
    return [answer for answer in answers if answer is not None]


def longest_answer(facts: Sequence[Fact], tokenizer: PreTrainedTokenizerFast) -> int:
    """Tokens of the longest object or alias."""
    texts = {text for fact in facts for text in (fact.object, *fact.aliases)}
    return max(len(ids) for ids in _ids(tokenizer, [" " + text for text in texts], begin=False))


def _ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, begin: bool) -> list[list[int]]:
    """Token ids of each text; begin: with the token that some tokenizers put before a text."""
    return [one.ids for one in encode_texts(tokenizer, texts, begin=begin)]


def answer_nll(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], *, end: bool = True
) -> list[tuple[float, int]]:
    """For each question the NLL in nats of its taught answer, and how many tokens that is.

    end: whether the end token after the answer counts too.
    """
    last: Any = [tokenizer.eos_token_id] if end else []
    prompts = _ids(tokenizer, [question.prompt for question in questions], begin=True)
    texts = [" " + question.answer for question in questions]
    answers = [[*ids, *last] for ids in _ids(tokenizer, texts, begin=False)]
    pairs = list(zip(prompts, answers, strict=True))
    tokens = pad_sequence([torch.tensor(prompt + answer) for prompt, answer in pairs], batch_first=True)
    targets = [torch.tensor([*[-100] * (len(prompt) - 1), *answer, -100]) for prompt, answer in pairs]
    labels = pad_sequence(targets, batch_first=True, padding_value=-100)
    # right padding needs no mask: no answer token can see it
    hidden = model.model(tokens.to(model.device), use_cache=False).last_hidden_state
    asked = labels != -100
    logits = model.lm_head(hidden[asked.to(hidden.device)])
    nll = torch.zeros(labels.shape, dtype=torch.float32)
    nll[asked] = -log_likelihoods(logits, labels[asked].to(logits.device)).cpu()
    return list(zip(nll.sum(-1).tolist(), asked.sum(-1).tolist(), strict=True))


def estimates(answers: Sequence[Answer]) -> dict[str, Estimate]:
    """Exact match and F1 in percent, NLL in nats per answer token, each with n and a 95% interval."""
    return {
        "exact_match": share_estimate([exact_match(a.text, a.question.accepted) for a in answers]),
        "f1": overlap_estimate([f1(a.text, a.question.accepted) for a in answers]),
        "nll": ratio_estimate([a.nll for a in answers], [a.tokens for a in answers]),
    }


def answer_lines(answers: Mapping[str, Sequence[Answer]]) -> list[dict[str, Any]]:
    """Lines of answers.jsonl, with the keys that `memx eval` writes too.

    Args:
        answers: By tier.

    Returns:
        One line for each question: what was asked, what the model wrote, what is accepted, and scores from 0 to 1.
    """
    return [
        {
            "task": tier,
            "number": number,
            "relation": answer.question.relation,
            "subject": answer.question.subject,
            "question": answer.question.prompt,
            "answer": answer.text,
            "accepted": list(answer.question.accepted),
            "exact_match": exact_match(answer.text, answer.question.accepted),
            "f1": f1(answer.text, answer.question.accepted),
            "nll": answer.nll,
            "gold_tokens": answer.tokens,
        }
        for tier, asked in answers.items()
        for number, answer in enumerate(asked)
    ]


def make_guessers(trained: Sequence[Fact]) -> dict[str, Guesser]:
    """Two guessers without memory, by metric: the most common answer, and the one by first letter (chance)."""
    return {
        "majority_exact_match": Guesser(trained, "relation"),
        "chance_exact_match": Guesser(trained, "first letter"),
    }


def guess_estimates(questions: Sequence[Question], guessers: Mapping[str, Guesser]) -> dict[str, Estimate]:
    """Exact match of each guesser."""
    return {
        metric: share_estimate([exact_match(guesser.guess(q.subject, q.relation), q.accepted) for q in questions])
        for metric, guesser in guessers.items()
    }
