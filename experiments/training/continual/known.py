"""What a pretrained model knew before training: questions that it answers, and the share that it still answers later.

The questions are kept in the run folder, `known.jsonl`, so that a run that goes on asks the same.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ....errors import MemxError
from ...config.training import TrainConfig
from ...data.facts.general_knowledge import begins_right, general_questions, write_questions
from ...data.facts.questions import Question
from ...data.tokenizer import encode_texts
from ...metrics.estimates import Estimate, ratio_estimate, share_estimate
from ...models.generation import generate_texts
from ..fact_qa import answer_questions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FILE = "known.jsonl"
_SEED = 0  # of the order that questions are asked in: the same for all runs, so that their shares compare
_HOPELESS = 500  # questions without one right answer, after which no more are asked
_LONGEST = 8  # tokens of an answer: a right one is shorter


class KnownQuestions:
    """The questions that a model answered before training.

    Args:
        config: Of the run; `evaluation.known` names where questions come from.
        tokenizer: The model's.
        synced: Whether all ranks ask together.

    Attributes:
        questions: Those that were answered; empty until `find` or `read`.
        asked: How many were asked to find them.
    """

    def __init__(self, config: TrainConfig, tokenizer: PreTrainedTokenizerFast, *, synced: bool = False) -> None:
        self.config, self.tokenizer, self.synced = config.evaluation, tokenizer, synced
        self.candidates = general_questions(self.config.known, completions=self.config.known_as == "completions")
        self.questions: list[Question] = []
        self.asked = 0

    @torch.no_grad()
    def find(self, model: PreTrainedModel) -> None:
        """Ask in a drawn order until `evaluation.known_questions` are answered, or all are asked.

        Raises:
            MemxError: The model answers none of them, or none of the first 500.
        """
        order, most = list(self.candidates), self.config.known_questions
        random.Random(f"known {_SEED}").shuffle(order)
        modes = model.training
        model.eval()
        self.questions, self.asked = [], 0
        while self.asked < len(order) and (most is None or len(self.questions) < most):
            if self.asked >= _HOPELESS and not self.questions:
                break
            chunk = order[self.asked : self.asked + self.config.batch]
            self.asked += len(chunk)
            prompts = [one.ids for one in encode_texts(self.tokenizer, [question.prompt for question in chunk])]
            pad = self.tokenizer.pad_token_id
            texts = generate_texts(model, self.tokenizer, prompts, _LONGEST, pad=pad, synced_gpus=self.synced)
            self.questions += [q for q, text in zip(chunk, texts, strict=True) if begins_right(text, q.accepted)]
        model.train(modes)
        self.questions = self.questions[:most]
        if not self.questions:
            raise MemxError(
                f"the model answers none of {self.asked:,} questions of evaluation.known",
                hint="give questions that it can answer, or set evaluation.known=[]",
            )

    def write(self, folder: Path) -> None:
        """Write the questions into a run's folder. Raises MemxError if the disk is full or forbids it."""
        write_questions(folder / FILE, self.questions)

    def read(self, folder: Path) -> None:
        """Take the questions that the run found when it began.

        Args:
            folder: Of the run.

        Raises:
            MemxError: The file is not there or malformed.
        """
        if not (folder / FILE).is_file():
            raise MemxError(f"{folder / FILE} is missing", hint="use --force to start over, or copy the file again")
        self.questions = general_questions([str(folder / FILE)])

    def measure(self, model: PreTrainedModel) -> dict[str, Estimate]:
        """The share of the questions still answered, in percent, and the NLL of their answers in nats per token."""
        how = {"batch": self.config.batch, "max_answer": _LONGEST, "synced": self.synced, "end": False}
        answers = answer_questions(model, self.tokenizer, self.questions, **how)
        return {
            "exact_match": share_estimate([float(begins_right(a.text, a.question.accepted)) for a in answers]),
            "nll": ratio_estimate([a.nll for a in answers], [a.tokens for a in answers]),
        }


def known_questions(config: TrainConfig, tokenizer: PreTrainedTokenizerFast, *, synced: bool) -> KnownQuestions | None:
    """The known questions of a run, not yet found; None if its config asks for none."""
    return KnownQuestions(config, tokenizer, synced=synced) if config.evaluation.known else None
