"""`memx config show|copy`: a preset's resolved config, on the screen or as a file of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json

_EPILOG = examples(
    "memx config show facts",
    "memx config show facts --set memory.slots=4096",
    "memx config copy facts my.yaml",
)
config = typer.Typer(help="Show a preset's config, or copy it to a file.", no_args_is_help=True, epilog=_EPILOG)
Source = Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="A preset or a YAML file.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key; may be repeated.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(config, name="config")


@config.command("show", epilog=_EPILOG)
def show(
    source: Source,
    assignments: Assignments = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON on stdout.")] = False,
) -> None:
    """Print the whole resolved config as YAML."""
    from ...experiments.config.base import to_tree, to_yaml
    from ...experiments.config.loading import load_any_config, parse_assignment

    resolved = load_any_config(source, map(parse_assignment, assignments or []))
    if json:
        print_json(to_tree(resolved))
    else:
        print(to_yaml(resolved), end="")


@config.command("copy", epilog=_EPILOG)
def copy(
    source: Source,
    target: Annotated[Path, typer.Argument(help="The YAML file to write.")],
    assignments: Assignments = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write the whole resolved config to a YAML file, to edit and train from."""
    from ...errors import MemxError
    from ...experiments.config.base import to_tree, to_yaml
    from ...experiments.config.loading import load_any_config, parse_assignment
    from ...experiments.config.presets import command_of
    from ...files import write_atomically

    resolved = load_any_config(source, map(parse_assignment, assignments or []))
    if target.exists() and not force:
        raise MemxError(f"{target} exists", hint="--force overwrites it")
    write_atomically(target, to_yaml(resolved))
    note(f"wrote {target}; next: memx {command_of(to_tree(resolved))} {target}")
