"""Run one printed line: memx for real, small; of other programs, check that what they are asked for is there."""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from memx.cli.main import run as memx
from memx.cli.parsing.spellings import Command
from memx.experiments.config.presets import all_presets
from memx.experiments.data.corpus.readers.builtin import NAMES as BUILTIN
from memx.experiments.data.corpus.readers.hub import HUB_NAME

from .markdown import ROOT
from .printed import UNCHECKED
from .sandbox import Sandbox
from .shrink import PLACEHOLDERS, Parsed, group_of, parse, small, unknown, whole

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
_ASSIGNED = re.compile(r"^(?:[A-Z_]+=\S* +)+")
_HUB = re.compile(r"hf (auth login|download [\w.-]+/[\w.-]+( --(repo-type dataset|local-dir \S+|(in|ex)clude '\S+'))*)")


def run_line(line: str, box: Sandbox) -> None:
    """Run a line of shell in the sandbox. Raises AssertionError if any of its commands would fail."""
    parts = re.split(r" \| ", _ASSIGNED.sub("", line))
    for part, after in zip(parts, [*parts[1:], ""], strict=True):
        command, _, target = part.partition(" > ")
        if (box.root / target).is_symlink():
            (box.root / target).unlink()
        words = shlex.split(command)
        program = "bin" if words[0].startswith(".venv/bin/") else words[0]
        assert program in RUN or program in UNCHECKED, f"tests/docs/runner.py knows no program {program}"
        if after and program.startswith("python"):
            done = subprocess.run([sys.executable, *words[1:]], cwd=box.root, capture_output=True, check=True)
            box.piped = done.stdout
        elif program in RUN:
            RUN[program](command, words, box)


def run_memx(line: str, words: Sequence[str], box: Sandbox) -> None:
    """Run memx in this process, as small as tests/docs/shrink.py makes it. It must exit 0."""
    check_shown(words[1:])
    parsed = box.provide(small(words[1:]))
    check_corpora(parsed, box)
    if parsed.values("--against"):  # the same command made the older run
        old = parsed._replace(given=[_saved(pair) for pair in parsed.given if pair[0] != "--save"])
        _call(box, line, old.line())
    _call(box, line, parsed.line())


def _saved(pair: tuple[str | None, str | None]) -> tuple[str | None, str | None]:
    return ("--save", pair[1]) if pair[0] == "--against" else pair


def _call(box: Sandbox, line: str, arguments: list[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(box.root)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(box.piped)))
        arguments = box.expanded(line, arguments)
        code = memx(arguments)
    assert code == 0, f"`memx {shlex.join(arguments)}` exits {code}"


def check_shown(words: Sequence[str]) -> None:
    """Raise AssertionError for a command or an option that --help does not show."""
    parsed = parse(words)
    wrong = unknown(parsed)
    assert not wrong, f"`memx {' '.join(parsed.path)}` shows no {', '.join(wrong)}"
    old = set(parsed.arguments[:1]) & getattr(group_of(parsed.path), "old_names", {}).keys()
    assert not old, f"`memx {' '.join(parsed.path)}` shows no {old}"


def check_corpora(parsed: Parsed, box: Sandbox) -> None:
    """Raise AssertionError for a text that is not there, which a dry run does not look for."""
    for value in parsed.values("--corpus"):
        there = any(box.root.glob(value)) or value in BUILTIN or HUB_NAME.fullmatch(value)
        assert there, f"tests/docs/workspace.py has no text {value}: name one that it has, or add it there"


def check_parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise AssertionError if memx would refuse a command before it runs: unknown options, words and presets."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:] if word not in ("…", "...")]
    check_shown(words)
    parsed = parse(words)
    if parsed.path in (("train",), ("evolve-namm",), ("config", "show"), ("config", "copy")):
        for name in parsed.arguments[:1]:
            assert name in all_presets() or name.endswith(".yaml"), f"`{line}`: there is no preset {name}"
    monkeypatch.setattr(Command, "invoke", lambda self, context: 0)
    try:
        whole()(args=words, prog_name="memx", standalone_mode=False)
    except Exception as error:  # typer's own click raises these
        lacks = ("MissingParameter", "NoArgsIsHelpError", "Exit")  # only the command is spoken of
        assert type(error).__name__ in lacks, f"`{line}`: {error}"


def _torchrun(line: str, words: Sequence[str], box: Sandbox) -> None:
    from torch.distributed.run import get_args_parser

    assert "--no-python" in words, "memx is no Python file: torchrun needs --no-python"
    at = words.index("memx")
    try:
        get_args_parser().parse_args([*words[1 : at + 1]])
    except SystemExit:
        raise AssertionError(f"torchrun does not take {shlex.join(words[1:at])}") from None
    run_memx(line, words[at:], box)


def _make(line: str, words: Sequence[str], box: Sandbox) -> None:
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _pip(line: str, words: Sequence[str], box: Sandbox) -> None:
    assert words[1] == "install", line
    for named in re.findall(r"(?:\.|memx)\[([\w,-]+)\]", line):
        unknown = set(named.split(",")) - EXTRAS.keys()
        assert not unknown, f"pyproject.toml has no extra {unknown}"
    for option, value in pairwise(words):
        assert option != "-c" or (ROOT / value).is_file(), value


def _hub(line: str, words: Sequence[str], box: Sandbox) -> None:
    assert _HUB.fullmatch(line.strip()), f"tests/docs/runner.py knows no such line of hf: {line}"


def _python(line: str, words: Sequence[str], box: Sandbox) -> None:
    if words[1] == "-m":
        assert importlib.util.find_spec(words[2]), words[2]
        if words[2] == "memx":
            run_memx(line, words[2:], box)
    elif words[1] == "-c":
        compile(words[2], line, "exec")
    else:
        assert (box.root / words[1]).is_file() or (ROOT / words[1]).is_file(), words[1]


def _installed(line: str, words: Sequence[str], box: Sandbox) -> None:
    name = Path(words[0]).name
    known = {re.split(r"[\[>=]", one)[0] for extra in EXTRAS.values() for one in extra} | {"memx", "pip", "python"}
    assert name in known, f"no extra installs {name}"
    if name in RUN:
        RUN[name](line, [name, *words[1:]], box)


def _pytest(line: str, words: Sequence[str], box: Sandbox) -> None:
    for word in words[1:]:
        assert not word.startswith("tests") or (ROOT / word.partition("::")[0]).exists(), word


RUN: dict[str, Any] = {"memx": run_memx, "torchrun": _torchrun, "make": _make, "pip": _pip, "hf": _hub,
                       "python": _python, "python3": _python, "bin": _installed, "pytest": _pytest}  # fmt: skip
