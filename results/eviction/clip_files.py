"""The folder of a clip's eviction: clip.html and clip.json, both or none."""

from __future__ import annotations

from pathlib import Path

from .clip_page import clip_page
from .clip_report import ClipReport, clip_facts
from .files import write_all
from .report import report_json

NAMES = ("clip.html", "clip.json")


def write_clip_report(folder: Path, report: ClipReport, *, force: bool = False) -> list[Path]:
    """Write the page and the numbers, both or none.

    Args:
        folder: New or empty; with force, files of the same names are replaced in it.
        report: What was evicted of the clip.
        force: Write into a folder that holds something.

    Returns:
        The files: clip.html, clip.json.

    Raises:
        MemxError: The folder may not be written to, or the disk is full.
    """
    contents: dict[str, str | bytes] = dict(
        zip(NAMES, (clip_page(report), report_json(clip_facts(report)) + "\n"), strict=True)
    )
    return write_all(folder, contents, force=force)
