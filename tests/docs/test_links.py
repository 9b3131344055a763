"""Links of the pages lead somewhere; the README is short and says how to see memx work."""

import pytest

from .markdown import ROOT, anchors, links, name_of, pages
from .printed import of_pages

MADE = "docs/reference/"  # pages of this folder have more headings on the site than in the repository
ELSEWHERE = ("http:", "https:", "mailto:")


def broken(page):
    """Line, target and what is wrong with each link of a page that leads nowhere."""
    for line, target in links(page):
        if target.startswith(ELSEWHERE):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists():
            yield f"{name_of(page)}:{line}: {target}: there is no {path}"
        elif not place.is_relative_to(ROOT):
            yield f"{name_of(page)}:{line}: {target} leads out of the repository"
        elif anchor and place.suffix == ".md" and not name_of(place).startswith(MADE) and anchor not in anchors(place):
            yield f"{name_of(page)}:{line}: {target}: {path or 'the page'} has no heading {anchor}"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page):
    found = list(broken(page))
    assert not found, "\n".join(found)


def test_links_that_lead_nowhere_are_found(tmp_path, monkeypatch):
    from . import markdown, test_links

    for module in (markdown, test_links):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    (tmp_path / "docs").mkdir()
    page.write_text(
        "# One `thing`, two\n\n[a](#one-thing-two) [b](page.md#three) ![c](gone.png) [![d](gone.svg)](docs)\n"
        '<img src="gone.gif"> `[e](gone)` [f](/etc) [g](https://example.org/gone)\n\n```\n[h](gone)\n```\n'
    )
    found = sorted(line.split(": ")[1] for line in broken(page))
    assert found == ["/etc leads out of the repository", "gone.gif", "gone.png", "gone.svg", "page.md#three"]


def test_the_readme_is_short_and_says_how_to_see_memx_work():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 170
    printed = [line for line, place in of_pages() if place.startswith("README.md:")]
    assert "make demo" in printed and "make test" in printed
