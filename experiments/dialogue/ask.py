"""Questions to a model -> its answers, asked in the form that the model was trained on or that suits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ...errors import MemxError
from ..base_models.rope import check_positions
from ..data.chat import chat_ids, check_chat
from ..data.tokenizer import check_unicode, encode_text
from ..models.generation import end_tokens, log_likelihoods
from .cache_sizes import CacheSizes, cache_sizes
from .forms import Forms, forms_of
from .model import Loaded, ModelChoice, load
from .sampling import Sampling

FormName = Literal["auto", "plain", "question", "chat"]
_WHY = {
    "phrasing": "not in a phrasing that this model was trained on",
    "subject": "about something that this model was not trained on",
}
_BETWEEN = "\n\n"  # a context and the question after it


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: Without the blanks around it.
        probability: The model's own, of all its tokens together, its end included.
    """

    text: str
    probability: float


@dataclass(frozen=True)
class Answered:
    """A question and what the model answered.

    Attributes:
        question: The question.
        prompt: What the model read, without the context.
        known: Whether the model was trained on this question, or on its phrasing if the facts are gone; None if memx
            does not know.
        answers: One, or the likeliest ones, the likeliest first.
        cache: What the cache has after the answer; None without a policy.
    """

    question: str
    prompt: str
    known: bool | None
    answers: tuple[Answer, ...]
    cache: CacheSizes | None = None


@dataclass(frozen=True)
class AskConfig:
    """What is asked.

    Attributes:
        model: The model, and its policy.
        questions: The questions.
        form: question writes `Question: … Answer:`, chat uses the tokenizer's chat template, and plain continues the
            question as it is; auto is plain for runs of memx train, and question for others.
        context: A text that is read before each question; empty without one.
        sampling: How answers are written.
    """

    model: ModelChoice
    questions: Sequence[str]
    form: FormName = "auto"
    context: str = ""
    sampling: Sampling = field(default_factory=Sampling)


def ask(config: AskConfig, progress: Callable[[str], None] = lambda text: None) -> list[Answered]:
    """Ask a model.

    Args:
        config: The questions, the model and how it answers.
        progress: Gets a line for each thing that takes time, and what was noticed.

    Returns:
        For each question its answers.

    Raises:
        MemxError: There are no questions, or one does not fit in the model's context; or the model cannot be loaded.
    """
    questions = [question.strip() for question in config.questions]
    if not questions or not all(questions):
        raise MemxError("a question is empty" if questions else "no questions", hint='memx ask MODEL "a question?"')
    for text in (*questions, config.context):
        check_unicode(text)
    config.sampling.check()
    loaded = load(config.model, progress)
    asker = _Asker(config, loaded)
    prompts = [asker.prompt(question) for question in questions]
    for ids in prompts:
        _check_length(len(ids), config, loaded)
    if asker.forms is not None:
        for what in _WHY:
            strange = [one for one in questions if asker.forms.unknown(asker.text(one)) == what]
            if strange:
                progress(_unknown(strange, what, asker.forms))
    torch.manual_seed(config.sampling.seed)
    with loaded.evicting() as attached:
        found = [asker.answer(question, ids, attached) for question, ids in zip(questions, prompts, strict=True)]
    return found


class _Asker:
    """Asks one loaded model."""

    def __init__(self, config: AskConfig, loaded: Loaded) -> None:
        self.config, self.loaded = config, loaded
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.form = _form(config.form, loaded)
        self.forms = forms_of(loaded.source.run) if loaded.source.run is not None and self.form == "plain" else None
        if self.form == "chat":
            check_chat(self.tokenizer, loaded.source.label)
        self.ends = [*end_tokens(self.model), *(_line_ends(self.tokenizer) if self.form == "question" else [])]

    def text(self, question: str) -> str:
        """What the model reads of a question."""
        if self.form == "question":
            return f"Question: {question}\nAnswer:"
        return question if self.forms is None else self.forms.put(question)

    def prompt(self, question: str) -> list[int]:
        """The tokens of a question, after the context if there is one."""
        before = self.config.context.rstrip() + _BETWEEN if self.config.context.strip() else ""
        text = before + self.text(question)
        return chat_ids(self.tokenizer, [(text, None)]) if self.form == "chat" else encode_text(self.tokenizer, text)

    @torch.no_grad()
    def answer(self, question: str, ids: list[int], attached: Any) -> Answered:
        """Answer one question."""
        prompt = torch.tensor([ids], device=self.model.device)
        sampling = self.config.sampling
        settings = sampling.config(self.model, output_logits=True, output_scores=True, return_dict_in_generate=True)
        settings.eos_token_id = self.ends or None
        cache = None if attached is None else attached.new_cache()
        generate: Any = self.model.generate
        output = generate(
            prompt, attention_mask=torch.ones_like(prompt), generation_config=settings, past_key_values=cache
        )
        written = [self._until_end(row) for row in output.sequences[:, len(ids) :].tolist()]
        if sampling.top > 1:
            scores = output.sequences_scores.exp().tolist()
        else:
            logits = torch.cat([*output.logits])[: len(written[0])]  # [T, V]
            chosen = torch.tensor(written[0], device=logits.device)
            scores = [float(log_likelihoods(logits, chosen).sum().exp())]
        answers = [Answer(self._text(row), score) for row, score in zip(written, scores, strict=True)]
        known = None if self.forms is None else not self.forms.unknown(self.text(question))
        sizes = None if attached is None or sampling.top > 1 else cache_sizes(attached.cache)
        return Answered(question, self.text(question), known, tuple(answers), sizes)

    def _until_end(self, tokens: list[int]) -> list[int]:
        """The new tokens up to the first end, which is among them; padding may follow."""
        stop = next((place for place, token in enumerate(tokens) if token in self.ends), len(tokens))
        return tokens[: stop + 1]

    def _text(self, tokens: list[int]) -> str:
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        return (text.split("\n")[0] if self.form == "question" else text).strip()


def _form(asked: FormName, loaded: Loaded) -> FormName:
    return asked if asked != "auto" else "question" if loaded.source.run is None else "plain"


def _line_ends(tokenizer: Any) -> list[int]:
    """All tokens that end a line; the byte of a line's end is never parted."""
    marked = [number for token, number in tokenizer.get_vocab().items() if any(mark in token for mark in "\nĊ")]
    found = {number for number in marked if "\n" in str(tokenizer.decode([number]))}
    byte = tokenizer.get_vocab().get("<0x0A>")
    return sorted(found | ({byte} if byte is not None else set()))


def _check_length(tokens: int, config: AskConfig, loaded: Loaded) -> None:
    new = config.sampling.max_tokens
    check_positions(
        tokens + new, loaded.model.config, loaded.source.label, f"{tokens:,} prompt tokens and {new:,} new ones do",
        "shorten the question or --context, or lower --max-tokens",
    )  # fmt: skip


def _unknown(questions: Sequence[str], what: str, forms: Forms) -> str:
    """What to say of questions that the model was not trained on, in one note."""
    several = f"{questions[0]!r}" if len(questions) == 1 else f"{len(questions)} questions"
    known = "\n  ".join(forms.examples())
    return f"note: {several}: {_WHY[what]}, so expect a wrong answer; it knows e.g.\n  {known}"
