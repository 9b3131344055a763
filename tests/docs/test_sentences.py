"""The pages and --help are read once by a stranger: no long sentences, and only words that others use too."""

import re
from collections.abc import Iterator

import pytest

from .markdown import blocks, name_of, pages, plain, split
from .printed import walk

MOST = 35  # words
BANNED = ("if not said", "goes on", "go on with", "anew", "in vain", "that there is", "so many", "of its own", "told",
          "beside", "not said", "is none")  # fmt: skip
_END = re.compile(r"[.?!:][)\"”]?(?=\s|$)")
_ABBREVIATED = re.compile(r"\b(e\.g|i\.e|et al|cf|vs|approx|Fig|No)\.(?=\s)")


def help_texts() -> list[tuple[str, str]]:
    """Place and text of every description that --help prints, without the examples."""
    found = []
    for path, command in walk():
        found.append((f"{path} --help", command.help or ""))
        found.append((f"{path} --help", (command.epilog or "").partition("Examples:")[0]))
        found += [(f"{path} --help, {one.opts[0]}", one.help or "") for one in command.params
                  if not getattr(one, "hidden", False)]  # fmt: skip
    return [(place, re.sub(r"\[/?(bold|dim|italic)\]", "", text)) for place, text in found if text]


def of_pages() -> Iterator[tuple[str, str]]:
    for page in pages():
        for block in blocks(page):
            if block.kind in ("text", "title"):
                yield f"{name_of(page)}:{block.line}", block.text


def sentences(text: str) -> Iterator[str]:
    """The sentences of a paragraph; one ends at . ? ! or : before a space, not at a semicolon."""
    text = _ABBREVIATED.sub(r"\1", plain(text))
    yield from (part for part in _END.split(text) if part.strip())


def words(sentence: str) -> list[str]:
    return [word for word in sentence.split() if re.search(r"\w", word)]


def too_long(text: str) -> list[str]:
    return [f"{len(words(one))} words: {' '.join(one.split())}" for one in sentences(text) if len(words(one)) > MOST]


def banned(text: str) -> list[str]:
    """The phrases that a text has, outside of code."""
    joined = " ".join(plain(text).split()).lower()
    return [phrase for phrase in BANNED if re.search(rf"\b{phrase}\b", joined)]


def by_page(found: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    pages_of: dict[str, list[tuple[str, str]]] = {}
    for place, text in found:
        pages_of.setdefault(re.split(r":|,", place)[0], []).append((place, text))
    return pages_of


TEXTS = by_page([*of_pages(), *help_texts()])
NOT_CODE = [(page, block) for page in pages() for block in blocks(page) if block.kind != "code"]
EVERYTHING = by_page([*help_texts(), *((f"{name_of(page)}:{block.line}", block.text) for page, block in NOT_CODE)])


@pytest.mark.parametrize("page", TEXTS)
def test_no_sentence_is_over_35_words(page):
    found = [f"{place}: {line}" for place, text in TEXTS[page] for line in too_long(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", EVERYTHING)
def test_no_page_uses_the_words_of_a_dialect(page):
    found = [f"{place}: {phrase!r}" for place, text in EVERYTHING[page] for phrase in banned(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("word " * 35 + ".", 0),
        ("word " * 36 + ".", 1),
        ("word " * 20 + "end. " + "word " * 20, 0),
        ("word " * 20 + "end; " + "word " * 20, 1),
        ("word " * 20 + "list: " + "word " * 20, 0),
        ("word " * 20 + "in 3.5 and `a. b` and [a page](x. y) " + "word " * 20, 1),
        ("word " * 34 + "`one command of many words` — 1 | 2", 2 - 1),
    ],
)
def test_words_of_sentences_are_counted(text, long):
    assert len(too_long(text)) == long


def test_a_text_is_taken_apart():
    text = "# A b\n\nOne\ntwo.\n\n- three\n- four\n\n    memx train\n\n"
    text += "| a |\n|---|\n\n```sh\nmemx plot\n```\n\n<!-- no\n-->\nfive\n"
    found = [(block.kind, block.line, block.text) for block in split(text)]
    assert found == [
        ("heading", 1, "A b"), ("text", 3, "One\ntwo."), ("text", 6, "three"), ("text", 7, "four"),
        ("code", 9, "memx train"), ("table", 11, "| a |"), ("table", 12, "|---|"), ("code", 15, "memx plot"),
        ("text", 20, "five"),
    ]  # fmt: skip


def test_phrases_are_found_outside_of_code_alone():
    assert banned("A table *beside* it, told\nso many times") == ["so many", "told", "beside"]
    assert banned("`insertion=beside`, besides, retold, [beside](x)") == ["beside"]
