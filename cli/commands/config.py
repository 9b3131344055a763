"""`memx config show|copy`: the resolved config of a preset or file, on the screen or as a new file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json, say
from ..parsing.fallback import Group
from ..parsing.spellings import Command
from .completion import complete_presets
from .options import UTILITIES, option

_EPILOG = examples(
    "memx config show facts", "memx config show facts --set memory.slots=4096", "memx config copy facts my.yaml"
)
config = typer.Typer(
    cls=Group,
    help="Show or copy the config of a preset, with a comment on each key.",
    no_args_is_help=True,
    epilog=_EPILOG,
)
Source = Annotated[
    str, typer.Argument(metavar="PRESET|FILE.yaml", help="A preset or a config file.", autocompletion=complete_presets)
]
Target = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Config file to write.")]
Assignments = Annotated[
    list[str] | None,
    option("--set", metavar="KEY=VALUE", help="Set any config key, e.g. training.batch=64. Repeatable."),
]
Json = Annotated[bool, option("--json", help="Print as JSON on stdout, without comments.")]
Force = Annotated[bool, option("--force", help="Overwrite an existing file.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app.

    Args:
        app: The app of memx.
    """
    app.add_typer(config, name="config", rich_help_panel=UTILITIES)


@config.command("show", cls=Command, epilog=_EPILOG)
def show(source: Source, assignments: Assignments = None, json: Json = False) -> None:
    """Print every key of a config as YAML, with a comment on each."""
    from ...experiments.config.base import to_tree, to_yaml
    from ...experiments.config.loading import load_any_config, parse_assignment

    resolved = load_any_config(source, map(parse_assignment, assignments or []))
    if json:
        print_json(to_tree(resolved))
    else:
        say(to_yaml(resolved, comments=True), end="")


@config.command("copy", cls=Command, epilog=_EPILOG)
def copy(source: Source, target: Target, assignments: Assignments = None, force: Force = False) -> None:
    """Write every key of a config to a new YAML file, to edit and run."""
    from ...errors import MemxError
    from ...experiments.config.base import to_tree, to_yaml
    from ...experiments.config.loading import load_any_config, parse_assignment
    from ...experiments.config.presets import command_of
    from ...files import cannot_write, write_atomically

    resolved = load_any_config(source, map(parse_assignment, assignments or []))
    if target.suffix not in (".yaml", ".yml"):
        raise MemxError(f"{target} is no name of a config file", hint="give one that ends in .yaml")
    try:
        if (target.is_symlink() or target.exists()) and (not force or not target.is_file()):
            hint = "use --force to overwrite it" if target.is_file() else "give another name"
            raise MemxError(f"{target} exists{'' if target.is_file() else ' and is no file'}", hint=hint)
    except OSError as error:
        raise cannot_write(target, error) from None
    write_atomically(target, to_yaml(resolved, comments=True), replace=force)
    note(f"wrote {target}; next: memx {command_of(to_tree(resolved))} {shlex.quote(str(target))}")
