"""Where runs and caches lie, whether they can be written, and whether the Hugging Face hub answers. No torch here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ...files import cache_folder
from ...private_files import stranger_in
from ...results.store.runs import RunStore
from .check import Check

FOLDERS, HUB = "Folders", "Hugging Face hub"
_TIGHT = 2**30  # bytes of free disk below which there is a remark


def folder_checks(runs: Path) -> list[Check]:
    """The folders that memx writes to, and how much room they have.

    Args:
        runs: The folder of runs.
    """
    count = len(RunStore(runs).runs()) if runs.is_dir() else 0
    checks = [_folder("runs", runs, f"{count} runs", "use --runs FOLDER, or another current folder")]
    try:
        cache = cache_folder()
    except RuntimeError as error:
        return [*checks, Check(FOLDERS, "memx's cache", "note", str(error), "set XDG_CACHE_HOME")]
    kept = _folder("memx's cache", cache, "compiled loops, converted models, tuned kernels", "set XDG_CACHE_HOME")
    if kept.state == "ok" and cache.is_dir() and (stranger := stranger_in(cache)):
        kept = kept._replace(state="note", found=f"{cache}: not used for code, since {stranger}", fix="chmod go-w")
    if kept.state == "failed":  # memx compiles and converts for each process instead
        kept = kept._replace(state="note")
    return [*checks, kept, _hub_cache()]


def hub_check(patience: float = 3.0) -> Check:
    """Whether the hub answers.

    Args:
        patience: Seconds that its answer may take.
    """
    from huggingface_hub import constants

    where, needed = constants.ENDPOINT, "models, data sets and NAMMs that are named as user/name"
    if constants.HF_HUB_OFFLINE:
        found = "not asked, as HF_HUB_OFFLINE is set; its cache can be used"
        return Check(HUB, where, "note", found, "unset HF_HUB_OFFLINE", needed)
    try:
        urlopen(Request(where, method="HEAD"), timeout=patience).close()
    except HTTPError:
        return Check(HUB, where, "ok", "answers", needed_for=needed)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", None) or error)[:80]
        found = f"no answer ({reason}); its cache can be used"
        return Check(HUB, where, "missing", found, "check the network, HTTPS_PROXY or HF_ENDPOINT", needed)
    return Check(HUB, where, "ok", "answers", needed_for=needed)


def _hub_cache() -> Check:
    from huggingface_hub import constants

    checked = _folder("hub cache", Path(constants.HF_HUB_CACHE), "models and data sets of the hub", "set HF_HOME")
    return checked._replace(state="note") if checked.state == "failed" else checked


def _folder(name: str, path: Path, content: str, fix: str) -> Check:
    """A folder that memx makes when it needs it: so the nearest one above that is there counts."""
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return Check(FOLDERS, name, "failed", f"{path}: {there} is not a folder", fix)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(FOLDERS, name, "failed", f"{path}: {there} cannot be written", fix)
    free = shutil.disk_usage(there).free
    found = f"{path}: {content if path.exists() else 'made when needed'}, {free / 2**30:,.1f} GiB free"
    if free < _TIGHT:
        return Check(FOLDERS, name, "note", found, "free disk space")
    return Check(FOLDERS, name, "ok", found)
