"""Events of MkDocs: pages and figures that lie outside of docs/, and parts of pages that are made from the code."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import command_pages
import config_pages
import links
import notebook_pages
import offline
import row_fields
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks")
# `<!-- generated: NAME -->` in a page is replaced by what its function writes
GENERATED: dict[str, Callable[[], str]] = {
    "commands": cache(command_pages.commands),
    "config-keys": cache(config_pages.keys),
    "presets": cache(config_pages.presets),
    "row-fields": cache(row_fields.fields),
}
_MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", flags=re.MULTILINE)
_INCLUDE = re.compile(r"^(?:<!-- include: (\S+) -->|--8<-- \"(\S+)\")$", flags=re.MULTILINE)

# the repository's root is the package memx, whatever the folder is called: docstrings are read through a link to it
_PACKAGES = tempfile.TemporaryDirectory(prefix="memx-docs-")


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Say where the docstrings are, before the plugin that reads them looks for them."""
    link = Path(_PACKAGES.name) / "memx"
    if not link.exists():
        link.symlink_to(links.ROOT, target_is_directory=True)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_PACKAGES.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add figures, READMEs of folders and notebooks to the files of the site."""
    for uri, path in links.reference_files().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    for source, uri in links.PAGES.items():
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=_included(source, uri)))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = json.loads(file.content_string)
        for uri, content in notebook_pages.convert(notebook, file.src_uri).items():
            files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill what is generated or included, and rewrite links to files of the repository."""
    uri = page.file.src_uri
    if page.file.generated_by is None:
        markdown = _rewritten(markdown, f"docs/{uri}", uri)
    markdown = _INCLUDE.sub(lambda found: _included(found[1] or found[2], uri), markdown)
    return _MARKER.sub(lambda found: _generated(found[1], uri), markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of what would be loaded from the network."""
    for page, address in offline.loaded(Path(config.site_dir)):
        log.warning("%s loads %s", page, address)


def _included(source: str, uri: str) -> str:
    return _rewritten((links.ROOT / source).read_text("utf-8"), source, uri)


def _rewritten(text: str, source: str, uri: str) -> str:
    new = links.rewrite(text, source, uri)
    for target in new.broken:
        log.warning("%s links to %s, which does not exist", source, target)
    return new.text


def _generated(name: str, uri: str) -> str:
    if name not in GENERATED:
        log.warning("%s: nothing generates %r; there are: %s", uri, name, ", ".join(GENERATED))
        return ""
    return GENERATED[name]()
