"""What a user calls a saved NAMM -> its folder: a folder or run, a NAMM that memx ships, or a hub name. No torch."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from ...errors import MemxError, nearest
from ...hub import fetch_error, quick_hub

TENSORS, DESCRIPTION, CARD = "namm.safetensors", "namm.json", "README.md"
FILES = (DESCRIPTION, TENSORS, CARD)
SHIPPED = Path(__file__).resolve().parents[1] / "shipped"  # a folder for each NAMM that comes with memx
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_IN_RUN = "namm"  # where the run of an evolution has its NAMM
_SAVED = "give a folder written by memx.namm.save, e.g. RUN/namm"


def shipped_namms() -> dict[str, str]:
    """The NAMMs that come with memx.

    Returns:
        From each name that `load` takes to a line on what the NAMM is: the first paragraph of its card.

    Example:
        ```python
        import memx

        for name, about in memx.namm.shipped_namms().items():
            print(name, about)
        ```
    """
    folders = sorted(path.parent for path in SHIPPED.glob(f"*/{DESCRIPTION}"))
    return {folder.name: _about(folder / CARD) for folder in folders}


def is_shipped(place: str | PathLike[str]) -> bool:
    """Whether a place is the name of a NAMM that comes with memx, and no folder here."""
    return not Path(place).exists() and str(place) in shipped_namms()


def find_namm(place: str | PathLike[str], revision: str | None = None) -> Path:
    """The folder of a saved NAMM.

    Args:
        place: A folder written by `save`; the folder of a run of `memx evolve-namm`; one of `shipped_namms`; or the
            name of a repository on the Hugging Face hub, as `user/repo`. What exists here wins over names.
        revision: Branch, tag or commit of a hub repository.

    Returns:
        The folder; for a hub name, that in the cache of the hub, to which the NAMM is downloaded if needed.

    Raises:
        MemxError: There is no such folder and no such name, or the hub cannot be reached.
    """
    folder, name = Path(place), str(place)
    try:
        if folder.exists():
            in_run = folder / _IN_RUN
            return in_run if not (folder / DESCRIPTION).exists() and (in_run / DESCRIPTION).is_file() else folder
    except OSError:
        return folder  # reading it says why
    shipped = shipped_namms()
    if name in shipped:
        return SHIPPED / name
    if HUB_NAME.fullmatch(name):
        return _download(name, revision)
    if len(folder.parts) > 1:
        raise MemxError(f"no NAMM: {folder} is not a folder", hint=_SAVED)
    known = f"; memx ships {' and '.join(shipped)}" if shipped else ""
    raise MemxError(
        f"no NAMM: {name!r} is not a folder, and memx ships no NAMM of that name",
        hint=nearest(name.lower(), shipped) or _SAVED + known,
    )


def _download(name: str, revision: str | None) -> Path:
    """The NAMM of a hub repository in the cache of the hub."""
    from huggingface_hub import snapshot_download

    try:
        with quick_hub():
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except MemxError:
        raise
    except Exception as error:  # huggingface_hub raises those of its HTTP library too
        raise fetch_error(error, "NAMM", name, revision) from None
    for file in (DESCRIPTION, TENSORS):
        if not (folder / file).is_file():
            hint = "give a repository written by memx.namm.push_to_hub"
            raise MemxError(f"{name} on the Hugging Face hub contains no {file}", hint=hint)
    return folder


def _about(card: Path) -> str:
    """The paragraph below the first heading of a card, in one line; empty if there is none."""
    try:
        text = card.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.search(r"^# .*\n\s*((?:[^\n#|`\s][^\n]*\n?)+)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""
