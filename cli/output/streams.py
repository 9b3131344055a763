"""Standard output and standard error: text that every encoding, terminal and reader of a pipe can take.

Text of users and of models may hold anything: control characters would command the terminal, and characters that the
encoding lacks would end the command. Both are shown in other characters. A reader of a pipe that closes it has enough:
the command still does its work, and ends with its own exit code.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from typing import TextIO

from ...plain_text import printable

_ERRORS = "memx.readable"  # the name of the handler of characters that an encoding lacks
_PLAIN = {
    "→": "->", "←": "<-", "±": "+-", "×": "x", "≤": "<=", "≥": ">=", "…": "...", "–": "-", "—": "-", "−": "-",
    "·": ".", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"', "µ": "u", "σ": "sigma",
}  # fmt: skip


class OutputLost(Exception):
    """Standard output took no more.

    Args:
        reason: Why, in a few words.
    """


def prepare_streams() -> None:
    """Make standard output and standard error take every text, and replace those that are closed by one to nowhere.

    Widths of the environment that are no numbers are left out of it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:  # or the next file that is opened would get its number, and what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):  # which rich and typer read as numbers
        if not re.fullmatch("[0-9]{1,6}", os.environ.get(name, "0")):
            del os.environ[name]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)  # type: ignore[union-attr]


def readable(text: str, stream: TextIO | None = None) -> str:
    """Text as a stream can print it: `printable`, and in characters that its encoding has.

    Args:
        text: Any text.
        stream: Where it is printed; standard output if it is None.
    """
    text, encoding = printable(text), getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    try:
        return text.encode(encoding, _ERRORS).decode(encoding)
    except (LookupError, UnicodeError):
        return text.encode("ascii", _ERRORS).decode("ascii")


def say(text: str, end: str = "\n") -> None:
    """Print a result on standard output.

    Args:
        text: Any text.
        end: What follows it.

    Raises:
        OutputLost: Standard output takes no more, as on a full disk.
    """
    emit(readable(text) + end)


def emit(text: str) -> None:
    """Write text to standard output as it is. Raises OutputLost if it takes no more."""
    try:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            sys.stdout.write(readable(text))
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):  # the reader has enough, or the stream is closed
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise OutputLost(error.strerror or str(error)) from None


def note(text: str) -> None:
    """Tell the person something that is no result, on standard error. What nobody can read ends no command."""
    try:
        sys.stderr.write(readable(text, sys.stderr) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _silence(sys.stderr)


def finish_output() -> None:
    """Write what standard output still has to write. Raises OutputLost if it takes no more."""
    emit("")


def _silence(stream: TextIO) -> None:
    """Let a stream write to nowhere from now on, so that Python does not fail on it at the end."""
    try:
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        return


def _replace(error: UnicodeError) -> tuple[str, int]:
    """What stands for the characters that an encoding lacks: plain ones that are read alike, or escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    """ASCII that stands for a character."""
    if character in _PLAIN:
        return _PLAIN[character]
    if "\u2500" <= character <= "\u257f":  # frames of tables and help
        return "|" if character in "│┃║╎╏┆┇┊┋" else "-" if character in "─━═╌╍┄┅┈┉╸╺╴╶" else "+"
    if (escaped := printable(character)) != character:
        return escaped
    return character.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_ERRORS, _replace)
