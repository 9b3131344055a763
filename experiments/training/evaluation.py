"""What a run is asked: questions on facts in tiers, the loss on ordinary text or on a corpus's held-out documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from ..config.training import TrainConfig
from ..data.facts.questions import FactSplit, Question, question_sets
from ..data.text import text_nll
from ..metrics.estimates import Estimate, ratio_estimate
from .continual.evaluation import PartEvaluator, PartScores
from .continual.known import known_questions
from .fact_qa import answer_questions, estimates, longest_answer, sample_questions
from .held_out_text import HeldOutText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ...memory_layers.llama import MemoryLlamaForCausalLM

CORPUS = "corpus"  # what rows call the held-out documents of a corpus


class CachedAnswers(Protocol):
    """Prompts that are answered from what a policy leaves of the cache."""

    def measure(self, model: MemoryLlamaForCausalLM) -> dict[str, Estimate]:
        """The right answers' mean log-likelihood by budget, nats a token."""
        ...


class Evaluator:
    """Measures what a model knows. Whoever calls it sets autocast, gathers weights and pauses the use statistics.

    synced: every rank asks the same questions, and none ends a generation before the others. cached: prompts that are
    answered from what a policy leaves of the cache.
    """

    def __init__(
        self,
        config: TrainConfig,
        split: FactSplit,
        tokenizer: PreTrainedTokenizerFast,
        notes: Callable[[str], None],
        synced: bool = False,
        cached: CachedAnswers | None = None,
    ) -> None:
        self.config, self.tokenizer, self.synced, self.cached = config, tokenizer, synced, cached
        self.questions = question_sets(split) if split.trained else {}
        longest = longest_answer(split.trained, tokenizer) + 1 if split.trained else 1
        # no longer than a row of training, which every trained answer fits in, whatever other spellings there are
        self.max_answer = min(max(config.evaluation.max_answer, longest), config.data.sequence)
        self.text = _text_of(config, tokenizer)
        self.known = known_questions(config, tokenizer, synced=synced)
        self.parts = PartEvaluator(config, split, self.ask, self.kept) if config.finetune.parts else None
        self.held_out = self._held_out(notes) if config.corpus.sources and config.corpus.held_out else None

    def during_training(self, model: MemoryLlamaForCausalLM) -> dict[str, dict[str, float]]:
        """Metrics of each tier, or of the held-out documents."""
        evaluation = self.config.evaluation
        drawn = sample_questions(self.questions, evaluation.questions, self.config.data.seed)
        metrics = {}
        for tier, answers in self.ask(model, drawn).items():
            metrics[tier] = {metric: estimate.value for metric, estimate in estimates(answers).items()}
        if self.held_out is not None:
            metrics[CORPUS] = {"nll": self._held_out_nll(model).value}
        for budget, estimate in self.cached_answers(model).items():
            metrics[f"{budget} of the cache"] = {"log_likelihood": estimate.value}
        return metrics

    def before_training(self, model: MemoryLlamaForCausalLM) -> dict[str, Any]:
        """What a pretrained model knows before it is trained."""
        answers = self.ask(model, self._final_questions())
        known: dict[str, Any] = {"answers": {tier: estimates(given)["exact_match"] for tier, given in answers.items()}}
        if self.known is not None:
            self.known.find(model)
            known["known"] = self.known.measure(model)
        if (text := self.measure_text(model)) is not None:
            known["text"] = text
        if cached := self.cached_answers(model):
            known["cached"] = cached
        return known

    def cached_answers(self, model: MemoryLlamaForCausalLM) -> dict[str, Estimate]:
        """The right answers' log-likelihood at each budget of the cache; empty without such prompts."""
        return {} if self.cached is None else self.cached.measure(model)

    def final_answers(self, model: MemoryLlamaForCausalLM) -> dict[str, list]:
        """The answers to the final questions, by tier."""
        return self.ask(model, self._final_questions())

    def measure_text(self, model: MemoryLlamaForCausalLM) -> Estimate | None:
        """NLL in nats per token of ordinary text, or of the corpus's held-out documents; None without either."""
        if self.text is None:
            return self._held_out_nll(model) if self.held_out is not None else None
        return self.text.measure(model)

    def kept(self, model: MemoryLlamaForCausalLM) -> PartScores:
        """What the model still knows of what it knew before: known questions, and the loss on ordinary text."""
        scores: PartScores = {}
        if self.known is not None:
            scores["known"] = self.known.measure(model)
        if (text := self.measure_text(model)) is not None:
            scores["text"] = {"nll": text}
        return scores

    @property
    def dataset(self) -> str:
        """What rows call the text that `measure_text` measures."""
        return f"text/{self.config.text.source}" if self.text is not None else CORPUS

    def common_text(self) -> Tensor | None:
        """Blocks [R, S] of what the model is to be at home in, the same on every rank."""
        return self.text.training if self.text is not None else self.held_out

    def _held_out(self, notes: Callable[[str], None]) -> Tensor | None:
        from ..data.corpus.held_out import held_out_blocks

        corpus, sequence = self.config.corpus, self.config.data.sequence
        blocks = held_out_blocks(corpus, self.tokenizer, sequence, corpus.blocks, notes=notes)
        return blocks if len(blocks) else None

    def _held_out_nll(self, model: MemoryLlamaForCausalLM) -> Estimate:
        assert self.held_out is not None
        measured = text_nll(model, self.held_out)
        return ratio_estimate([nll for nll, _ in measured], [tokens for _, tokens in measured])

    def _final_questions(self) -> dict[str, list[Question]]:
        return sample_questions(self.questions, self.config.evaluation.final_questions, self.config.data.seed)

    def ask(self, model: MemoryLlamaForCausalLM, sets: Mapping[str, Sequence[Question]]) -> dict[str, list]:
        """The answers to sets of questions, by the name of each."""
        how = {"batch": self.config.evaluation.batch, "max_answer": self.max_answer, "synced": self.synced}
        return {tier: answer_questions(model, self.tokenizer, questions, **how) for tier, questions in sets.items()}


def _text_of(config: TrainConfig, tokenizer: PreTrainedTokenizerFast) -> HeldOutText | None:
    if not config.text.source:
        return None
    return HeldOutText(config.text, tokenizer, config.data.seed, config.training.steps)
