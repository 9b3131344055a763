"""Any exception of a command -> one line and a hint on stderr, and the exit code."""

from __future__ import annotations

import errno
import re
from typing import Any

import typer

from ..errors import MemxError, plain_reason
from ..plain_text import shortened
from .output.streams import OutputLost, finish_output, note
from .parsing.paths import name_of

_UsageError = typer.BadParameter.__bases__[0]  # typer carries a click of its own; this is its UsageError
_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
_EXPECTED = (RuntimeError, ArithmeticError, OSError)  # what libraries raise where a run fails, rather than memx
_REFUSED = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")  # as torch says it on a CPU
_MOST_PATH = 150  # characters of a path in a message of the system
_MOST = 1500  # characters of a line: what is longer holds a file's content or a path without an end


def report(error: BaseException) -> int:
    """Print an error, and return the exit code that it means.

    Args:
        error: What a command raised.

    Returns:
        1 for a run that failed, 2 for a mistake of the user, 130 for an interrupt.
    """
    from ..experiments.distributed.process_group import is_quiet
    from ..experiments.runtime.lifecycle import RunFailed
    from ..experiments.runtime.signals import Interrupted

    if isinstance(error, KeyboardInterrupt):
        return print_error("interrupted", "", code=130)
    if isinstance(error, SystemExit):
        return _of_exit(error)
    if isinstance(error, Exception) and is_quiet(error):
        return 2 if isinstance(error, MemxError) else 130 if isinstance(error, Interrupted) else 1
    if isinstance(error, MemxError):
        return print_error(f"error: {error.message}", error.hint, code=2)
    if isinstance(error, RunFailed):
        return print_error(f"failed: {error}", "", code=1)
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort | Interrupted):
        line = f"interrupted: {error}" if str(error) else "interrupted"
        return print_error(line, "run the same command again with --resume to continue", code=130)
    if isinstance(error, _UsageError):
        return _report_usage(error)
    return _report_failure(error)


def finished(code: int) -> int:
    """The exit code of a command, after the last of its results is written: 1 in place of 0 if that fails.

    Args:
        code: The exit code so far.
    """
    try:
        finish_output()
    except OutputLost as lost:
        return _report_lost(lost) if code == 0 else code
    return code


def print_error(line: str, hint: str, *, code: int) -> int:
    """Print one line, and a hint below it, on stderr; returns the code."""
    from ..experiments.distributed.process_group import line_prefix

    note(line_prefix() + _one_line(line))
    if hint:
        note(f"hint: {_one_line(hint)}")
    return code


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST else f"{line[: _MOST - 300]} … {line[-300:]}"


def _report_lost(lost: OutputLost) -> int:
    return print_error(f"error: cannot write to standard output: {lost}", "", code=1)


def _report_failure(error: BaseException) -> int:
    """Report what is neither a mistake of the user nor an interrupt."""
    if isinstance(error, OutputLost):
        return _report_lost(error)
    if isinstance(error, OSError) and not error.filename:
        try:
            finish_output()  # which fails again if that is what failed
        except OutputLost as lost:
            return _report_lost(lost)
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = f" {shortened(str(error.filename), _MOST_PATH)}" if error.filename else ""
        return print_error(f"error: cannot use{where}: {error.strerror}", "free space, or choose another path", code=2)
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # as pathlib says it
        return print_error(f"error: a symbolic link leads to itself: {error}", "choose another path", code=2)
    if isinstance(error, MemoryError):
        return print_error(f"failed: out of memory {error}", "use a smaller model, batch or file", code=1)
    if isinstance(error, RuntimeError) and (asked := _REFUSED.search(str(error))):
        from ..results.labels import in_bytes

        needed = f"failed: out of memory: {in_bytes(int(asked[1]))} are needed at once"
        return print_error(needed, "use a smaller model, table or batch; --dry-run shows sizes", code=1)
    first, *rest = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, _EXPECTED) and not isinstance(error, RecursionError):
        return print_error(f"failed: {first}", "add --debug to see the traceback" if not rest else "", code=1)
    return print_error(f"unexpected error: {type(error).__name__}: {first}", "add --debug to see the traceback", code=1)


def _of_exit(error: SystemExit) -> int:
    """The exit code of a library that ends the program: 0 if it did so because a reader of a pipe has enough."""
    if isinstance(error.__context__, BrokenPipeError) or error.code in (None, 0):
        return 0
    return error.code if error.code in (1, 2, 130) else 1


def _report_usage(error: Any) -> int:
    """Report arguments that cannot be parsed, with the command whose help lists the right ones."""
    context = getattr(error, "ctx", None)
    message = _plain_value(error) or getattr(error, "format_message", error.__str__)()
    if not message:  # no command given: the help has been shown
        return 2
    command = context.command_path.strip() if context else "memx"
    return print_error(f"error: {message}", f"see `{command} --help`", code=2)


def _plain_value(error: Any) -> str:
    """The message for a value of the wrong type or outside its range; empty for other mistakes."""
    mistakes, param = getattr(error.__cause__, "errors", None), getattr(error, "param", None)
    if mistakes is None or param is None:
        return ""
    name, mistake = name_of(param), mistakes()[0]
    own_words = mistake["type"] in ("value_error", "assertion_error")
    return f"{name}{':' if own_words else ''} {plain_reason(mistake)}".removesuffix(".")
