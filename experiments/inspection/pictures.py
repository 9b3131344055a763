"""The pictures of `memx plot` that fit runs -> inline SVG for a page, each with its words and its table."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MemxError
from ...results.labels import Table
from ...results.plots import PICTURES, draw
from ...results.selection import PlotRequest
from ...results.store.runs import Run, run_config

_ID = re.compile(r'(\bid="|url\(#|xlink:href="#|\bhref="#)')
_SIZE = re.compile(r'<svg\b[^>]*?\bviewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


class Drawing(NamedTuple):
    """A picture on a page.

    Attributes:
        name: As `memx plot` calls it.
        about: What it shows, for people who cannot see it too.
        svg: An svg element without a size of its own.
        width: Its natural width in points.
        table: The same in numbers; None if the picture has none.
        command: The command that draws it into a file.
    """

    name: str
    about: str
    svg: str
    width: float
    table: Table | None
    command: str


def drawings(runs: Sequence[Run], command: str, progress: Callable[[str], None] = lambda text: None) -> list[Drawing]:
    """Draw every picture that fits the runs.

    Args:
        runs: Runs of one command.
        command: The command, such as train.
        progress: Gets the name of each picture before it is drawn.
    """
    about = {picture.name: picture.about for picture in PICTURES}
    found = []
    with tempfile.TemporaryDirectory(prefix="memx-report-") as folder:
        for number, name in enumerate(_fitting(runs, command)):
            progress(name)
            request = PlotRequest([run.folder for run in runs], Path(folder), name, ("svg",))
            try:
                drawn = draw(name, request)
            except MemxError:  # these runs have nothing for it, or do not belong in one picture
                continue
            svg, width = inline(drawn.files[0].read_text("utf-8"), f"{command}-{number}-", about[name])
            sources = " ".join(str(run.folder) for run in runs[:2]) + (" ..." if len(runs) > 2 else "")
            found.append(Drawing(name, about[name], svg, width, drawn.table, f"memx plot {name} {sources}"))
    return found


def inline(text: str, prefix: str, about: str) -> tuple[str, float]:
    """An SVG file as part of a page.

    Args:
        text: The file.
        prefix: Of every id in it, so that several can be on one page.
        about: What it shows.

    Returns:
        The element, as wide as its place on the page, and its natural width in points.
    """
    start = _SIZE.search(text)
    assert start is not None
    width, height = float(start[1]), float(start[2])
    inside = text[start.end() : text.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = _ID.sub(lambda found: found[1] + prefix, inside)
    opening = (
        f'<svg role="img" aria-labelledby="{prefix}title" viewBox="0 0 {width:g} {height:g}" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return f'{opening}<title id="{prefix}title">{_escaped(about)}</title>{inside}</svg>', width


def _fitting(runs: Sequence[Run], command: str) -> list[str]:
    if command == "evolve-namm":
        return ["evolution", "pareto"]
    if command == "eval-namm":
        return ["namm", "layers", "evicted", "before-after"]
    if command == "eval":
        return ["qa"]
    configs = [run_config(run) for run in runs]
    if any(config.get("trains") for config in configs):  # no language models
        return ["loss"]
    names = ["kinds"] if any(config.get("variant") for config in configs) else ["memory"]
    names += ["finetune"] if any(_finetune(config).get("source") for config in configs) else []
    names += ["continual"] if any(_finetune(config).get("parts") for config in configs) else []
    return [*names, "loss", "usage"]


def _finetune(config: dict[str, Any]) -> dict[str, Any]:
    section = config.get("finetune")
    return section if isinstance(section, dict) else {}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
