"""YAML text that a user or a damaged disk may have written -> values, or one plain reason why it is refused.

The words of YAML 1.2 count: true and false, decimal numbers, null. So `no`, `010`, `1:30` and dates are the texts that
were written, and keys are always texts.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

CHARACTERS = 200_000  # of a text, which takes seconds to read
NODES = 100_000  # keys and values, where each alias counts as all that it stands for
LEVELS = 50  # of lists and sections inside each other
DIGITS = 400  # of an integer
_OFFICIAL = "tag:yaml.org,2002:"
_TEXT, _MERGE = f"{_OFFICIAL}str", f"{_OFFICIAL}merge"
_WRITTEN_TAGS = (None, "!", _TEXT, f"{_OFFICIAL}map", f"{_OFFICIAL}seq")
_SHOWN = 60
_WORDS = {
    "expected the node content, but found": "a value is missing before",
    "mapping values are not allowed here": "a `:` that no key can have here",
    "could not find expected ':'": "a `:` is missing after a key",
    "'<stream end>'": "the end",
    "'<document start>'": "`---`",
}


class BadYaml(ValueError):
    """Text that is refused.

    Args:
        reason: What is wrong with it, in plain words.
        line: The line of the text, from 1 on; 0 if it is not known.

    Attributes:
        reason: The reason.
        line: The line.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line

    @property
    def place_and_reason(self) -> str:
        """The reason after the line, where that is known."""
        return f"line {self.line}: {self.reason}" if self.line else self.reason


def parse_yaml(text: str | bytes) -> Any:
    """Read the one value of a YAML text, with limits that hold on every machine.

    Args:
        text: The text; bytes are UTF-8, with or without a byte order mark.

    Returns:
        The value: sections with texts as keys, lists, texts, numbers, true, false and null.

    Raises:
        BadYaml: The text is no YAML, has a key twice, several documents, a tag, an alias inside its own anchor, half of
            a character, or is too large or too deep.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadYaml("not UTF-8", text.count(b"\n", 0, error.start) + 1) from None
    if len(text) > CHARACTERS:
        raise BadYaml(f"more than {CHARACTERS:,} characters")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        raise BadYaml("a character that YAML does not allow, such as a control character", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadYaml(_plain(error.problem or "malformed"), mark.line + 1 if mark else 0) from None


def _plain(problem: str) -> str:
    for theirs, ours in _WORDS.items():
        problem = problem.replace(theirs, ours)
    if problem.startswith("but found another document"):
        return "a second document begins; one file holds one"
    return shortened(problem)


def shortened(text: str, limit: int = _SHOWN) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= limit else text[:limit] + "…"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses what a config never needs before anything is built of it."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own name; filled below

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # of each finished node: nodes and levels in it

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node and everything below it."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        self._level += 1
        if self._level > LEVELS:
            raise BadYaml(f"nested deeper than {LEVELS} levels", line)
        node: Any = super().compose_node(parent, index)
        self._level -= 1
        if getattr(event, "tag", None) not in _WRITTEN_TAGS:
            raise BadYaml(f"the tag {shortened(event.tag.replace(_OFFICIAL, '!!'))} is not supported", line)
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise BadYaml(f"the alias *{shortened(event.anchor)} stands inside its own anchor", line)
            return node
        self._check(node, line)
        return node

    def _check(self, node: Any, line: int) -> None:
        if isinstance(node, yaml.ScalarNode):
            inside = []
            if any("\ud800" <= letter <= "\udfff" for letter in node.value):
                raise BadYaml("a lone surrogate (half of a character)", line)
        else:
            inside = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes = [self._sizes[id(one)] for one in inside]
        nodes, levels = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
        if nodes > NODES:
            raise BadYaml(f"more than {NODES:,} keys and values, counted with what the aliases stand for", line)
        if levels > LEVELS:
            raise BadYaml(f"nested deeper than {LEVELS} levels", line)
        self._sizes[id(node)] = (nodes, levels)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a section. Its keys become texts; the same key twice is refused."""
        section: Any = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for place, (key, value) in enumerate(section.value):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise BadYaml("a key that is a list or a section", line)
            if key.value in seen:
                raise BadYaml(f"the key {shortened(key.value)!r} occurs twice", line)
            seen.add(key.value)
            if key.tag not in (_TEXT, _MERGE):
                key = yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark)
                self._sizes[id(key)] = (1, 1)
                section.value[place] = (key, value)
        return section

    def construct_yaml_int(self, node: Any) -> int:
        """An integer of a bounded number of digits."""
        if len(node.value) > DIGITS:
            raise BadYaml(f"an integer of more than {DIGITS} digits", node.start_mark.line + 1)
        return super().construct_yaml_int(node)


# each pattern is a part of PyYAML's own, so that what PyYAML writes is read as it was
for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_OFFICIAL + _kind, re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(f"{_OFFICIAL}int", _Loader.construct_yaml_int)
