"""Every command that the pages, and the ends of `--help`, print for people to paste."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .markdown import SHELL, blocks, name_of, pages
from .shrink import whole

# what begins a line of a command; other lines of an indented block are output, YAML and the like
PROGRAMS = ("memx", "torchrun", "make", "pip", "hf", "python", "python3", "pytest")
UNCHECKED = (".", "cd", "git", "source", "export", "ls", "cat", "head", "less", "open", "mkdir", "rm", "ruff", "mkdocs",
             "nvidia-smi", "iconv", "for", "do", "done", "tar", "wget", "curl", "echo")  # fmt: skip
_ASSIGNED = re.compile(r"^(?:[A-Z_]+=\S* +)+")
_INLINE = re.compile(r"(?<!`)`(memx [^`\n]+)`(?!`)")


@dataclass
class Printed:
    """A command as it is printed, and each place that prints it."""

    line: str
    places: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.places[0]} {self.line}"


def commands() -> list[Printed]:
    """The commands of all pages and of all help, each once."""
    return _once([*of_pages(), *of_help()])


def mentions() -> list[Printed]:
    """Commands within a sentence or a table of a page."""
    return _once((match[1], f"{name_of(page)}:{block.line}")
                 for page in pages() for block in blocks(page) if block.kind != "code"
                 for match in _INLINE.finditer(block.text))  # fmt: skip


def _once(found: Any) -> list[Printed]:
    each: dict[str, Printed] = {}
    for line, place in found:
        each.setdefault(line, Printed(line)).places.append(place)
    return list(each.values())


def of_pages() -> Iterator[tuple[str, str]]:
    """Command and place of each that stands in a block of code of a page."""
    for page in pages():
        for block in blocks(page):
            if block.kind == "code" and block.language in ("", *SHELL):
                for number, line in of_block(block.text, block.line, all_lines=block.language in SHELL):
                    yield line, f"{name_of(page)}:{number}"


def of_block(text: str, first: int, *, all_lines: bool = False) -> Iterator[tuple[int, str]]:
    """Number and text of each command in a block.

    all_lines: Every line is a command, as in a block of shell; those that only lead to one are left out.
    """
    number, lines = first, text.split("\n")
    while lines:
        start, line = number, lines.pop(0).removeprefix("$ ")
        number += 1
        while line.rstrip().endswith("\\") and lines:
            line = line.rstrip()[:-1].rstrip() + " " + lines.pop(0).strip()
            number += 1
        line = without_comment(line).strip()
        for part in re.split(r" && | \|\| |; ", line) if line else ():
            first = _ASSIGNED.sub("", part.strip()).split(" ")[0]
            known = first in PROGRAMS or first.startswith(".venv/bin/")
            if known or (all_lines and first not in UNCHECKED):
                yield start, part.strip()


def without_comment(line: str) -> str:
    """A line of shell without what follows a # outside of quotes."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place]
    return line


def of_help() -> Iterator[tuple[str, str]]:
    """Command and place of each example at the end of a --help."""
    for path, command in walk():
        epilog = re.sub(r"\[/?bold\]", "", command.epilog or "").partition("Examples:")[2]
        for _, line in of_block("\n".join(part.strip() for part in epilog.split("\n")), 0):
            yield line, f"{path} --help"


def walk() -> Iterator[tuple[str, Any]]:
    """Every command of the command line that help shows, with its words: `memx`, `memx train`, `memx config copy`."""
    waiting: list[tuple[str, Any]] = [("memx", whole())]
    while waiting:
        path, command = waiting.pop(0)
        yield path, command
        below = getattr(command, "commands", {})
        waiting += [(f"{path} {name}", one) for name, one in below.items() if not one.hidden]
