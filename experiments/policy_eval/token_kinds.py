"""Text -> what kind each of its tokens is: of Python code by the language's own tokenizer, of prose by its words.

A model's token is of the kind of its first character that is not blank, if there is one: " return" is a keyword.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Sequence

BLANKS, NEWLINE = "blanks", "newline"
# articles, pronouns, prepositions, conjunctions, auxiliaries and particles: words of closed classes
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any each every either neither no all both half such another other what which
    whose i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her
    hers herself it its itself they them their theirs themselves who whom one ones someone anyone everyone nobody
    something anything everything nothing about above across after against along among around as at before behind below
    beneath beside besides between beyond by despite down during except for from in inside into like near of off on onto
    out outside over past per since than through throughout to toward towards under underneath until up upon via with
    within without and but or nor so yet if because although though while whereas unless whether when whenever where
    wherever once lest am is are was were be been being do does did done doing have has had having can could may might
    must shall should will would ought not n't 's 're 've 'll 'd 'm there here then thus hence therefore however also
    too very only just even more most less least much many few how why
    """.split()
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"\d(?:[\d.,]*\d)?")
_START = re.compile(r"(?:\A|[.!?][\"'”’)\]]*\s+|\n\s*\n)[\s\"'“‘(\[*•-]*(?=\w)")
_BY_TYPE = {tokenize.COMMENT: "comment", tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.OP: "operator"}
_UNSEEN = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_SILENT = _UNSEEN | {tokenize.COMMENT}  # what may stand before a docstring


def code_kinds(text: str) -> list[str]:
    """The kind of each character of Python code: comment, docstring, string, keyword, name, number, operator, blank.

    Raises SyntaxError or tokenize.TokenError for what is no Python.
    """
    kinds = _blank(text)
    starts = line_starts(text)
    before = tokenize.NEWLINE  # of the last token that says something: a string after it begins a statement
    for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
        kind = _code_kind(token, begins=before == tokenize.NEWLINE)
        if kind:
            first, last = (starts[row - 1] + column for row, column in (token.start, token.end))
            kinds[first:last] = [kind] * (last - first)
        if token.type not in _SILENT or token.type == tokenize.NEWLINE:
            before = token.type
    return kinds


def prose_kinds(text: str) -> list[str]:
    """The kind of each character of prose: function word, content word, first word of a sentence, number, punctuation.

    The first word of a sentence counts as that alone.
    """
    kinds = [kind or "punctuation" for kind in _blank(text, other="")]
    for found in _NUMBER.finditer(text):
        kinds[found.start() : found.end()] = ["number"] * len(found[0])
    first = {found.end() for found in _START.finditer(text)}
    for found in _WORD.finditer(text):
        kind = "function word" if found[0].lower().replace("’", "'") in FUNCTION_WORDS else "content word"
        kind = "first word of a sentence" if found.start() in first else kind
        kinds[found.start() : found.end()] = [kind] * len(found[0])
    return kinds


def of_tokens(kinds: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
    """The kind of each token that covers the characters of a span; one that covers none counts as blanks.

    A token of blanks alone is a newline if it holds one.
    """
    found = []
    for first, last in spans:
        covered = kinds[first:last]
        said = next((kind for kind in covered if kind not in (BLANKS, NEWLINE)), None)
        found.append(said or (NEWLINE if NEWLINE in covered else BLANKS))
    return found


def _code_kind(token: tokenize.TokenInfo, *, begins: bool) -> str:
    if token.type in _UNSEEN:
        return ""
    if token.type == tokenize.NAME:
        return "keyword" if keyword.iskeyword(token.string) else "name"
    if token.type == tokenize.STRING and begins:
        return "docstring"
    if tokenize.tok_name[token.type].startswith("FSTRING"):  # from Python 3.12 on parts of their own
        return "string"
    return _BY_TYPE.get(token.type, "operator")


def _blank(text: str, other: str = BLANKS) -> list[str]:
    """newline or blanks for each blank character, `other` for the rest."""
    return [(NEWLINE if one in "\r\n" else BLANKS) if one.isspace() else other for one in text]


def line_starts(text: str) -> list[int]:
    """Where each line begins, and one more for the end."""
    starts = [0]
    for line in io.StringIO(text, newline=""):
        starts.append(starts[-1] + len(line))
    return [*starts, starts[-1]]
