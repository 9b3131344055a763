"""Values of options and keys as text, each with how it is to be met: "wrong" must be refused, "odd" may be."""

from __future__ import annotations

import re
from random import Random

from ..workspace import USELESS
from .surface import Key, Parameter

_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
_OF_HUB = ("MODEL", "NAME", "DATASET")
WRONG, ODD, VALID = "wrong", "odd", "valid"
Value = tuple[str, str]  # text and class

_DIGITS = "1" + "0" * 400
_LONG_DIGITS = "9" * 5_000
NO_NUMBERS = (
    "", " ", "text", "true", "null", "nan", "inf", "-inf", "1,5", "0x", "1e", "--", "[red]5[/red]", "½", "\udcff",
)  # fmt: skip
NAMES = (
    "", " ", ".", "..", "-", "--", "_x", "$x$", "$HOME", "a/b", "../x", "/x", "a\nb", "a\tb", "x" * 5_000,
    "[red]x[/red]", "[/]", "[link=x]", "\udcff", "é", "e\u0301", "日本", "%s", "{}", "{0.__class__}", "\\", "'",
    '"', "~",
    "NUL", "a b", "null", "\u202e", "\x1b[31m", "*",
)  # fmt: skip
_MISSING = (
    "no/such", "no-such", "no.csv", "no.yaml", "no.jsonl", "x" * 5_000, "\udcff", "[bold]no[/bold]", "[/]", "a\nb",
    "small.csv/below", "loop", "dangling", "/proc/self/mem-no", "é/日本.csv", "https://localhost:1/x", "no/such/at/all",
)  # fmt: skip
_ODD_PATHS = ("", ".", "..", "../..", "/", "-", "/dev/null", "folder", "[red]file.txt", "*", "~", " ", "secret.txt")
_BAD_FOLDERS = ("small.csv", "small.csv/below", "x" * 5_000, "/proc/memx", "/dev/null", "loop")
_ODD_FOLDERS = (
    "", ".", "../..", "folder", "new/a/b", "[red]new[/red]", "\udcff", "~", "é 日本", "a\nb", "$new", "-new", "*",
)  # fmt: skip


def of_parameter(parameter: Parameter, *, writes: bool, random: Random) -> Value:
    """A value for an option or argument.

    Args:
        parameter: The option.
        writes: Whether the command writes what it is asked to, or only plans it.
        random: What it is drawn with.
    """
    if parameter.kind in ("int", "float"):
        return _number(parameter, random)
    if parameter.kind == "choice":
        return _choice(parameter.choices, random)
    if parameter.kind == "path":
        value, met = _folder(writes, random) if parameter.written else _path(random)
        hub = not writes and _HUB.fullmatch(value) is not None  # a plan asks no hub whether it has such a name
        return value, ODD if hub and any(word in parameter.metavar for word in _OF_HUB) else met
    words = parameter.metavar.split("|")
    if len(words) > 1 and all(word.islower() or not word.isalpha() for word in words) and random.random() < 0.5:
        return random.choice(words)[:-1] or "x", ODD
    return random.choice([*NAMES, *NO_NUMBERS, "0", "-1", _DIGITS, "1e308"]), ODD


def _number(parameter: Parameter, random: Random) -> Value:
    if random.random() < 0.4:
        return random.choice(NO_NUMBERS), WRONG
    whole = parameter.kind == "int"
    text = random.choice(("0", "-1", "1.5", "1e308", "-1e308", _DIGITS, f"-{_DIGITS}", _LONG_DIGITS, "2147483648",
                          "18446744073709551616", "1_0", "+1", " 1", "1e3", "007"))  # fmt: skip
    if whole and any(sign in text for sign in ".e"):
        return text, WRONG
    if not whole and len(text) > 300:
        return text, WRONG  # beyond what a float can be
    below = parameter.least is not None and float(text[:300]) < parameter.least
    return text, WRONG if below else ODD


def _choice(choices: tuple[str, ...], random: Random) -> Value:
    one = random.choice(choices)
    wrong = (one[:-1], one + "x", "", " ", one + "\n", "[red]" + one, "nothing", "0", f"{one},{one}")
    return random.choice(((random.choice(wrong), WRONG), (one.upper(), ODD), (one, ODD)))


def _path(random: Random) -> Value:
    draw = random.random()
    if draw < 0.45:
        return random.choice(_MISSING), WRONG
    if draw < 0.7:
        return random.choice(USELESS), ODD
    return random.choice(_ODD_PATHS), ODD


def _folder(writes: bool, random: Random) -> Value:
    if random.random() < 0.5:
        return random.choice(_BAD_FOLDERS), WRONG if writes else ODD
    return random.choice(_ODD_FOLDERS), ODD


# values of keys as YAML, by the kinds that they are not
_NO_NUMBER = (".inf", "-.inf", ".nan", "true", "text", "[1]", "{a: 1}", "'1'x", "2026-01-01", '"[red]"', '"\\ud800"')
_HUGE = ("1e308", "-1e308", "-1", "0", "1000000000", str(10**30), _DIGITS, "0.5", "1e-320", "-0.0")
_TEXTS = ('""', '"\\0"', '"a\\nb"', "'[red]x'", "'$x$'", "../x", "_x", "'{}'", f"'{'x' * 5_000}'", "é", "'%s'")
_NESTED = ("[" * 50 + "]" * 50, "[" * 2_000 + "]" * 2_000, "{a: " * 60 + "1" + "}" * 60)
_TABLES = (
    "{1: 2}", "{a.b: 1}", "{training.steps: []}", "{'': 1}", "{a: null}", "{~: 1}", "[{}]", "{training: 1}",
    "{a: {training.steps: 1}}", "{memory.slots: [0, 0]}", "{memory.slots: [0, x]}", "{a: {}, b: {}}",
)  # fmt: skip
_LISTS = ("[]", "[.nan]", "[true]", "[null]", "[[]]", "[-1]")
_NO_TABLE = tuple((one, WRONG) for one in ("3", "text", "true", "[1]", ".nan"))
_OF_KIND: dict[str, tuple[Value, ...]] = {
    "section": (*_NO_TABLE, ("{}", ODD), ("{x: 1}", WRONG)),
    "table": (*_NO_TABLE, *((one, ODD) for one in _TABLES)),
    "bool": (*((one, WRONG) for one in ("5", "text", "[true]", ".nan", "{}")), ("'true'", ODD), ("1", ODD)),
    "choice": tuple((one, WRONG) for one in (".nan", "5", "true", "[a]", "{a: 1}", "no", '""', "'[red]'", "5.0")),
}


def of_key(key: Key, random: Random) -> Value:
    """A value for a key of a config, as YAML."""
    draw = random.random()
    kinds = key.kinds - {"none"}
    if draw < 0.12:
        return "null", ODD if key.kinds & {"none", "list", "section", "any", "table"} else WRONG
    if draw < 0.2:
        return random.choice(_NESTED), WRONG
    if kinds <= {"int", "float"}:
        return _key_number(key, random)
    if len(kinds) == 1 and (values := _OF_KIND.get(next(iter(kinds)))):
        return random.choice(values)
    if kinds == {"text"}:
        wrong = random.choice(("[a]", "{a: b}", ".nan", "true", "5", ".inf"))
        return (wrong, WRONG) if draw < 0.5 else (random.choice((*_TEXTS, *_HUGE)), ODD)
    return random.choice((*_NO_NUMBER, *_HUGE, *_TEXTS, *_TABLES, *_LISTS)), ODD


def _key_number(key: Key, random: Random) -> Value:
    if random.random() < 0.5:
        return random.choice(_NO_NUMBER), WRONG
    text = random.choice(_HUGE)
    number = float(text) if len(text) < 300 else float("inf")
    if "float" not in key.kinds and (text in ("0.5", "1e-320") or "e" in text):
        return text, ODD if text in ("1e308", "-1e308") and not key.low else WRONG
    low, high = key.low, key.high
    below = low is not None and (number < low[0] or (number == low[0] and not low[1]))
    above = high is not None and (number > high[0] or (number == high[0] and not high[1]))
    beyond = number == float("inf") and "float" in key.kinds
    return text, WRONG if below or above or beyond else ODD
