"""The folder of an eviction: evict.html, evict.png and evict.json, all of them or none."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from ...errors import MemxError
from ...files import cannot_write, make_folder, sync_folder, write_atomically
from .figure import evict_figure
from .page import evict_page
from .report import EvictionReport, report_facts, report_json

NAMES = ("evict.html", "evict.png", "evict.json")


def check_free(folder: Path, *, force: bool = False) -> None:
    """Raise MemxError if a folder is a file, or holds anything and may not be written to."""
    if folder.exists() and not folder.is_dir():
        raise MemxError(f"--out: {folder} is not a folder", hint="give a new folder")
    if not force and folder.is_dir() and any(folder.iterdir()):
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
    check_free(folder, force=force)
    contents = dict(
        zip(NAMES, (evict_page(report), _png(report), report_json(report_facts(report)) + "\n"), strict=True)
    )
    make_folder(folder.parent)
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        for name, content in contents.items():
            write_atomically(temporary / name, content)
        folder.mkdir(exist_ok=True)
        for name in NAMES:
            (temporary / name).replace(folder / name)
        sync_folder(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return [folder / name for name in NAMES]


def _png(report: EvictionReport) -> bytes:
    from matplotlib import pyplot

    picture = io.BytesIO()
    figure = evict_figure(report)
    figure.savefig(picture, format="png", dpi=160)
    pyplot.close(figure)
    return picture.getvalue()
