"""The Python reference shows what there is, each with its arguments described; examples of docstrings run."""

import inspect
import re
import textwrap
from importlib import import_module

import pytest

from .markdown import ROOT
from .test_python_blocks import KINDS

PAGE = ROOT / "docs/reference/python.md"
NAMES = re.findall(r"^::: (memx\.[\w.]+)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
_EXAMPLE = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)


def of_name(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def examples_of(name):
    shown = of_name(name)
    doc = inspect.getdoc(shown) if callable(shown) else ""
    return [textwrap.dedent(code) for code in _EXAMPLE.findall(doc or "")]


def described(doc):
    """The names that the section Args of a docstring describes."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", f"{doc}\n", flags=re.MULTILINE)
    return re.findall(r"^    \*{0,2}(\w+): \S", section[1], flags=re.MULTILINE) if section else []


def arguments_of(shown):
    """The arguments of a function, or of a class that is made by hand."""
    if isinstance(shown, type) and (hasattr(shown, "model_fields") or getattr(shown, "_is_protocol", False)):
        return None
    return [name for name in inspect.signature(shown).parameters if name != "self"]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.rpartition(".")[2].isupper()])
def test_every_argument_is_described(name):
    shown = of_name(name)
    doc = inspect.getdoc(shown) or ""
    first = doc.partition("\n\n")[0]
    assert first.rstrip().endswith("."), name
    arguments = arguments_of(shown)
    if arguments is None or ("Attributes:\n" in doc and not described(doc)):
        return
    assert described(doc) == arguments


@pytest.mark.parametrize("name", [name for name in NAMES if examples_of(name)])
def test_the_example_of_a_docstring_runs(name, box, monkeypatch):
    for path, kind in KINDS.items():
        box.link(path, kind)
    monkeypatch.chdir(box.root)
    for code in examples_of(name):
        exec(compile(code, name, "exec"), {"__name__": "example"})


def test_what_must_have_an_example_has_one():
    needed = ("MemoryLayer", "attach", "load", "save", "evolve", "make_policy", "Policy", "read_rows")
    have = {name.rpartition(".")[2] for name in NAMES if examples_of(name)}
    assert have >= {*needed}
