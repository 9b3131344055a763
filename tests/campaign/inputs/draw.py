"""A number -> one input: a command line of memx, its surroundings, a file that is damaged, and how it is to be met.

Numbers go round the families, and each family goes round its own cases in an order that the seed gives, so that every
option of every command and every key of every config is met again and again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from ..forks import Call
from .families import FAMILIES
from .surface import commands

# how often each family comes; the sum is one round
_ROUND = ("option",) * 8 + ("key",) * 6 + ("damage",) * 4 + ("yaml",) * 3 + ("surroundings",) + ("words",) * 2


@dataclass(frozen=True)
class Input:
    """One input: its number and family, the call, how it is to be met, and a file to damage before it runs."""

    number: int
    family: str
    call: Call
    met: str
    damaged: str = ""
    harm: Callable[[bytes], bytes] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The words that name the command, for the totals."""
        known = {one.path for one in commands()}
        words = self.call.arguments
        return " ".join(next((words[:n] for n in (2, 1) if words[:n] in known), ("other",)))

    def line(self) -> str:
        """The command as one line of shell."""
        variables = "".join(f"{name}={quoted(value)} " for name, value in self.call.environment.items())
        closed = "".join({"stdin": " <&-", "stdout": " >&-", "stderr": " 2>&-"}[name] for name in self.call.closed)
        full = " >/dev/full" if self.call.full else ""
        return f"{variables}memx {' '.join(map(quoted, self.call.arguments))}{closed}{full}"

    def prepare(self, work: Path) -> None:
        """Damage the file, and write others."""
        if self.harm is not None:
            path = work / self.damaged
            path.write_bytes(self.harm(path.read_bytes()))
        for name, content in self.files.items():
            (work / name).write_bytes(content)


def quoted(word: str) -> str:
    """A word as a shell takes it, whatever bytes are in it."""
    if word.isprintable() and max(word, default="") < "\udc80":
        return shlex.quote(word)
    return "$'" + "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in word.encode("utf-8", "surrogateescape")
    ) + "'"  # fmt: skip


def input_of(number: int, seed: int, master: Path, only: str = "") -> Input:
    """The input of a number.

    Args:
        number: From 0.
        seed: Of the campaign.
        master: The workspace, whose files are there to be damaged.
        only: Words that name the one command to fuzz; empty: all.
    """
    rounds, place = divmod(number, len(_ROUND))
    family = _ROUND[place]
    nth = rounds * _ROUND.count(family) + place - _ROUND.index(family)
    random = Random(f"{seed}/{number}")
    call, met, more = FAMILIES[family](nth, seed, random, master, only)
    return Input(number, family, call, met, **more)
