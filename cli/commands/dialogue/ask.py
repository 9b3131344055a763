"""`memx ask`: put questions to a trained or named model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import MemxError
from ...output.console import examples, note, print_json, print_table, say
from ...parsing.spellings import Command
from ..options import EVALUATE, RUN_FOLDER, Device, Runs, option
from .options import (
    Budget,
    DtypeOption,
    Form,
    Interval,
    Model,
    Namm,
    Policy,
    Sample,
    Seed,
    Temperature,
    temperature_of,
)

if TYPE_CHECKING:
    from ....experiments.dialogue.ask import Answered

_EPILOG = examples(
    'memx ask results/runs/RUN "LHR is in which country?"',
    'memx ask results/runs/RUN "LHR is in which country?" --top 3',
    "memx ask results/runs/RUN --file questions.txt --json",
    'memx ask smollm2 "Who is the author?" --context prompt.txt --policy snapkv',
)
_STDIN = "-"

Questions = Annotated[
    list[str] | None, typer.Argument(metavar="QUESTION...", help="One or more questions; - reads them from stdin.")
]
File = Annotated[Path | None, option(metavar="FILE", help="UTF-8 text file with one question per line; - is stdin.")]
FormOption = Annotated[
    Form,
    option(
        help="Ask as trained (plain), as Question: … Answer: (question), or by chat template; auto picks.",
    ),
]
MaxTokens = Annotated[int, option(min=1, max=10_000, metavar="TOKENS", help="Longest answer in tokens.")]
Top = Annotated[int, option(min=1, max=50, metavar="K", help="Print the K likeliest answers, by beam search.")]
Context = Annotated[Path | None, option(metavar="FILE", help="UTF-8 text file that is read before each question.")]
JsonOption = Annotated[bool, option("--json", help="Print answers as JSON on stdout.", panel=RUN_FOLDER)]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("ask", cls=Command, epilog=_EPILOG, rich_help_panel=EVALUATE)(ask)


def ask(
    model: Model,
    questions: Questions = None,
    file: File = None,
    context: Context = None,
    form: FormOption = Form.auto,
    max_tokens: MaxTokens = 32,
    sample: Sample = False,
    temperature: Temperature = None,
    top: Top = 1,
    json: JsonOption = False,
    policy: Policy = None,
    namm: Namm = None,
    budget: Budget = None,
    interval: Interval = None,
    runs: Runs = Path("results/runs"),
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DtypeOption = None,
) -> None:
    """Ask a trained or pretrained model questions, and print its answers.

    A model trained on facts is asked as it was trained, and knows only those phrasings: a question in other words gets
    a note with three that it knows. Other models read Question: … Answer:. With --policy or --namm, a cache that evicts
    reads the context and the question.
    """
    texts = _questions(questions, file)
    from ....experiments.dialogue.ask import AskConfig
    from ....experiments.dialogue.ask import ask as ask_model
    from ....experiments.dialogue.model import ModelChoice
    from ....experiments.dialogue.sampling import Sampling

    choice = ModelChoice(
        model, runs=runs, policy=policy, namm=namm, budget=budget, every=interval, seed=seed, device=device,
        dtype=dtype and dtype.value,
    )  # fmt: skip
    sampling = Sampling(max_tokens, temperature_of(sample, temperature), top, seed)
    config = AskConfig(choice, texts, form.value, "" if context is None else _read(context), sampling)
    answered = ask_model(config, note)
    if json:
        print_json([asdict(one) for one in answered])
        return
    _print(answered)


def _print(answered: Sequence[Answered]) -> None:
    """Print one answer as a line, and several as a table."""
    if len(answered) == 1 and len(answered[0].answers) == 1:
        say(answered[0].answers[0].text)
        if not answered[0].answers[0].text:
            note("note: the model ended its answer at once")
    else:
        cells = [
            (one.question if place == 0 else "", answer.text, f"{answer.probability:.3f}")
            for one in answered
            for place, answer in enumerate(one.answers)
        ]
        print_table("Answers", ["question", "answer", "probability"], cells, left=2)
    for one in answered:
        if one.cache is not None:
            note(f"cache: {one.cache}" if len(answered) == 1 else f"cache after {one.question[:60]!r}: {one.cache}")


def _questions(given: Sequence[str] | None, file: Path | None) -> list[str]:
    """The questions of the arguments, or those of a file. Raises MemxError for none or both."""
    texts = [*(given or [])]
    if bool(texts) == (file is not None):
        problem = "questions and --file exclude each other" if texts else "no question"
        raise MemxError(problem, hint='memx ask MODEL "a question?", or --file questions.txt, or - for stdin')
    source = file if file is not None else Path(_STDIN) if texts == [_STDIN] else None
    if source is None:
        return texts
    lines = [line.strip() for line in _read(source).splitlines()]
    if not any(lines):
        raise MemxError(f"{'stdin' if str(source) == _STDIN else source} has no questions", hint="one on each line")
    return [line for line in lines if line]


def _read(path: Path) -> str:
    """The text of a file or of stdin. Raises MemxError if it cannot be read."""
    name = "stdin" if str(path) == _STDIN else str(path)
    try:
        data = sys.stdin.buffer.read() if name == "stdin" else path.expanduser().read_bytes()
    except OSError as error:
        raise MemxError(f"cannot read {name}: {error.strerror}", hint="give a UTF-8 text file, or -") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise MemxError(f"{name} is not UTF-8 text (line {line})", hint="convert it, as with iconv -t utf-8") from None
