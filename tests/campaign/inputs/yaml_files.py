"""Config files that are wrong or odd: text that is no YAML, YAML that says two things, values of other types."""

from __future__ import annotations

from random import Random

from ..workspace import SMALL, SMALL_NAMM
from .values import ODD, VALID, WRONG

_EVALUATION = """\
command: eval-namm
name: small-eval
host: {name: model, threads: 1}
namms: [{folder: namm/namm, sha256: SHA256}]
tasks: [key_values]
length: 220
prompts: 1
policies: [recency]
budgets: [0.5]
"""
_GOOD = {"train": SMALL, "evolve-namm": SMALL_NAMM, "eval-namm": _EVALUATION}
_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
# what is put before or after a good file
_BEFORE = {
    "\ufeff": ODD, "---\n": VALID, "%YAML 1.1\n---\n": VALID, "# é 日本\n": VALID, "\t": WRONG, "- 1\n": WRONG,
    "x\n": WRONG, "--- {}\n---\n": WRONG, "%TAG ! tag:x,2000:\n": WRONG, "\x00": WRONG, "\x07": WRONG, "&a\n": ODD,
    "!!python/name:os.system\n": WRONG,
}  # fmt: skip
_AFTER = {
    "---\nname: other\n": WRONG, "...\n": VALID, "name: other\n": WRONG, "seed: 1\nseed: 1\n": WRONG,
    "seed: 0x10\n": ODD, "seed: 1_0\n": ODD, "seed: 010\n": ODD, "seed: 1:30\n": ODD, "seed: .nan\n": WRONG,
    "seed: yes\n": WRONG, "seed: 1e3\n": ODD, "seed: !!int '5'\n": ODD, "seed: !!float 5\n": ODD,
    "seed: !!python/object/apply:os.getpid []\n": WRONG, "seed: !!binary aGk=\n": WRONG, "seed: 2026-01-01\n": WRONG,
    f"seed: {'9' * 5_000}\n": WRONG, f"about: {'x' * 100_000}\n": ODD, "about: \"\\ud800\"\n": ODD,
    'about: "\\0"\n': ODD, "about: |\n  a\n  b\n": ODD, "about: [red]x\n": WRONG, "about: '[red]x[/]'\n": VALID,
    "1: 2\n": WRONG, "null: 2\n": WRONG, "? [a]\n: 1\n": WRONG, "? {a: b}\n: 1\n": WRONG, "<<: {seed: 3}\n": ODD,
    "<<: 5\n": WRONG, "about: *nothing\n": WRONG, "about: &a [*a]\n": WRONG, "x: &x {y: *x}\n": WRONG,
    "no_such_section: {}\n": WRONG, "nane: x\n": WRONG, "'': 1\n": WRONG, "a.b: 1\n": WRONG,
    f"{'k' * 5_000}: 1\n": WRONG, "\udce9: 1\n": WRONG, "about: \udcff\n": WRONG, "about: '$x_1$'\n": VALID,
    "name: a/b\n": WRONG, _BOMB: WRONG, "about: " + "[" * 3_000: WRONG, "x: " + "[" * 500 + "]" * 500: WRONG,
    "x: " + "{a: " * 900 + "1" + "}" * 900: WRONG, "name: _x\n": WRONG, "experiment: '../x'\n": ODD,
    "about: ~\n": WRONG, "name: ''\n": WRONG,
}  # fmt: skip


def make(command: str, random: Random) -> tuple[bytes, str]:
    """A config file of a command, and how it is to be met."""
    good = _GOOD[command]
    draw = random.random()
    if draw < 0.15:
        before = random.choice(list(_BEFORE))
        return _bytes(before + good), _BEFORE[before]
    if draw < 0.6:
        return _after(command, good, random)
    if draw < 0.75:
        return _whole(good, random)
    lines = good.splitlines(keepends=True)
    place = random.randrange(len(lines))
    if draw < 0.85:  # a key twice
        return _bytes("".join([*lines, lines[place]])), WRONG
    if draw < 0.9:  # lines in another order say the same
        random.shuffle(lines)
        return _bytes("".join(lines)), VALID
    text = list(good)
    for _ in range(random.randint(1, 4)):
        text[random.randrange(len(text))] = random.choice("{}[]:,&*!|>'\"%@`#-? \n\t\0x0\u2028")
    return _bytes("".join(text)), ODD


def _after(command: str, good: str, random: Random) -> tuple[bytes, str]:
    after = random.choice(list(_AFTER))
    met = _AFTER[after]
    key = after.partition(":")[0]
    if (command, key) in (("evolve-namm", "experiment"), ("eval-namm", "experiment"), ("eval-namm", "about")):
        met = WRONG  # there is no such key
    if key == "name" and "other" not in after:  # not twice
        good = "".join(line for line in good.splitlines(keepends=True) if not line.startswith("name:"))
    return _bytes(good + after), met


def _whole(good: str, random: Random) -> tuple[bytes, str]:
    """A file that is another one as a whole."""
    utf16, late = good.encode("utf-16"), random.randrange(10, len(good))
    return random.choice((
        (b"", ODD), (b"\n\n", ODD), (b"#", ODD), (b"[]", WRONG), (b"5", WRONG), (b"text", WRONG), (b"null", ODD),
        (b"{}", ODD), (b"true", WRONG), (utf16, ODD), (bytes(range(256)), WRONG),
        (good.encode() + b"\xff\xfe: 1\n", WRONG), (good.replace("\n", "\r\n").encode(), VALID),
        (good[:late].encode(), ODD), (b"{" * 5_000, WRONG),
        (b"\x80\x81", WRONG), (b"- " * 3_000, WRONG), (good.encode() * 2, WRONG),
        (b'"' + b"x" * 1_000_000, WRONG), (b"*a", WRONG),
    ))  # fmt: skip


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
