"""A printed command of memx -> the same with smaller numbers, or with --dry-run. Nothing is taken away or spelt anew.

So an option, a preset or a key that memx does not know is still there to be refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from memx.cli.main import command_tree
from memx.cli.parsing.fallback import FALLBACK

ANYWHERE = ("--help", "-h", "--debug", "--version")
# printed for the reader to fill in, and what the tests fill in
PLACEHOLDERS = {"GPU": "h100", "GPUS": "64", "PRESET": "1.3b-64m-1t", "SET": "training.accumulate=8",
                "VARIANT": "memory+", "COMMAND": "train", "KEY=VALUE": "seed=1"}  # fmt: skip
PLANNED = ("train", "evolve-namm", "eval-namm")  # with --dry-run; test_commands.py also runs some of each
# the most that a number may be; those of a command are given where it prints none
MOST: dict[str, dict[str, float]] = {
    "evict": {"--new-tokens": 2},
    "eval": {"--limit": 2, "--answer-tokens": 2, "--batch": 4},
    "prepare": {"--vocabulary": 300, "--jobs": 1},
    "bench": {"--seconds": 0.01, "--steps": 1, "--context": 64, "--interval": 32, "--new-tokens": 2, "--slots": 1024,
              "--population": 4, "--threads": 1, "--batch": 2},
}  # fmt: skip
WORDS: dict[str, dict[str, str]] = {"plot": {"--formats": "png"}, "bench": {"--device": "cpu", "--compile": "none"}}
SET_BY = {"--slots": "--config"}  # what is left out where another option sets it
HERE = {"cuda": "cpu", "llama-8b": "tiny-llama"}  # where there is neither a GPU nor its memory


class Parsed(NamedTuple):
    """A command line of memx: the words of its command, that command, and its options and arguments in order."""

    path: tuple[str, ...]
    command: Any
    given: list[tuple[str | None, str | None]]  # option and value; None and an argument; option and None, a flag

    @property
    def arguments(self) -> list[str]:
        """What is no option and no value of one."""
        return [str(value) for option, value in self.given if option is None]

    def values(self, *options: str) -> list[str]:
        """The values of options."""
        return [str(value) for option, value in self.given if option in options]

    def line(self) -> list[str]:
        """The arguments for `memx.cli.main.run`."""
        return [*self.path, *(part for pair in self.given for part in pair if part is not None)]


@cache
def whole() -> Any:
    """All commands of memx."""
    return command_tree()


def group_of(path: Sequence[str]) -> Any:
    """The command or group of commands that words name."""
    command = whole()
    for word in path:
        command = command.commands[word]
    return command


def parse(arguments: Sequence[str]) -> Parsed:
    """Take a command line apart by the options that its command knows; others are left as they are."""
    command = whole()
    path, rest = [], list(arguments)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest[0]]
        path.append(rest.pop(0))
    command = getattr(command, "commands", {}).get(FALLBACK, command)
    known = options_of(command)
    given: list[tuple[str | None, str | None]] = []
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option not in known:
            given.append((word, None) if word.startswith("--") else (None, word))
        elif known[option].is_flag or (not equals and not rest):
            given.append((word, None))
        else:
            given.append((option, value if equals else rest.pop(0)))
    return Parsed(tuple(path), command, given)


def unknown(parsed: Parsed) -> list[str]:
    """The options of a command that its help does not show, old spellings among them."""
    known = options_of(parsed.command)
    options = [option.partition("=")[0] for option, _ in parsed.given if option is not None]
    return [one for one in options if one not in ANYWHERE and (one not in known or known[one].hidden)]


def options_of(command: Any) -> dict[str, Any]:
    """Every spelling of an option of a command, and the option."""
    found = [one for one in command.params if one.param_type_name == "option"]
    return {name: one for one in found for name in (*one.opts, *one.secondary_opts)}


def small(arguments: Sequence[str]) -> Parsed:
    """The same command, of seconds."""
    parsed = parse([PLACEHOLDERS.get(word, word) for word in arguments])
    if not parsed.path:
        return parsed
    name, known = parsed.path[0], options_of(parsed.command)
    most, words = MOST.get(name, {}), WORDS.get(name, {})
    given = [(option, _smaller(option, value, most, words)) for option, value in parsed.given]
    used = {option for option, _ in given}
    for option, value in {**most, **words}.items():
        if option in known and not used & {option, SET_BY.get(option, option)} and not known[option].hidden:
            given.append((option, str(value)))
    if "--dry-run" in known and "--dry-run" not in used and (name in PLANNED or "--harness" in used):
        given.append(("--dry-run", None))
    return parsed._replace(given=given)


def _smaller(option: str | None, value: str | None, most: dict[str, float], words: dict[str, str]) -> str | None:
    """A value that is at most what its option may be; one that is no number is left for memx to refuse."""
    if value is None or option is None:
        return value
    if option in words and option != "--device":
        return words[option] if value in _choices(value, words[option]) else value
    if option == "--shapes":
        return re.sub(r"=\d+(\^\d+)?", lambda match: f"={min(_number(match[0][1:]), 32)}", value)
    if option in most and re.fullmatch(r"[\d.]+", value):
        return str(min(_number(value), int(most[option]) if most[option] >= 1 else most[option]))
    return HERE.get(value, value)


def _choices(value: str, small: str) -> Sequence[str]:
    """What a word may have been to become the small one."""
    return [value] if small == "png" and set(value.split(",")) <= {"png", "svg", "pdf"} else ("all", "last", "none")


def _number(text: str) -> int | float:
    base, _, power = text.partition("^")
    return int(base) ** int(power or 1) if base.isdigit() else float(text)
