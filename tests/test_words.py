"""Errors, hints, notes, help and descriptions of config keys are plain, standard and short."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin

import pytest
from memx.experiments.config.eviction.evolution import EvolveConfig
from memx.experiments.config.eviction.policy_eval import EvalConfig
from memx.experiments.config.question_answering import QaConfig
from memx.experiments.config.training import TrainConfig
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("cli", "experiments", "namm", "memory_layers", "results", "kernels")
SAID = {  # calls whose positional arguments are read by users
    "MemxError", "UnsharedError", "Refusal", "Interrupted", "LostRank", "Note", "Phase", "note", "notes", "_note",
    "warn",
}  # fmt: skip
READ = {"hint", "help", "short_help", "epilog", "description"}  # keyword arguments that are
BANNED = (
    "if not said", "not said", "goes on", "go on with", "anew", "in vain", "that there is", "so many", "of its own",
    "is none", "told", "said", "held", "beside", "mend", "speaks of", "speak of",
)  # fmt: skip
MOST_WORDS, MOST_CHARACTERS = 35, 120  # of a sentence; of the description of a config key
VALUE = "…"  # what stands for a value in an f-string


class Text(NamedTuple):
    """A text and its place."""

    where: str
    text: str


def parts_of(node: ast.AST, constants: dict[str, str]) -> Iterator[str]:
    """The texts that an expression may be, with `VALUE` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(one.value) if isinstance(one, ast.Constant) else VALUE for one in node.values)
    elif isinstance(node, ast.Name) and node.id in constants:
        yield constants[node.id]
    elif isinstance(node, ast.IfExp):
        yield from (text for one in (node.body, node.orelse) for text in parts_of(one, constants))
    elif isinstance(node, ast.BoolOp):
        yield from (text for one in node.values for text in parts_of(one, constants))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = ("".join([*parts_of(one, constants)][:1]) or VALUE for one in (node.left, node.right))
        yield left + right


def texts_of(path: Path) -> Iterator[Text]:
    """Every text of a file that users read."""
    tree = ast.parse(path.read_text("utf-8"))
    constants = {
        target.id: "".join(parts_of(node.value, {}))
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    of_config = "config" in path.parts or path.name == "config.py"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        read = [*node.args] if name in SAID or (name == "ValueError" and of_config) else []
        read += [keyword.value for keyword in node.keywords if keyword.arg in READ]
        for one in read:
            yield from (Text(f"{path.relative_to(ROOT)}:{one.lineno}", text) for text in parts_of(one, constants))


FILES = [*sorted(ROOT.glob("*.py")), *(path for part in PARTS for path in sorted((ROOT / part).rglob("*.py")))]
TEXTS = {part: [text for path in FILES if path.parent == ROOT or path.relative_to(ROOT).parts[0] == part
                for text in texts_of(path)] for part in PARTS}  # fmt: skip


def banned(text: str) -> list[str]:
    """The banned phrases in a text, outside of code such as `--set insertion=beside`."""
    prose = re.sub(r"`[^`]*`|\S+=\S+|(?<!\w)--?\w[\w-]*", VALUE, text)
    prose = re.sub(r"\bheld[- ]out\b", "", prose)
    return [phrase for phrase in BANNED if re.search(rf"(?<![\w.]){phrase}(?!\w)", prose, re.IGNORECASE)]


def longest(text: str) -> int:
    """Words of the longest sentence of a text."""
    return max(len(re.findall(r"\S*\w\S*|…", one)) for one in re.split(r"[.!?:]\s|\n\n", text))


def test_texts_are_found_wherever_users_read_them():
    assert sum(map(len, TEXTS.values())) > 900 and all(len(found) > 10 for found in TEXTS.values())
    found = [text for texts in TEXTS.values() for text in texts]
    for part in ("use --resume to continue it, or --force to delete it and start over", "peak learning rate"):
        assert any(part in one.text for one in found)


@pytest.mark.parametrize("part", PARTS)
def test_no_text_uses_the_words_of_a_dialect(part):
    found = [f"{one.where}: {phrase!r} in {one.text!r}" for one in TEXTS[part] for phrase in banned(one.text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("part", PARTS)
def test_sentences_are_short(part):
    found = [f"{one.where}: {longest(one.text)} words: {one.text!r}" for one in TEXTS[part]
             if longest(one.text) > MOST_WORDS]  # fmt: skip
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a run that goes on", ["goes on"]),
        ("use `that goes on`, --said or insertion=beside", []),
        ("rows held out, held-out rows, memory.held", []),
        ("rows that are held", ["held"]),
        ("amend it, retold, besides", []),
        ("Said so", ["said"]),
    ],
)
def test_phrases_are_found_in_prose_alone(text, phrases):
    assert banned(text) == phrases


def test_words_of_the_longest_sentence_are_counted():
    assert longest("One two. " + "word " * 36 + "end: two") == 37 and longest("a … b, c=d") == 4


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object, str]]:
    """Path, annotation and description of every key; a section's own description is its docstring."""
    for name, field in model.model_fields.items():
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
        sections = [one for one in inner if issubclass(one, BaseModel)]
        description = field.description or (sections[0].__doc__ or "" if field.annotation in sections else "")
        yield prefix + name, field.annotation, description.splitlines()[0] if description else ""
        for section in sections:
            yield from keys_of(section, f"{prefix}{name}.")


@pytest.mark.parametrize("model", [TrainConfig, EvolveConfig, EvalConfig, QaConfig], ids=lambda model: model.__name__)
def test_every_config_key_is_described_in_one_short_line(model):
    for key, annotation, description in keys_of(model):
        assert description, f"{key} has no description"
        assert len(description) <= MOST_CHARACTERS, f"{key}: {len(description)} characters"
        assert type(None) not in get_args(annotation) or "null" in description, f"{key}: what does null mean?"
        allowed = get_args(annotation) if get_origin(annotation) is Literal else ()
        assert all(value in description for value in allowed), f"{key}: name its values, {allowed}"
