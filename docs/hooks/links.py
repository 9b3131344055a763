"""Links of pages to files of the repository, rewritten to what the site has in their place.

Pages link with paths that work in the repository, such as `../../results/reference/facts/memory.png`. On the site
figures and rows lie below `assets/reference/`, the READMEs of folders are pages, and other files are not there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# files outside of docs/ that are pages of the site
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "memory_layers/README.md": "internals/memory-layers.md",
    "namm/README.md": "internals/namm.md",
    "kernels/README.md": "internals/kernels.md",
    "experiments/data/corpus/README.md": "internals/corpus.md",
}
REFERENCE = "results/reference"
COPIED = (".png", ".svg", ".jsonl")  # of results/reference

_FENCE = re.compile(r"(^ *(?:```|~~~).*?^ *(?:```|~~~) *$)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)((?:\s+\"[^\"]*\")?)\)")
_ATTRIBUTE = re.compile(r"\b(src|href)=\"([^\"]+)\"")
_ELSEWHERE = re.compile(r"^(?:[a-z]+:|#|/)")


class Rewritten(NamedTuple):
    """A page's text with the links of the site, and the links that lead nowhere."""

    text: str
    broken: list[str]


def rewrite(text: str, source: str, page: str) -> Rewritten:
    """Rewrite the links of a text for the page that shows it.

    Args:
        text: Markdown; links in fenced code stay as they are.
        source: The file that the text stands in, as a path from the root of the repository.
        page: The page that shows it, as a path from docs/.

    Returns:
        The text. A link to a file that the site does not have keeps its words alone.
    """
    broken: list[str] = []

    def link(found: re.Match[str]) -> str:
        image, words, target, title = found.groups()
        words = _LINK.sub(link, words)
        new = _target(target, source, page)
        if new is None and (image or not _exists(target, source)):
            broken.append(target)
            new = target
        return words if new is None else f"{image}[{words}]({new}{title})"

    def attribute(found: re.Match[str]) -> str:
        name, target = found.groups()
        new = _target(target, source, page)
        if new is None:
            broken.append(target)
        return f'{name}="{new or target}"'

    parts = _FENCE.split(text)
    for place in range(0, len(parts), 2):  # the odd ones are code
        parts[place] = _ATTRIBUTE.sub(attribute, _LINK.sub(link, parts[place]))
    return Rewritten("".join(parts), broken)


def site_path(path: str) -> str | None:
    """Where the site has a file of the repository, as a path from its root; None: it has not."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith(REFERENCE + "/") and path.endswith(COPIED):
        return f"assets/{path.removeprefix('results/')}"
    if path.startswith("docs/") and not (ROOT / path).is_dir():
        inside = path.removeprefix("docs/")
        return inside.removesuffix(".ipynb") + ".md" if inside.endswith(".ipynb") else inside
    return None


def reference_files() -> dict[str, Path]:
    """Figures and rows of results/reference, by their path on the site."""
    files = (path for path in sorted((ROOT / REFERENCE).rglob("*")) if path.suffix in COPIED)
    return {f"assets/{path.relative_to(ROOT / 'results').as_posix()}": path for path in files}


def _target(target: str, source: str, page: str) -> str | None:
    """A link's target on the site, relative to the page; None if the site does not have it."""
    if _ELSEWHERE.match(target):
        return target
    path, hash_sign, fragment = target.partition("#")
    found = site_path(_in_repository(path, source))
    return None if found is None else posixpath.relpath(found, posixpath.dirname(page) or ".") + hash_sign + fragment


def _exists(target: str, source: str) -> bool:
    return (ROOT / _in_repository(target.partition("#")[0], source)).exists()


def _in_repository(path: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
