"""The folder of an eviction: evict.html, evict.png and evict.json, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...errors import MemxError
from ...files import write_atomically
from ..store.claims import content, empty, owned, replacing, settle
from ..style import picture_of
from .figure import evict_figure
from .page import evict_page
from .report import EvictionReport, report_facts, report_json

NAMES = ("evict.html", "evict.png", "evict.json")


def check_free(folder: Path, *, force: bool = False) -> None:
    """Raise MemxError if a folder is a file, or holds anything and may not be written to."""
    if folder.exists() and not folder.is_dir():
        raise MemxError(f"--out: {folder} is not a folder", hint="give a new folder")
    if not force and content(folder):
        raise MemxError(f"--out: {folder} exists", hint="give another folder, or add --force")


def write_report(folder: Path, report: EvictionReport, *, force: bool = False) -> list[Path]:
    """Write the page, the picture and the facts, all of them or none.

    Args:
        folder: New or empty; with force, files of the same names are replaced in it.
        report: What was evicted.
        force: Write into a folder that holds something.

    Returns:
        The files: evict.html, evict.png, evict.json.

    Raises:
        MemxError: The folder may not be written to, or the disk is full.
    """
    contents: dict[str, str | bytes] = dict(
        zip(NAMES, (evict_page(report), _png(report), report_json(report_facts(report)) + "\n"), strict=True)
    )
    return write_all(folder, contents, force=force)


def write_all(folder: Path, contents: Mapping[str, str | bytes], *, force: bool = False) -> list[Path]:
    """Write files into a folder, all of them or none.

    Args:
        folder: New or empty; with force, files of the same names are replaced in it.
        contents: What each file holds, by its name.
        force: Write into a folder that holds something.

    Returns:
        The files.

    Raises:
        MemxError: The folder may not be written to, or the disk is full.
    """
    check_free(folder, force=force)
    names = tuple(contents)

    def is_whole(one: Path) -> bool:
        return all((one / name).is_file() for name in names)

    busy = MemxError(f"--out: another process is writing {folder}", hint="give another folder")
    with owned(folder, busy, wait=10, leave_lock=False):
        settle(folder, is_whole, names)
        check_free(folder, force=force)
        with replacing(folder, is_whole, force=force, names=names):
            try:
                for name, text in contents.items():
                    write_atomically(folder / name, text)
            except BaseException:
                empty(folder, names)  # before what was there comes back
                raise
    return [folder / name for name in names]


def _png(report: EvictionReport) -> bytes:
    from matplotlib import pyplot

    figure = evict_figure(report)
    picture = picture_of(figure, "png")
    pyplot.close(figure)
    return picture
