"""lm-eval's class for a model of transformers, with memx's progress; counts what the model's context has no room for.

lm-eval cuts a prompt at its start until it fits, and fails where an answer alone does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
from ..runtime.events import Progress, Report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# what a task may call the longest answer in tokens, in lm-eval's order of priority
_MOST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class Cuts:
    """What did not fit in the context, by task of lm-eval, and how many questions a policy evicted tokens of.

    Attributes:
        context: Tokens that the model reads and writes together.
        every: Tokens between evictions; None without a policy.
    """

    def __init__(self, context: int, every: int | None = None) -> None:
        self.context, self.every = context, every
        self._evicted: dict[str, set[int]] = {}
        self._questions: dict[str, set[int]] = {}
        self._tokens: dict[str, int] = {}
        self._answers: dict[str, int] = {}

    def prompt(self, request: Any, tokens: int) -> None:
        """Note by how many tokens a prompt is too long; 0 or less for one that fits."""
        if tokens > 0:
            self._questions.setdefault(request.task_name, set()).add(request.doc_id)
            self._tokens[request.task_name] = max(tokens, self._tokens.get(request.task_name, 0))

    def read(self, request: Any, before: int) -> None:
        """Note how many tokens, at least, are read before one that is scored or written."""
        if self.every is not None:
            found = self._evicted.setdefault(request.task_name, set())
            found |= {request.doc_id} if min(before, self.context) >= self.every else set()

    def answer(self, request: Any, most: int) -> None:
        """Note that answers of a task have no more tokens than these."""
        self._answers[request.task_name] = most

    def as_json(self) -> dict[str, dict[str, int]]:
        """For each task what there is of the following.

        `cut_questions`, the tokens that the longest lost (`cut_tokens`), `answer_tokens`, and `evicted_questions`.
        """
        cut = {
            task: {"cut_questions": len(found), "cut_tokens": self._tokens[task]}
            for task, found in self._questions.items()
        }
        answers = {task: {"answer_tokens": most} for task, most in self._answers.items()}
        evicted = {task: {"evicted_questions": len(found)} for task, found in self._evicted.items()}
        parts = (cut, answers, evicted)
        return {
            task: {k: v for part in parts for k, v in part.get(task, {}).items()} for part in parts for task in part
        }


def lm_eval_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    cuts: Cuts,
    *,
    batch: int,
    task: str,
    report: Report,
    check: Callable[[], None],
    chat: bool = False,
) -> Any:
    """Make lm-eval's model of a loaded one.

    Args:
        model: The model, on its device.
        tokenizer: Its tokenizer.
        cuts: Gets what does not fit.
        batch: How many requests are answered at once.
        task: The name of the task or group, for the progress.
        report: Called with the progress.
        check: Called at every batch; may raise to stop.
        chat: Whether prompts are chats, whose template is made of special tokens.
    """
    base: Any = import_module("lm_eval.models.huggingface").HFLM

    class Model(base):
        """Counts requests as they are answered; requests that share a text are answered together."""

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._start(requests)
            for request in requests:
                text, settings = request.args
                named = next((key for key in _MOST if settings.get(key) is not None), None)
                most = int(settings[named]) if named else self.max_gen_toks
                if most >= cuts.context:
                    most = max(cuts.context // 2, 1)
                    kept = {key: value for key, value in settings.items() if key not in _MOST}
                    request.arguments = (text, {**kept, "max_gen_toks": most})
                    cuts.answer(request, most)
                tokens = len(self.tok_encode(text))
                cuts.prompt(request, tokens - (cuts.context - most))
                cuts.read(request, min(tokens, cuts.context - most))
            return super().generate_until(requests, disable_tqdm=True)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._start(requests)
            self.asked = requests
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._start(requests)
            self.asked = []  # long texts are read in windows, and nothing is cut
            for request in requests:
                cuts.read(request, len(self.tok_encode(request.args[0])))
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, *rest: Any, **options: Any) -> Any:
            for request, (_, context, answer) in zip(self.asked, requests, strict=False):
                if len(answer) > cuts.context:
                    raise MemxError(
                        f"lm-eval {request.task_name}: an answer of {len(answer):,} tokens does not fit in the "
                        f"context of {cuts.context:,}",
                        hint="use a model with a longer context",
                    )
                cuts.prompt(request, len(context) + len(answer) - (cuts.context + 1))
                cuts.read(request, min(len(context) + len(answer), cuts.context + 1) - 2)
            return super()._loglikelihood_tokens(requests, *rest, **options)

        def _model_generate(self, context: Any, *rest: Any, **options: Any) -> Any:
            written = super()._model_generate(context, *rest, **options)
            self._count(len(context))
            return written

        def _model_call(self, inps: Any, *rest: Any, **options: Any) -> Any:
            logits = super()._model_call(inps, *rest, **options)
            self._count(len(inps))
            return logits

        def _start(self, requests: Any) -> None:
            self.answered, self.total, self.last = 0, len(requests), perf_counter()

        def _count(self, answered: int) -> None:
            check()
            now = perf_counter()
            seconds, self.last = (now - self.last) / answered, now
            self.answered = min(self.answered + answered, self.total)
            report(Progress(self.answered, self.total, f"lm-eval {task}", seconds))

    tokenizer.split_special_tokens = not chat  # what a question spells out is ordinary text
    settings: dict[str, Any] = {"enable_thinking": False} if chat else {}
    settings |= {"backend": "causal", "batch_size": batch, "max_length": cuts.context}
    return Model(pretrained=model, tokenizer=tokenizer, **settings)
