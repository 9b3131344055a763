"""Notebooks run from their committed files, are saved with their outputs, and are written in plain words."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .markdown import ROOT, split
from .test_sentences import banned, too_long

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
# sizes in the first code cell, and what they are here
SMALL = {"STEPS": 8, "GENERATIONS": 1}
_LINK = re.compile(r"\]\(([^)\s#]+)")
_RUN = """
import pathlib, sys
for number, code in enumerate(pathlib.Path("cells.py").read_text("utf-8").split("\\n# next cell\\n")):
    exec(compile(code, f"cell {number}", "exec"), globals())
"""


def cells(path, kind):
    notebook = json.loads(path.read_text("utf-8"))
    return [("".join(cell["source"]), cell) for cell in notebook["cells"] if cell["cell_type"] == kind]


def made_small(code):
    """The cells of code with the sizes of the first one set to small ones."""
    first, found = code[0], 0
    for name, size in SMALL.items():
        first, count = re.subn(rf"^{name} = \d+", f"{name} = {size}", first, flags=re.MULTILINE)
        found += count
    assert found, "the first code cell sets no size"
    return [first, *code[1:]]


# the longer ones train: the functions that they call have tests of their own
RUN_BY_DEFAULT = [path if path.stem == "evict" else pytest.param(path, marks=pytest.mark.slow) for path in NOTEBOOKS]


@pytest.mark.parametrize("path", RUN_BY_DEFAULT, ids=lambda path: path.stem)
def test_every_cell_runs(path, tmp_path):
    code = made_small([text for text, _ in cells(path, "code")])
    (tmp_path / "cells.py").write_text("\n# next cell\n".join(code), "utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cells.py"], "a notebook leaves no files"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_saved_outputs_are_whole(path):
    outputs = [output for _, cell in cells(path, "code") for output in cell["outputs"]]
    assert [cell["execution_count"] for _, cell in cells(path, "code")] == [*range(1, len(cells(path, "code")) + 1)]
    kinds = {output["output_type"] for output in outputs}
    assert {"stream", "display_data"} <= kinds and "error" not in kinds
    assert all(output["name"] == "stdout" for output in outputs if output["output_type"] == "stream")
    lines = [line for o in outputs for line in "".join(o.get("text", "")).splitlines()]
    assert max(map(len, lines)) <= 120
    assert path.stat().st_size < 300_000
    assert not any(cell["metadata"] for kind in ("code", "markdown") for _, cell in cells(path, kind))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_text_is_plain_and_its_links_lead_somewhere(path):
    texts = [text for text, _ in cells(path, "markdown")]
    assert "Run time" in texts[0]
    blocks = [block for text in texts for block in split(text) if block.kind in ("text", "title")]
    assert not [line for block in blocks for line in (*too_long(block.text), *banned(block.text))]
    targets = [target for text in texts for target in _LINK.findall(text) if "://" not in target]
    assert targets and not [target for target in targets if not (path.parent / target).is_file()]


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["evict", "memory_layer"]


def test_a_failing_cell_is_found(tmp_path):
    source = tmp_path / "bad.ipynb"
    bad = [
        {"cell_type": "code", "source": ["STEPS = 500\n", "assert STEPS == 8"]},
        {"cell_type": "code", "source": "1/0"},
    ]
    source.write_text(json.dumps({"cells": bad}))
    folder = Path(tmp_path, "run")
    folder.mkdir()
    with pytest.raises(AssertionError, match=r"cell 1[\s\S]*ZeroDivisionError"):
        test_every_cell_runs(source, folder)
