"""The families of inputs: each goes round its own cases, and gives a call, how it is to be met, and files to damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from ..forks import Call
from . import yaml_files
from .bases import READERS, Base, bases, bases_of
from .damage import damage
from .surface import CONFIGS, Command, Key, Parameter, commands, keys
from .values import NAMES, NO_NUMBERS, ODD, VALID, WRONG, of_key, of_parameter

T = TypeVar("T")
Made = tuple[Call, str, dict[str, Any]]


def _nth(cases: Callable[..., Sequence[T]], seed: int, nth: int, *given: Any) -> T:
    """The n-th of the cases, which come in an order of their own in each lap through them."""
    lap, place = divmod(nth, len(cases(*given)))
    return _order(cases, seed, lap, *given)[place]


@lru_cache(maxsize=64)
def _order(cases: Callable[..., Sequence[T]], seed: int, lap: int, *given: Any) -> list[T]:
    order = list(cases(*given))
    Random(f"{seed}/{lap}/{cases.__name__}").shuffle(order)
    return order


@cache
def _options(only: str) -> list[tuple[Command, Parameter]]:
    found = [(command, parameter) for command in _commands(only) for parameter in command.parameters]
    often = [one for one in found if one[0].path[0] != "plot"]  # the pictures share most of their options
    return found + often * 3


def _commands(only: str) -> list[Command]:
    return [command for command in commands() if " ".join(command.path).startswith(only)]


def _option(nth: int, seed: int, random: Random, master: Path, only: str) -> Made:
    command, parameter = _nth(_options, seed, nth, only)
    found = bases_of(command.path)
    quick = [base for base in found if not base.trains] or found
    base = random.choice(quick if random.random() < 0.8 else found)
    words, met = _with_option(list(base.words), command, parameter, base, random)
    for _ in range(12 if base.slow or (base.trains and random.random() < 0.7) else 0):  # rather what is refused at once
        if met != WRONG:
            words, met = _with_option(list(base.words), command, parameter, base, random)
    if base.slow and met != WRONG:
        words, met = [*words, "--no-such-option"], WRONG
    if random.random() < 0.15:  # and another one
        other = random.choice([one for one in command.parameters if one.option != "--set"])
        words, second = _with_option(words, command, other, base, random)
        met = WRONG if WRONG in (met, second) and other.option != parameter.option else ODD
    return Call(tuple(words), stdin=random.choice((b"", b"a few words\n", b"\xff\xfe"))), met, {}


def _with_option(
    words: list[str], command: Command, parameter: Parameter, base: Base, random: Random
) -> tuple[list[str], str]:
    """The words with one more option, or with another first argument."""
    if parameter.kind == "flag":
        if random.random() < 0.3:
            return [*words, f"{parameter.option}={random.choice(('yes', '', '1', 'x'))}"], WRONG
        return [*words, parameter.option], ODD
    if parameter.option == "--set":
        return [
            *words,
            "--set",
            random.choice((*NAMES, "=", "=1", "a=", "a.b=1", "seed", "seed=", ".=1", "seed.x=1")),
        ], ODD
    value, met = of_parameter(parameter, writes=base.writes, random=random)
    if base.trains and met != WRONG and parameter.kind in ("int", "float") and len(value) > 3:
        value, met = random.choice(("", "nan", "x")), WRONG  # so many steps would be taken
    if parameter.option == "--runs" and command.path[0] in ("plot", "runs"):
        met = ODD  # read only where no other source is given
    if not parameter.option:
        place = len(command.path)
        has_one = place < len(words) and not words[place].startswith("-")
        met = ODD if met != WRONG or value.startswith("-") else met
        return [*words[:place], value, *words[place + has_one :]], ODD if command.path == ("plot",) else met
    if parameter.option in words and not parameter.repeatable:
        place = words.index(parameter.option)
        words = words[:place] + words[place + 2 :]
    return [*words, *random.choice(([parameter.option, value], [f"{parameter.option}={value}"]))], met


def _keys(only: str) -> list[Key]:
    return [key for key in keys() if only in ("", key.command)] or list(keys())


def _key(nth: int, seed: int, random: Random, master: Path, only: str) -> Made:
    key = _nth(_keys, seed, nth, only)
    value, met = of_key(key, random)
    words = {"train": ["train", "small.yaml"], "evolve-namm": ["evolve-namm", "small-namm.yaml"],
             "eval-namm": ["eval-namm", "namm"]}[key.command]  # fmt: skip
    draw = random.random()
    if draw < 0.2 and key.command != "eval-namm":
        words = ["config", "show", words[1]]
    elif met != WRONG or draw < 0.6:  # what is wrong must be refused before anything is trained
        words += ["--dry-run"]
    return Call((*words, "--set", f"{key.name}={value}")), met, {}


@cache
def _readable(master: Path, only: str) -> list[tuple[Base, str]]:
    """Each line that reads files with each file that it may read."""
    found = []
    for base in bases(READERS):
        if not " ".join(base.words).startswith(only):
            continue
        for word in base.words:
            path = master / ("corpus" if "path: corpus" in word else word.rpartition("=")[2])
            files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
            found += [(base, str(one.relative_to(master))) for one in sorted(files) if one.is_file()]
    return found


def _damage(nth: int, seed: int, random: Random, master: Path, only: str) -> Made:
    if not _readable(master, only):
        return _option(nth, seed, random, master, only)
    base, path = _nth(_readable, seed, nth, master, only)
    return Call(base.words), ODD, {"damaged": path, "harm": damage(path, random)}


def _yaml(nth: int, seed: int, random: Random, master: Path, only: str) -> Made:
    command = only if only in CONFIGS else random.choice(list(CONFIGS))
    content, met = yaml_files.make(command, random)
    if (saved := master / "namm" / "namm" / "namm.safetensors").is_file():
        content = content.replace(b"SHA256", hashlib.sha256(saved.read_bytes()).hexdigest().encode())
    words = random.choice(([command, "odd.yaml", "--dry-run"], [command, "--config", "odd.yaml", "--dry-run"],
                           ["config", "show", "odd.yaml"]))  # fmt: skip
    return Call(tuple(words)), met, {"files": {"odd.yaml": content}}


_VARIABLES = {
    "PYTHONIOENCODING": ("ascii", "cp1252", "latin-1", "utf-8", "cp437", "ascii:strict", "utf-16"),
    "COLUMNS": ("0", "1", "5", "20", "40", "80", "-1", "x", "", "1000000", "9" * 50, "½"),
    "NO_COLOR": ("1", ""),
    "FORCE_COLOR": ("1",),
    "TERM": ("dumb", "", "xterm-256color", "x"),
    "LC_ALL": ("C", "xx_XX", "tr_TR.UTF-8"),
    "TZ": ("UTC", "Nowhere/No", ""),
    "HOME": ("/nowhere", "", "small.csv"),
    "XDG_CACHE_HOME": ("relative", "/proc/none", "", "small.csv"),
    "TMPDIR": ("/nowhere", "small.csv", ""),
    "HF_HOME": ("small.csv", "/nowhere"),
    "OMP_NUM_THREADS": ("x", "0", "-1"),
    "RANK": ("x", "1", "-1"),
    "WORLD_SIZE": ("x", "0", "-1"),
    "LOCAL_RANK": ("x",),
    "MPLBACKEND": ("nonsense", "TkAgg"),
}
_HARMLESS = ("PYTHONIOENCODING", "NO_COLOR", "FORCE_COLOR", "TERM", "LC_ALL", "COLUMNS")


def _lines(only: str, quick: bool) -> list[Base]:
    found = [base for base in bases() if " ".join(base.words).startswith(only)]
    found = [base for base in found if not base.slow]
    return [base for base in found if not base.trains or not quick] or found or [Base(_commands(only)[0].path)]


def _surroundings(nth: int, seed: int, random: Random, master: Path, only: str) -> Made:
    words = _nth(_lines, seed, nth, only, random.random() < 0.9).words
    if random.random() < 0.3 and words[0] != "plot":
        words = (*words, "--json") if words[:2] != ("config", "copy") else words
    draw = random.random()
    if draw < 0.2:
        closed = tuple(name for name in ("stdin", "stdout", "stderr") if random.random() < 0.5)
        return Call(words, closed=closed), ODD, {}
    if draw < 0.3:
        return Call(words, full=True), ODD, {}
    name = random.choice([*_VARIABLES, *_HARMLESS * 2])
    return Call(words, {name: random.choice(_VARIABLES[name])}), VALID if name in _HARMLESS else ODD, {}


def _words(nth: int, seed: int, random: Random, master: Path, only: str) -> Made:
    """Words of a command line left out, doubled, changed in place, or put where they do not belong."""
    base = _nth(_lines, seed, nth, only, True)
    words = list(base.words)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(words))
        change = random.randrange(6)
        if change == 0:
            words.pop(place)
        elif change == 1:
            words.insert(place, words[place])
        elif change == 2:
            words.insert(
                place, random.choice(("--", "-", "--help", "-h", "--debug", "--no-such", "-x", "--version", "="))
            )
        elif change == 3:
            words[place] = random.choice((*NAMES, *NO_NUMBERS))
        elif change == 4:
            words[place] = words[place][: random.randrange(len(words[place]) + 1)]
        else:
            random.shuffle(words)
        words = words or ["--help"]
    if "--dry-run" in base.words and "--dry-run" not in words:  # nothing is trained for minutes
        words.append("--dry-run")
    return Call(tuple(words), stdin=b"text"), ODD, {}


FAMILIES: dict[str, Callable[[int, int, Random, Path, str], Made]] = {
    "option": _option, "key": _key, "damage": _damage, "yaml": _yaml, "surroundings": _surroundings, "words": _words,
}  # fmt: skip
