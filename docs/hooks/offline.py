"""What a page would load from the network: nothing may, so that the site works from a disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_TAG = re.compile(r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*>", flags=re.IGNORECASE)
_ADDRESS = re.compile(r"\b(?:src|href|srcset|data)=[\"']?((?:https?:)?//[^\s\"'>]+)", flags=re.IGNORECASE)
_STYLE = re.compile(r"url\(\s*[\"']?((?:https?:)?//[^)\"']+)|@import\s+[\"']((?:https?:)?//[^\"']+)")
_MERMAID = re.compile(r"<(?:pre|div)[^>]*class=\"[^\"]*\bmermaid\b")


def addresses(text: str, *, style: bool = False) -> list[str]:
    """The addresses that a page, or with `style` a style sheet, loads when it is shown; links to click are none."""
    if style:
        return [one or other for one, other in _STYLE.findall(text)]
    found = [address for tag in _TAG.findall(text) for address in _ADDRESS.findall(tag)]
    return found + ["mermaid, which the theme loads from the network"] * bool(_MERMAID.search(text))


def loaded(site: Path) -> Iterator[tuple[str, str]]:
    """Every page and style sheet of a built site with each address that it loads."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            for address in addresses(path.read_text("utf-8"), style=path.suffix == ".css"):
                yield path.relative_to(site).as_posix(), address
