"""Questions and answers as turns of a chat -> the tokens of a tokenizer's chat template.

Source of the form: `apply_chat_template` of transformers, with its prompt for the next answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
from .tokenizer import encode_text, special_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Turn = tuple[str, str | None]  # a question and its answer; None for the question that the model answers
# models that may think first answer at once; other templates do not read this
_OPTIONS: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
_MARK = "\ue000{}\ue001"  # a private character of Unicode, which no text of a user has


def check_chat(tokenizer: PreTrainedTokenizerFast, model: str) -> None:
    """Check that a tokenizer has a chat template that takes questions and answers by turns.

    Args:
        tokenizer: The tokenizer.
        model: The name of its model, for errors.

    Raises:
        MemxError: It has none, or its template fails.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise MemxError(
            f"--chat: the tokenizer of {model} has no chat template",
            hint="leave out --chat, or evaluate an instruct model",
        )
    try:
        _text(tokenizer, [("a", "b"), ("c", None)])
    except (ImportError, TypeError, ValueError, TemplateError) as error:
        reason = " ".join(str(error).split())
        raise MemxError(
            f"--chat: the chat template of {model} cannot be used: {reason[:160]}", hint="leave out --chat"
        ) from None


def chat_ids(tokenizer: PreTrainedTokenizerFast, turns: Sequence[Turn]) -> list[int]:
    """The tokens of a chat up to where the model's answer begins; special tokens in its texts are ordinary text.

    Args:
        tokenizer: A tokenizer that `check_chat` takes.
        turns: Questions with their answers; the last one without.

    Returns:
        The tokens.

    Raises:
        MemxError: A text is no Unicode, or cannot be read as ordinary text.
    """
    texts = [text for turn in turns for text in turn if text is not None]
    if not any(special_texts(tokenizer, text) for text in texts):
        return _ids(tokenizer, _text(tokenizer, turns))
    marks = iter(range(len(texts)))
    marked = [(_MARK.format(next(marks)), None if answer is None else _MARK.format(next(marks))) for _, answer in turns]
    rest, ids = _text(tokenizer, marked), []
    for number, text in enumerate(texts):
        before, _, rest = rest.partition(_MARK.format(number))
        ids += [*_ids(tokenizer, before), *encode_text(tokenizer, text, begin=False)]
    return [*ids, *_ids(tokenizer, rest)]


def _text(tokenizer: PreTrainedTokenizerFast, turns: Sequence[Turn]) -> str:
    messages: list[dict[str, str]] = []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages += [{"role": "assistant", "content": answer}] if answer is not None else []
    return str(tokenizer.apply_chat_template(messages, **_OPTIONS))


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: Any = tokenizer(text, add_special_tokens=False, split_special_tokens=False, verbose=False)
    return list(found["input_ids"])


def turn_ids(tokenizer: PreTrainedTokenizerFast, text: str, *, first: bool, system: str = "") -> list[int]:
    """The tokens that a turn of the user adds to a chat, up to where the model's answer begins.

    Of a later turn they begin with what the template puts after an answer, such as the end token.

    Args:
        tokenizer: A tokenizer that `check_chat` takes.
        text: What the user writes; special tokens in it are ordinary text.
        first: Whether it is the first turn.
        system: The system prompt of the chat; empty for the template's own.

    Returns:
        The tokens.

    Raises:
        MemxError: The template has no place for a system prompt, or a text cannot be read as ordinary text.
    """
    from jinja2 import TemplateError

    places = [_MARK.format(number) for number in range(3)]
    messages = [{"role": "system", "content": places[0]}] if system else []
    messages += [] if first else [{"role": "user", "content": "a"}, {"role": "assistant", "content": places[1]}]
    messages.append({"role": "user", "content": places[2]})
    try:
        whole = str(tokenizer.apply_chat_template(messages, **_OPTIONS))
    except (TypeError, ValueError, TemplateError) as error:
        raise MemxError(
            f"the chat template takes no such turn: {' '.join(str(error).split())[:160]}", hint="leave out --system"
        ) from None
    if not first:
        return _with_texts(tokenizer, whole.partition(places[1])[2], {places[2]: text})
    return _with_texts(tokenizer, whole, {places[0]: system, places[2]: text} if system else {places[2]: text})


def _with_texts(tokenizer: PreTrainedTokenizerFast, whole: str, texts: dict[str, str]) -> list[int]:
    """The tokens of a template's text, in which the texts of users stand in place of marks."""
    ids: list[int] = []
    for mark, text in texts.items():
        before, _, whole = whole.partition(mark)
        ids += [*_ids(tokenizer, before), *encode_text(tokenizer, text, begin=False)]
    return [*ids, *_ids(tokenizer, whole)]
