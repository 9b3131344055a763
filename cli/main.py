"""`memx`: the Typer app, and the one place where errors become a line, a hint and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated, Any

import typer

from ..errors import MemxError, plain_reason
from ..version import __version__
from .commands import config, convert, eval, eval_namm, evict, evolve_namm, prepare, presets, runs, train
from .commands.bench import group as bench
from .commands.fallback import Group
from .commands.plot import group as plot

_HELP = """Train memory layers for transformers, and evolve NAMMs that evict tokens from the KV cache.

    Runs are written to results/runs, one folder each, and figures to results/figures.
    """
_EPILOG = """Examples:

  # train a small model on your own facts (columns subject, relation, object)
  memx train facts --facts my.csv

  # add memory to a pretrained model and train it on the same facts
  memx train --init-from smollm2 --facts my.csv

  # compress a prompt's KV cache to a quarter, and compare with the full cache
  memx evict --file prompt.txt --budget 0.25 --interval 64 --compare

  # evolve a NAMM on a CPU in about two minutes
  memx evolve-namm namm-tiny

  # compare the NAMM of a run with other eviction policies
  memx eval-namm results/runs/RUN

  # list finished and stopped runs, and draw the memory runs
  memx runs
  memx plot
"""
_ORDER = (
    *("train", "prepare", "convert"),
    *("evolve-namm", "evict", "eval-namm"),
    *("eval", "bench", "plot", "runs"),
    *("presets", "config"),
)


class MainGroup(Group):
    """The commands of memx in the order of help."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, by panel.

        Args:
            ctx: The context of the group.
        """
        return sorted(super().list_commands(ctx), key=_ORDER.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command; what is an option of memx is no command.

        Args:
            ctx: The context of the group.
            args: The name of the command and its arguments.
        """
        if args[0] in ("version", "help") and not ctx.resilient_parsing:
            raise MemxError(f"no command {args[0]!r}", hint=f"use `memx --{args[0]}`")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="memx",
    cls=MainGroup,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
_UsageError = typer.BadParameter.__bases__[0]  # typer carries a click of its own; this is its UsageError
DISK_ERRORS = {
    errno.ENOSPC,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}


def _version(show: bool) -> None:
    if show:
        typer.echo(f"memx {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error; can stand anywhere.")
    ] = False,
) -> None:
    """Options of memx itself; `_HELP` is what help shows."""


for module in (train, prepare, convert, evolve_namm, evict, eval_namm, eval, bench, plot, runs, presets, config):
    module.register(app)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug=len(arguments) < len(sys.argv) - 1))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command; errors are printed on stderr.

    Args:
        arguments: The arguments that follow `memx`.
        debug: Whether to print the traceback of an error.

    Returns:
        The exit code.
    """
    try:
        result = app(args=arguments, prog_name="memx", standalone_mode=False)
        if result == 130:  # typer took the interrupt itself
            return _print_error("interrupted", "", code=130)
        return result if isinstance(result, int) else 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _report(error)
    except KeyboardInterrupt:
        return _print_error("interrupted", "", code=130)


def _report(error: Exception) -> int:
    from ..experiments.distributed.process_group import is_quiet
    from ..experiments.runtime.lifecycle import RunFailed
    from ..experiments.runtime.signals import Interrupted

    if is_quiet(error):
        return 2 if isinstance(error, MemxError) else 130 if isinstance(error, Interrupted) else 1
    if isinstance(error, MemxError):
        return _print_error(f"error: {error.message}", error.hint, code=2)
    if isinstance(error, RunFailed):
        return _print_error(f"failed: {error}", "", code=1)
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort | Interrupted):
        line = f"interrupted: {error}" if str(error) else "interrupted"
        return _print_error(line, "run the same command again with --resume to continue", code=130)
    if isinstance(error, _UsageError):
        return _report_usage(error)
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f" {error.filename}" if error.filename else ""
        return _print_error(f"error: cannot use{where}: {error.strerror}", "free space, or choose another path", code=2)
    first, *rest = str(error).splitlines() or [type(error).__name__]
    return _print_error(f"failed: {first}", "add --debug to see the traceback" if not rest else "", code=1)


def _report_usage(error: Any) -> int:
    """Report arguments that cannot be parsed, with the command whose help lists the right ones."""
    context = getattr(error, "ctx", None)
    message = _plain_value(error) or getattr(error, "format_message", error.__str__)()
    if not message:  # no command given: the help has been shown
        return 2
    command = context.command_path.strip() if context else "memx"
    return _print_error(f"error: {message}", f"see `{command} --help`", code=2)


def _plain_value(error: Any) -> str:
    """The message for a value of the wrong type or outside its range; empty for other mistakes."""
    mistakes, param = getattr(error.__cause__, "errors", None), getattr(error, "param", None)
    if mistakes is None or param is None:
        return ""
    name, mistake = max(param.opts, key=len), mistakes()[0]
    if param.param_type_name == "argument":
        name = param.human_readable_name
    own_words = mistake["type"] in ("value_error", "assertion_error")
    return f"{name}{':' if own_words else ''} {plain_reason(mistake)}".removesuffix(".")


def _print_error(line: str, hint: str, *, code: int) -> int:
    from ..experiments.distributed.process_group import line_prefix

    print(line_prefix() + " ".join(line.split()), file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code
