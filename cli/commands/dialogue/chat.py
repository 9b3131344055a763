"""`memx chat`: talk to a model, with one cache for the whole chat."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import MemxError
from ...output.console import examples, note, say
from ...parsing.spellings import Command
from ..options import EVALUATE, Device, Runs, option
from .options import (
    Budget,
    DtypeOption,
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
    from ....experiments.dialogue.chat import Conversation

_EPILOG = examples(
    "memx chat smollm2",
    "memx chat smollm2 --policy snapkv --budget 256 --interval 64",
    'printf "Hello!\\nWho are you?\\n" | memx chat smollm2 --system "Be brief."',
)
_COMMANDS = "/reset starts a new chat, /quit or Ctrl-D leaves, Ctrl-C stops an answer"

System = Annotated[
    str | None, option(metavar="TEXT", help="System prompt, for models with a chat template.", default="the template's")
]
MaxTokens = Annotated[int, option(min=1, max=1_000_000, metavar="TOKENS", help="Longest answer in tokens.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("chat", cls=Command, epilog=_EPILOG, rich_help_panel=EVALUATE)(chat)


def chat(
    model: Model,
    system: System = None,
    max_tokens: MaxTokens = 256,
    sample: Sample = False,
    temperature: Temperature = None,
    policy: Policy = None,
    namm: Namm = None,
    budget: Budget = None,
    interval: Interval = None,
    runs: Runs = Path("results/runs"),
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DtypeOption = None,
) -> None:
    """Talk to a model in the terminal, with one KV cache that goes from turn to turn.

    After each answer it prints how many tokens the cache has read and kept, and its size. With --policy or --namm,
    tokens are evicted from the cache meanwhile. A model without a chat template continues what you write. Lines from a
    pipe are turns too.
    """
    from ....experiments.dialogue.chat import open_conversation
    from ....experiments.dialogue.model import ModelChoice
    from ....experiments.dialogue.sampling import Sampling

    choice = ModelChoice(
        model, runs=runs, policy=policy, namm=namm, budget=budget, every=interval, seed=seed, device=device,
        dtype=dtype and dtype.value,
    )  # fmt: skip
    sampling = Sampling(max_tokens, temperature_of(sample, temperature), seed=seed)
    with open_conversation(choice, sampling, system or "", note) as conversation:
        terminal = sys.stdin.isatty()
        if terminal:
            note(_COMMANDS)
        for text in _typed() if terminal else _piped():
            if not _command(text, conversation):
                continue
            try:
                _turn(text, conversation)
            except MemxError as error:
                if not terminal:
                    raise
                note(f"error: {error.message}\nhint: {error.hint}")


def _command(text: str, conversation: Conversation) -> bool:
    """Do what a line that begins with a slash says; whether the line is a message for the model."""
    if text in ("/quit", "/exit"):
        raise typer.Exit
    if text == "/reset":
        conversation.reset()
        note("a new chat; the cache is empty")
    elif text.startswith("/"):
        note(_COMMANDS)
    return bool(text) and not text.startswith("/")


def _turn(text: str, conversation: Conversation) -> None:
    """Stream one answer; Ctrl-C ends it, and the chat goes on."""
    from ....experiments.runtime.signals import stop_on_signals

    with stop_on_signals(signal.SIGINT) as stop:
        turn = conversation.answer(text, lambda piece: say(piece, end=""), lambda: stop.asked)
    say("")
    ended = "stopped" if stop.asked else "cut off by --max-tokens or the context" if turn.stopped else ""
    rate = turn.tokens / max(turn.seconds, 1e-9)
    parts = [f"cache: {turn.cache}", f"read {turn.read:,} and wrote {turn.tokens:,} tokens, {rate:.3g} a second", ended]
    note(f"[{'; '.join(part for part in parts if part)}]")


def _typed() -> Iterator[str]:
    """The lines that a person types, until the end of input."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # input() then edits lines and knows the earlier ones
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            note(f"\n{_COMMANDS}")


def _piped() -> Iterator[str]:
    """The lines of a pipe or a file. Raises MemxError for text that is not UTF-8."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise MemxError(f"stdin is not UTF-8 text (line {number})", hint="convert it, as with iconv") from None
