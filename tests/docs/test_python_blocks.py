"""Every Python example of the pages runs: in the README each by itself, elsewhere those of a page one after another."""

import re
from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.namm.saved import places

from .markdown import ROOT, Block, blocks, name_of, pages

# what the names of examples are
KINDS = {"results/runs/RUN": "run", "results/runs/NAMM": "namm", "results/runs/EVALUATION": "evaluation"}
_MODEL = re.compile(r"from_pretrained\(\s*\"([^\"]+)\"")


def examples(page) -> list[Block]:
    return [block for block in blocks(page) if block.kind == "code" and block.language in ("python", "py")]


def execute(block, names, page, box):
    """Run a block, whose lines errors number as the page does; models that it names are the tiny one."""
    for name in _MODEL.findall(block.text):
        box.link(name, "model")
    block = replace(block, text=block.text.replace("1024**2", "64**2"))  # a table of megabytes
    exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)


README = ROOT / "README.md"
OTHERS = [page for page in pages() if page != README and examples(page)]


@pytest.fixture
def here(box, monkeypatch):
    for name, kind in KINDS.items():
        box.link(name, kind)
    monkeypatch.chdir(box.root)
    return box


@pytest.mark.parametrize("page", OTHERS, ids=name_of)
def test_the_examples_of_a_page_run(page, here):
    names: dict = {}
    for block in examples(page):
        execute(block, names, name_of(page), here)


def test_the_readme_has_three_examples():
    """Each of which runs by itself below."""
    assert len(examples(README)) == 3


def example(part) -> Block:
    """The README's piece of Python that has this in it."""
    (found,) = (block for block in examples(README) if part in block.text)
    return found


def test_the_readme_example_makes_a_layer(here):
    names: dict = {}
    execute(example("MemoryLayer("), names, "README.md", here)
    assert names["y"].shape == (8, 128, 512)


def test_the_readme_example_answers_a_question(here, capsys):
    code = example("RUN/checkpoint")
    assert len([line for line in code.text.splitlines() if line]) == 5
    execute(code, {}, "README.md", here)
    assert capsys.readouterr().out.startswith("LHR is in which country?")


def test_the_readme_example_evicts(here, capsys, monkeypatch, tmp_path):
    """With a NAMM of a shorter interval than that of the one that comes with memx."""
    scores = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(0))
    namm.save(namm.Namm(scores, rule=namm.Rule(budget=0.25), every=64), tmp_path / "shipped" / "universal")
    monkeypatch.setattr(places, "SHIPPED", tmp_path / "shipped")
    names: dict = {}
    execute(example("attach"), names, "README.md", here)
    stored = int(capsys.readouterr().out.splitlines()[-1].split()[0])
    with namm.attach(names["model"], namm.make_policy("full")) as attached:
        names["model"].generate(**names["prompt"], max_new_tokens=64)
    assert 0 < stored < 0.5 * sum(layer.kv_bytes for layer in attached.cache.sizes())
