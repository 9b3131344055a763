"""A page of Markdown, as GitHub and mkdocs show it, taken apart: code, paragraphs, tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("sh", "bash", "shell", "console")

_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*\{?\s*\.?([\w+-]*)")
_CONTAINER = re.compile(r"^(!!!|\?\?\?\+?|===)\s+(.*)$")  # admonitions and tabs: what is indented below belongs to them
_GENERATED = re.compile(r"^:::\s")  # mkdocstrings: the lines below are its options
_ITEM = re.compile(r"^\s*([-*+]|\d+[.)])\s+")
_COMMAND = re.compile(r"^\s*(memx|torchrun|make|pip|hf) ")
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_TARGET = re.compile(r"^\s*\[[^\]]+\]:\s+(\S+)")  # [name]: target
Numbered = tuple[int, str]


@dataclass(frozen=True)
class Block:
    """A part of a page: code (with its language; none if it is indented), text, table, heading or title."""

    kind: str
    line: int
    text: str
    language: str = ""


def pages() -> list[Path]:
    """Every page that people read on GitHub or in the documentation, but the change log."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found += sorted(ROOT.glob("*/README.md")) + sorted(ROOT.glob("experiments/**/README.md"))
    found += sorted((ROOT / "docs").rglob("*.md"))
    return list(dict.fromkeys(path for path in found if path.is_file()))


def name_of(page: Path) -> str:
    """The page's path below the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The parts of a page, in order."""
    return list(split(page.read_text("utf-8")))


def split(text: str) -> Iterator[Block]:
    """The parts of a text. HTML comments and front matter are left out."""
    text = re.sub(r"\A---\n.*?\n---\n", _blank, text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", _blank, text, flags=re.DOTALL)
    yield from _split(list(enumerate(text.splitlines(), start=1)))


def _blank(match: re.Match[str]) -> str:
    """As many lines as before, so that numbers of lines stay."""
    return "\n" * match[0].count("\n")


def _split(lines: Sequence[Numbered]) -> Iterator[Block]:
    place, in_list = 0, False
    paragraph: list[Numbered] = []

    def ended() -> Iterator[Block]:
        if paragraph:
            yield Block("text", paragraph[0][0], "\n".join(text for _, text in paragraph))
            paragraph.clear()

    while place < len(lines):
        number, text = lines[place]
        bare = text.strip()
        if fence := _FENCE.match(text):
            yield from ended()
            end = _closing(lines, place, fence)
            body = [line.removeprefix(fence[1]) for _, line in lines[place + 1 : end]]
            yield Block("code", number + 1, "\n".join(body), fence[3] or "text")
            place = end + 1
            continue
        if (box := _CONTAINER.match(bare)) or _GENERATED.match(bare):
            yield from ended()
            end = _indented(lines, place)
            if box:
                yield Block("title", number, box[2].partition('"')[2].rstrip('"'))
                cut = len(text) - len(text.lstrip()) + 4
                yield from _split([(n, line[cut:]) for n, line in lines[place + 1 : end]])
            place = end
            continue
        if not paragraph and text.startswith("    ") and (not in_list or _COMMAND.match(text)):
            end = _indented(lines, place - 1, least=4)
            body = lines[place:end]
            yield Block("code", number, "\n".join(line[4:] for _, line in body).rstrip("\n"), "")
            place = end
            continue
        place += 1
        if not bare or bare.startswith(("|", "--8<--", "#", "---")) or _TARGET.match(text):
            yield from ended()
            in_list = in_list and not bare
            if bare.startswith("#"):
                yield Block("heading", number, bare.lstrip("#").strip())
            elif bare.startswith("|"):
                yield Block("table", number, bare)
            continue
        if _ITEM.match(text):
            yield from ended()
            in_list = True
        elif not paragraph and not text.startswith(" "):
            in_list = False
        paragraph.append((number, _ITEM.sub("", text).strip() if _ITEM.match(text) else bare))
    yield from ended()


def _closing(lines: Sequence[Numbered], place: int, fence: re.Match[str]) -> int:
    """Where the fence that opens at a place closes."""
    for at in range(place + 1, len(lines)):
        bare = lines[at][1].strip()
        if bare.startswith(fence[2]) and not bare.strip(fence[2][0]):
            return at
    raise AssertionError(f"line {lines[place][0]} opens a code block that never closes")


def _indented(lines: Sequence[Numbered], place: int, least: int | None = None) -> int:
    """The end of the lines below a place that are indented more than it is, or blank and followed by such."""
    if least is None:
        opening = lines[place][1]
        least = len(opening) - len(opening.lstrip()) + 4
    end = place + 1
    for at in range(place + 1, len(lines)):
        text = lines[at][1]
        if text.strip():
            if not text.startswith(" " * least):
                break
            end = at + 1
    return end


def plain(text: str) -> str:
    """Text as it is read: links by their words, code as one word, no marks of emphasis or HTML."""
    text = re.sub(r"(`+)(.+?)\1", "CODE", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)(\{[^}]*\})?", " ", text)
    for _ in range(2):  # a link around a badge
        text = re.sub(r"\[([^\]\[]*)\](\([^)]*\)|\[[^\]]*\])(\{[^}]*\})?", r"\1", text)
    text = re.sub(r"<[^<>]+>", " ", text)
    return re.sub(r"\*\*|__|(?<!\w)[*_]|[*_](?!\w)", "", text)


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Line and target of each link and image of a page, in HTML too."""
    text = page.read_text("utf-8")
    for block in split(text):
        if block.kind != "code":
            cleaned = re.sub(r"(`+)(.+?)\1", "", block.text, flags=re.DOTALL)
            found = [*_LINK.finditer(cleaned), *re.finditer(r"(?:src|href)=\"([^\"]+)\"", cleaned)]
            yield from ((block.line, match[1]) for match in found)
            yield from (  # a badge in a link
                (block.line, match[1]) for match in re.finditer(r"\]\(([^)\s]+)\)\]\(", cleaned)
            )
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TARGET.match(line):
            yield number, match[1]


def anchors(page: Path) -> set[str]:
    """What a link may name after #: headings as GitHub and as mkdocs spell them, and explicit ids."""
    found: set[str] = set(re.findall(r"(?:\{ ?#|\bid=\"|\bname=\")([\w.-]+)", page.read_text("utf-8")))
    for block in blocks(page):
        if block.kind == "heading":
            words = re.sub(r"[^\w\s-]", "", re.sub(r"\{[^}]*\}", "", plain_heading(block.text)).lower()).strip()
            found |= {re.sub(r"\s", "-", words), re.sub(r"[-\s]+", "-", words)}
    return found


def plain_heading(text: str) -> str:
    """A heading without marks; its code stays."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "").replace("*", "")
