"""One command for each picture of `memx plot`, made from its entry in `results.plots.PICTURES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from ....errors import MemxError, nearest
from ....results.plots import OLD_NAMES, PICTURES, Picture, draw
from ...output.console import note, print_json, print_table, say
from ...parsing.spellings import note_change
from .options import COMMON, OF_PICTURES, WRITING

FORMATS = ("png", "svg", "pdf")
FIRST = "memory"  # what `memx plot` alone draws
_What = Annotated[str | None, typer.Option("--what", hidden=True)]


def command_of(picture: Picture) -> Callable[..., None]:
    """Make the command that draws a picture.

    Args:
        picture: The picture; its command takes the options of all pictures and its own.
    """

    def run(**given: Any) -> None:
        draw_picture(picture.name, given)

    own = {name: OF_PICTURES[name] for name in picture.options}
    return _with_parameters(run, COMMON | own | WRITING, picture.about)


def default_command() -> Callable[..., None]:
    """Make the command for `memx plot` without a picture, which also takes the old option --what."""

    def run(what: str | None = None, **given: Any) -> None:
        if what is not None:
            known = {picture.name for picture in PICTURES} | set(OLD_NAMES)
            if what not in known:
                raise MemxError(f"--what: no picture {what!r}", hint=nearest(what, known) or "see `memx plot --help`")
            note_change(f"memx plot --what {what}", f"memx plot {OLD_NAMES.get(what, what)}")
        name = what if given["name"] is None else given["name"]
        draw_picture(OLD_NAMES.get(str(what), what or FIRST), {**given, "name": name})

    parameters = COMMON | OF_PICTURES | WRITING | {"what": (_What, None)}
    return _with_parameters(run, parameters, "Draw the memory picture.")


def _with_parameters(
    run: Callable[..., None], parameters: Mapping[str, tuple[Any, Any]], doc: str
) -> Callable[..., None]:
    """Give a function of keywords the signature that typer makes a command of."""
    run.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in parameters.items()
        ]
    )
    run.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
    run.__doc__ = doc
    return run


def draw_picture(name: str, given: Mapping[str, Any]) -> None:
    """Draw a picture, and print its files and its table.

    Args:
        name: One of `PICTURES`.
        given: The values of the options, by parameter.

    Raises:
        MemxError: An option is wrong, or there is nothing to draw.
    """
    from ....results.selection import PlotOptions, PlotRequest

    options = {key: value for key, value in given.items() if key in OF_PICTURES}
    for several in {"metrics", "policies"} & options.keys():
        options[several] = [part.strip() for part in (options[several] or "").split(",") if part.strip()]
    sources: list[Path] = given["sources"] or [given["runs"]]
    _check_sources(sources)
    formats = _formats(given["formats"])
    file_name = name if given["name"] is None else given["name"]
    request = PlotRequest(sources, given["out"], file_name, formats, given["experiment"], note, PlotOptions(**options))
    written, table = draw(name, request)
    files = [str(path) for path in written]
    if given["json"]:
        print_json(files if table is None else {"files": files, "table": table.facts})
        return
    if table is not None:
        print_table(table.title, table.columns, table.lines, left=table.left, names=table.names)
    for path in files:
        say(str(path))
    note(f"the picture is {files[0]}")


def _check_sources(sources: list[Path]) -> None:
    """Raise MemxError for the name of a picture that comes after options."""
    names = {picture.name for picture in PICTURES}
    for source in sources:
        if str(source) in names and not source.exists():
            raise MemxError(f"nothing at {source}", hint=f"to draw that picture: memx plot {source} [OPTIONS]")


def _formats(text: str) -> list[str]:
    kinds = [kind.strip().lower() for kind in text.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in FORMATS]
    if unknown or not kinds:
        raise MemxError(f"--formats: no format {', '.join(unknown) or 'given'}", hint=f"use {', '.join(FORMATS)}")
    return kinds
