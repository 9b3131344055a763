"""The machinery of the documentation site: what is generated names everything, links work in both places, nav is whole.

The strict build itself is `make docs`.
"""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from memx.experiments.config.presets import all_presets
from memx.results.store.rows import ADDED, Row

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]


@pytest.fixture(scope="module")
def hooks():
    """Imports a module of docs/hooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "hooks"))
        yield import_module


def entries(nav):
    """All pages of the navigation."""
    if isinstance(nav, str):
        return [nav]
    return [page for one in nav for page in entries(next(iter(one.values())) if isinstance(one, dict) else one)]


def test_the_reference_names_every_command_and_option(hooks):
    pages = hooks("command_pages")
    text = pages.commands()
    commands = list(pages.all_commands())
    assert {"memx train", "memx bench", "memx config copy"} <= {path for path, _ in commands}
    for path, command in commands[1:]:
        section = text.partition(f"# {path}\n")[2].partition("\n#")[0]
        assert section, path
        for parameter in command.params:
            for name in pages.names(parameter):
                if not parameter.hidden and parameter.name != "help":
                    assert f"`{name}`" in section, (path, name)
                    assert parameter.help, f"{path} {name} has no help"


def test_the_reference_names_no_hidden_option(hooks):
    pages = hooks("command_pages")
    text = pages.commands()
    shown = {name for _, command in pages.all_commands() for p in command.params if not p.hidden for name in p.opts}
    hidden = {name for _, command in pages.all_commands() for p in command.params if p.hidden for name in p.opts}
    for name in hidden - shown:
        assert f"`{name}`" not in text, name


def test_the_reference_names_every_key_with_a_meaning(hooks):
    pages = hooks("config_pages")
    lines = {cells[0]: cells for cells in (line.strip("| ").split(" | ") for line in pages.keys().splitlines())}
    for model in pages.CONFIGS.values():
        for section in pages.sections(model):
            for name, field in section.model.model_fields.items():
                if f"{section.prefix}{name}." in {other.prefix for other in pages.sections(model)}:
                    continue  # a section, with a table of its own
                cells = lines[f"`{section.prefix}{name}`"]
                assert len(cells) == 4 and cells[3], f"{section.prefix}{name} has no description"
                assert field.description


def test_the_reference_names_every_preset_and_every_field_of_a_row(hooks):
    presets, fields = hooks("config_pages").presets(), hooks("row_fields").fields()
    assert all(f"| `{name}` | {about[:10]}" in presets for name, (_, about) in all_presets().items())
    assert all(f"| `{name}` |" in fields for name in (*Row.model_fields, *ADDED))
    assert all(field.description for field in Row.model_fields.values())


def test_pages_and_navigation_agree(hooks):
    links = hooks("links")
    pages = {
        links.site_path(path.relative_to(ROOT).as_posix())
        for path in DOCS.rglob("*")
        if path.suffix in (".md", ".ipynb")
    }
    listed = entries(NAV)
    assert len(listed) == len(set(listed))
    assert pages | set(links.PAGES.values()) == set(listed)


def test_links_lead_to_what_there_is(hooks):
    """In the repository; those between pages of the site are checked by its build."""
    links = hooks("links")
    sources = [path for path in (ROOT / name for name in links.PAGES) if path.exists()]
    for path in [*sources, *DOCS.rglob("*.md")]:
        source = path.relative_to(ROOT).as_posix()
        broken = links.rewrite(path.read_text("utf-8"), source, links.site_path(source)).broken
        assert not broken, f"{source} links to {broken}"


FIGURE = "results/reference/facts/memory.png"
KERNELS = "kernels/README.md"


@pytest.mark.parametrize(
    ("markdown", "rewritten"),
    [
        (f"![a](../../{FIGURE})", "![a](../assets/reference/facts/memory.png)"),
        (f"[k](../../{KERNELS}#design)", "[k](../internals/kernels.md#design)"),
        (f"[![a](../../{FIGURE})](../../{KERNELS})",
         "[![a](../assets/reference/facts/memory.png)](../internals/kernels.md)"),
        ("[n](../notebooks/evict.ipynb)", "[n](../notebooks/evict.md)"),
        ("[`op.py`](../../kernels/op.py)", "`op.py`"),
        ("[folder](../../results/reference/)", "folder"),
        ("[g](../glossary.md#slot) [w](https://a.b/c)", "[g](../glossary.md#slot) [w](https://a.b/c)"),
        ("[h](#here)", "[h](#here)"),
        (f"```sh\n[k](../../{KERNELS})\n```", f"```sh\n[k](../../{KERNELS})\n```"),
    ],
)  # fmt: skip
def test_links_to_files_of_the_repository(hooks, markdown, rewritten):
    found = hooks("links").rewrite(markdown, "docs/guides/x.md", "guides/x.md")
    assert (found.text, found.broken) == (rewritten, [])


def test_a_link_that_leads_nowhere_is_named(hooks):
    found = hooks("links").rewrite("[a](../../nothing.md) ![b](../../kernels/op.py)", "docs/guides/x.md", "guides/x.md")
    assert found.broken == ["../../nothing.md", "../../kernels/op.py"]


def test_a_notebook_becomes_a_page_with_its_saved_outputs(hooks):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "print(1)", "outputs": [
            {"output_type": "stream", "name": "stdout", "text": ["\x1b[31m1\x1b[0m\n"]},
            {"output_type": "display_data", "data": {"image/png": "aGk=", "text/plain": "<Figure>"}},
        ]},
        {"cell_type": "code", "source": "", "outputs": []},
    ]  # fmt: skip
    files = hooks("notebook_pages").convert({"cells": cells}, "notebooks/one.ipynb")
    assert files["notebooks/one-1.png"] == b"hi"
    text = files["notebooks/one.md"]
    assert text.startswith("# Title\n\n[Download the notebook](one.ipynb)")
    assert "```python\nprint(1)\n```" in text and 'title="Output"\n1\n```' in text and "](one-1.png)" in text


@pytest.mark.parametrize(
    ("text", "style", "found"),
    [
        ('<script src="https://a.b/c.js"></script>', False, ["https://a.b/c.js"]),
        ('<link rel="stylesheet" href="//fonts.b/c.css">', False, ["//fonts.b/c.css"]),
        ('<img alt="x" src="http://a.b/c.png">', False, ["http://a.b/c.png"]),
        ('<a href="https://arxiv.org/abs/1907.05242">paper</a> <img src="assets/a.png">', False, []),
        ('<code>&lt;script src="https://a.b"&gt;</code>', False, []),
        ("a { background: url(https://a.b/c.png) }", True, ["https://a.b/c.png"]),
        ('@import "https://a.b/c.css";', True, ["https://a.b/c.css"]),
        ("a { background: url(data:image/png;base64,aGk=) }", True, []),
    ],
)
def test_what_a_page_loads_from_the_network(hooks, text, style, found):
    assert hooks("offline").addresses(text, style=style) == found


def test_a_diagram_that_needs_the_network_is_found(hooks):
    assert hooks("offline").addresses('<pre class="mermaid"><code>graph</code></pre>')


def test_pages_and_settings_load_nothing_from_the_network(hooks):
    """What the build of the whole site checks again."""
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "font: false" in settings and "polyfills: [assets/javascripts/iframe-worker.js]" in settings
    assert "http" not in settings
    for path in DOCS.rglob("*"):
        if path.suffix in (".js", ".css", ".svg"):
            assert set(re.findall(r"https?://[^\s\"')]+", path.read_text("utf-8"))) <= {"http://www.w3.org/2000/svg"}, (
                path
            )
        elif path.suffix == ".md":
            text = path.read_text("utf-8")
            assert not hooks("offline").addresses(text), path
            assert not re.search(r"!\[[^\]]*\]\(https?:", text) and "```mermaid" not in text, path
