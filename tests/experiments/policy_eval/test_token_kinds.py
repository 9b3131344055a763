"""Kinds of token by hand, and that real documents are covered whole."""

import pytest
from memx.experiments.data.long_context.material import documents
from memx.experiments.policy_eval.token_kinds import FUNCTION_WORDS, code_kinds, of_tokens, prose_kinds

CODE = '''"""What it is."""
# a remark
import os  # another


def area(width, height=2.5):
    r"""Multiply
    them."""
    text = "no docstring"
    "no statement of use, but a statement"
    return width * height if width else f"{text}!"
'''


def kinds_of(kinds, text, piece, times=0):
    """The kinds of a piece's characters, without repeats."""
    start = -1
    for _ in range(times + 1):
        start = text.index(piece, start + 1)
    return list(dict.fromkeys(kinds[start : start + len(piece)]))


@pytest.mark.parametrize(
    ("piece", "wanted"),
    [
        ('"""What it is."""', ["docstring"]),
        ("# a remark", ["comment"]),
        ("# another", ["comment"]),
        ("import", ["keyword"]),
        ("os", ["name"]),
        ("  # another\n", ["blanks", "comment", "newline"]),
        ("area(", ["name", "operator"]),
        ("2.5", ["number"]),
        ('r"""Multiply\n    them."""', ["docstring"]),
        ('"no docstring"', ["string"]),
        ('"no statement of use, but a statement"', ["docstring"]),
        ("width * height", ["name", "blanks", "operator"]),
        ("if width else", ["keyword", "blanks", "name"]),
        ("\n\n\n", ["newline"]),
    ],
)
def test_characters_of_code(piece, wanted):
    kinds = code_kinds(CODE)
    assert len(kinds) == len(CODE) and kinds_of(kinds, CODE, piece) == wanted


def test_parts_of_formatted_strings_are_strings_on_every_python():
    kinds = code_kinds(CODE)
    assert kinds_of(kinds, CODE, 'f"') == ["string"] and kinds_of(kinds, CODE, '!"') == ["string"]


def test_line_ends_of_all_sorts():
    text = "x = 1\r\ny = 'a'\r\n\r\nz = 2"
    kinds = code_kinds(text)
    assert kinds_of(kinds, text, "y") == ["name"] and kinds_of(kinds, text, "'a'") == ["string"]
    assert kinds_of(kinds, text, "\r\n") == ["newline"] and kinds_of(kinds, text, "2") == ["number"]


PROSE = 'Don\'t use the 2.0 API, it breaks. "Newer ones" are fine (see 3)!\n\nlists begin anew: the x1 one'


@pytest.mark.parametrize(
    ("piece", "wanted"),
    [
        ("Don't", ["first word of a sentence"]),
        ("use", ["content word"]),
        ("the", ["function word"]),
        ("2.0", ["number"]),
        (", it", ["punctuation", "blanks", "function word"]),
        ("breaks.", ["content word", "punctuation"]),
        ("Newer", ["first word of a sentence"]),
        ("are", ["function word"]),
        ("3)!", ["number", "punctuation"]),
        ("\n\n", ["newline"]),
        ("lists", ["first word of a sentence"]),
        ("begin", ["content word"]),
        ("x1", ["content word", "number"]),
    ],
)
def test_characters_of_prose(piece, wanted):
    kinds = prose_kinds(PROSE)
    assert len(kinds) == len(PROSE) and kinds_of(kinds, PROSE, piece) == wanted


def test_a_token_is_of_the_kind_of_its_first_character_that_says_something():
    text = "a  = 12\n"
    kinds = code_kinds(text)
    assert of_tokens(kinds, [(0, 1), (1, 4), (4, 6), (6, 8), (2, 3), (7, 8), (3, 3)]) == [
        "name", "operator", "number", "number", "blanks", "newline", "blanks",
    ]  # fmt: skip


def test_real_documents_have_every_kind():
    code = [kind for text in documents("python-source", "test")[:5] for kind in code_kinds(text)]
    assert set(code) == {
        "comment", "docstring", "string", "keyword", "name", "number", "operator", "blanks", "newline",
    }  # fmt: skip
    text = documents("python-docs", "test")[0]
    prose = prose_kinds(text)
    words = [kind for kind, one in zip(prose, text, strict=True) if one.isalpha()]
    assert 0.15 < words.count("function word") / len(words) < 0.5
    assert not {word for word in FUNCTION_WORDS if word != word.lower()}
