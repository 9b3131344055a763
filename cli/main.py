"""`memx`: the Typer app, and the one place where errors become a line, a hint and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated

import typer

from ..errors import MemxError
from ..version import __version__
from .commands import bench, config, convert, eval, eval_namm, evict, evolve_namm, plot, prepare, presets, runs, train

app = typer.Typer(
    name="memx",
    help="Give a transformer memory: train product-key memory layers, measure what they hold, draw it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]memx train[/bold], then [bold]memx plot[/bold]. Examples:\n\n"
    "  memx presets\n\n  memx train facts --dry-run\n\n  memx plot --published",
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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works in any place.")] = False,
) -> None:
    """Give a transformer memory: train product-key memory layers, measure what they hold, draw it."""


for module in (train, prepare, eval, evolve_namm, eval_namm, evict, plot, bench, runs, presets, config, convert):
    module.register(app)


def main() -> None:
    """Run the command line. Exits 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug=len(arguments) < len(sys.argv) - 1))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command and return its exit code; errors are told on stderr."""
    try:
        result = app(args=arguments, prog_name="memx", standalone_mode=False)
        if result == 130:  # typer took the interrupt itself
            return _say("interrupted", "", code=130)
        return result if isinstance(result, int) else 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _tell(error)
    except KeyboardInterrupt:
        return _say("interrupted", "", code=130)


def _tell(error: Exception) -> int:
    from ..experiments.distributed.process_group import is_quiet
    from ..experiments.runtime.signals import Interrupted

    if is_quiet(error):
        return 2 if isinstance(error, MemxError) else 130 if isinstance(error, Interrupted) else 1
    if isinstance(error, MemxError):
        return _say(f"error: {error.message}", error.hint, code=2)
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort | Interrupted):
        return _say(f"interrupted: {error}" if str(error) else "interrupted", "--resume goes on from there", code=130)
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "memx"
        message = getattr(error, "format_message", error.__str__)()
        if not message:  # no command given: the help has been shown
            return 2
        return _say(f"error: {message}", f"see `{command} --help`", code=2)
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f" {error.filename}" if error.filename else ""
        return _say(f"error: cannot use{where}: {error.strerror}", "free space, or choose another place", code=2)
    first, *rest = str(error).splitlines() or [type(error).__name__]
    return _say(f"failed: {first}", "--debug shows where" if not rest else "", code=1)


def _say(line: str, hint: str, *, code: int) -> int:
    from ..experiments.distributed.process_group import line_prefix

    print(line_prefix() + " ".join(line.split()), file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code
