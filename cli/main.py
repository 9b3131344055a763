"""`memx`: the Typer app, and the functions that run it and return or exit with its exit code."""

from __future__ import annotations

import sys
import traceback
from functools import cache
from typing import Annotated, Any

import typer

from ..errors import MemxError
from ..version import __version__
from .commands import config, convert, eval, eval_namm, evict, evolve_namm, policies, prepare, train
from .commands.bench import group as bench
from .commands.dialogue import ask, chat
from .commands.inspection import compare, doctor, presets, runs, show
from .commands.inspection import report as report_command
from .commands.plot import group as plot
from .failures import finished, print_error, report
from .output.streams import note, prepare_streams
from .parsing.fallback import Group

_HELP = """Train memory layers for transformers, and evolve NAMMs that evict tokens from the KV cache.

    Runs are written to results/runs, one folder each, and figures to results/figures.
    """
_EPILOG = """Examples:

  # train a small model on your own facts (columns subject, relation, object)
  memx train facts --facts my.csv

  # ask a trained model
  memx ask results/runs/RUN "LHR is in which country?"

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
    *("ask", "chat", "eval", "bench", "plot", "runs", "show", "compare", "report"),
    *("presets", "policies", "config", "doctor"),
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


for module in (
    train,
    prepare,
    convert,
    evolve_namm,
    evict,
    eval_namm,
    ask,
    chat,
    eval,
    bench,
    plot,
    runs,
    show,
    compare,
    report_command,
    presets,
    policies,
    config,
    doctor,
):
    module.register(app)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    prepare_streams()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug=len(arguments) < len(sys.argv) - 1))


@cache
def command_tree() -> Any:
    """All commands as typer makes them of their functions: the same each time, and a tenth of a second to make."""
    return typer.main.get_command(app)


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command; errors are printed on stderr.

    Args:
        arguments: The arguments that follow `memx`.
        debug: Whether to print the traceback of an error.

    Returns:
        The exit code.
    """
    try:
        result = command_tree()(args=arguments, prog_name="memx", standalone_mode=False)
        if result == 130:  # typer took the interrupt itself
            return print_error("interrupted", "", code=130)
        return finished(result if isinstance(result, int) else 0)
    except BaseException as error:  # compiled code of libraries raises some that are no Exception
        if debug:
            note(traceback.format_exc().rstrip())
        return finished(report(error))
