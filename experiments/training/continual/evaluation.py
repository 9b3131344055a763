"""What a continual-learning run is asked after each part of its facts: new facts, earlier ones, and what was known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...config.training import TrainConfig
from ...data.facts.parts import split_parts
from ...data.facts.questions import FactSplit, Question, question_sets
from ...metrics.estimates import Estimate
from ..fact_qa import estimates, sample_questions

if TYPE_CHECKING:
    from ....memory_layers.llama import MemoryLlamaForCausalLM

# name of what was asked -> metric -> figure
PartScores = dict[str, dict[str, Estimate]]
Ask = Callable[["MemoryLlamaForCausalLM", Mapping[str, Sequence[Question]]], dict[str, list]]
Kept = Callable[["MemoryLlamaForCausalLM"], PartScores]


class PartEvaluator:
    """Asks a model after each part, at most `evaluation.questions` of each set.

    Args:
        config: Of the run, with `finetune.parts`.
        split: Its facts.
        ask: Asks a model sets of questions, by name.
        kept: Measures what a model still knows of what it knew before: known questions, and text.
    """

    def __init__(self, config: TrainConfig, split: FactSplit, ask: Ask, kept: Kept) -> None:
        assert config.finetune.parts is not None
        self.config, self.ask, self.kept = config, ask, kept
        parts = split_parts(split.trained, config.finetune.parts, split.seed)
        self.subjects = [{fact.subject for fact in facts} for facts in parts]
        self.questions = question_sets(FactSplit(split.trained, [], split.seed, split.wording))

    def sets(self, part: int) -> dict[str, list[Question]]:
        """The questions after part `part` (from 0): of the part just learned, and of all earlier ones.

        Both are asked in both phrasings: `new/seen`, `new/rephrased`, `earlier/seen` and `earlier/rephrased`.
        """
        asked: dict[str, list[Question]] = {}
        earlier = set[str]().union(*self.subjects[:part])
        for name, subjects in (("new", self.subjects[part]), ("earlier", earlier)):
            if subjects:
                asked |= {
                    f"{name}/{tier}": [q for q in qs if q.subject in subjects] for tier, qs in self.questions.items()
                }
        return sample_questions(asked, self.config.evaluation.questions, self.config.data.seed)

    def measure(self, model: MemoryLlamaForCausalLM, part: int) -> PartScores:
        """Everything that is asked after a part: facts, known questions, and the loss on ordinary text."""
        asked = self.sets(part)
        # one call, so that questions of all sets share batches; each set's answers are taken out again
        together = [question for questions in asked.values() for question in questions]
        answers = self.ask(model, {"all": together})["all"]
        scores: PartScores = {}
        for name, questions in asked.items():
            scores[name] = estimates(answers[: len(questions)])
            answers = answers[len(questions) :]
        return scores | self.kept(model)


def as_scores(found: Mapping[str, Mapping[str, Sequence]]) -> PartScores:
    """Scores as a saved state holds them, with lists of figures, as `PartEvaluator.measure` gives them."""
    return {name: {metric: Estimate(*values) for metric, values in one.items()} for name, one in found.items()}
