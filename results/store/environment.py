"""What a result may depend on beside its config: versions of packages, git commit, command line."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "triton", "transformers", "tokenizers", "safetensors", "numpy", "pandas")


def environment() -> dict[str, Any]:
    """What a result may depend on beside its config: versions, commit, command."""
    return {
        "memx": _version("memx"),
        "commit": commit(),
        "python": sys.version.split()[0],
        "platform": sys.platform,
        "packages": {name: _version(name) for name in _PACKAGES},
        "command": " ".join(["memx", *sys.argv[1:]]),
    }


def commit() -> str:
    """The git commit of memx's own checkout, with + if files differ from it; empty when installed from a wheel."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    git = ["git", "-C", str(here)]
    try:
        revision = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return revision.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
