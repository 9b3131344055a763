"""Notebooks as pages: text, code and the saved outputs. They are not run when the site is built."""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Mapping
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def convert(notebook: Mapping[str, Any], source: str) -> dict[str, str | bytes]:
    """A notebook as a page.

    Args:
        notebook: The notebook, as its JSON is read.
        source: Its path from docs/.

    Returns:
        The page and its pictures, each by its path from docs/.
    """
    stem = source.removesuffix(".ipynb")
    files: dict[str, str | bytes] = {}
    parts = []
    for cell in notebook["cells"]:
        text = _text(cell["source"]).strip()
        if not text:
            continue
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code":
            parts.append(_fenced(text, "python"))
            for output in cell.get("outputs", ()):
                parts += _output(output, stem, files)
    title, _, rest = "\n\n".join(parts).partition("\n")
    name = posixpath.basename(source)
    files[f"{stem}.md"] = f"{title}\n\n[Download the notebook]({name}){{ download }}\n{rest}\n"
    return files


def _output(output: Mapping[str, Any], stem: str, files: dict[str, str | bytes]) -> list[str]:
    """The Markdown of one output of a cell; its picture is added to the files."""
    if output["output_type"] == "stream":
        return [_printed(_text(output["text"]))]
    if output["output_type"] == "error":
        return [_printed("\n".join(output["traceback"]))]
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{len(files) + 1}.png"
        files[name] = base64.b64decode(_text(data["image/png"]))
        return [f"![Output of the cell above]({posixpath.basename(name)})"]
    if "text/markdown" in data:
        return [_text(data["text/markdown"])]
    return [_printed(_text(data["text/plain"]))] if "text/plain" in data else []


def _printed(text: str) -> str:
    return _fenced(_COLOURS.sub("", text).rstrip(), 'text title="Output"')


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)
