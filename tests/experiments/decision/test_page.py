"""An episode as a page: every token in words, and what the cache holds of it."""

import json

import pytest
from memx import namm
from memx.cli.main import run as memx
from memx.experiments.decision.page import episode_report

from .tiny_host import double, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("decision"))


def test_a_report_has_each_token_in_words_and_who_holds_it(folder):
    host = double(folder)
    report = episode_report(host, namm.make_policy("recency", budget=0.5, every=32), 3)
    texts = [unit.text for unit in report.units]
    assert len(texts) == report.tokens == 47 and texts[0] == f"R {host.target:.0f} "
    assert texts[1].startswith("s ") and texts[2].startswith("a ") and "reward" in texts[2]
    assert report.held[0] == [0.0] * 16 + [1.0] * 31 and report.runs == [32]
    (one,) = host.measure(None, [3])
    assert report.full.text.startswith(f"return {one.scores['return']:.1f} in 16 steps")
    assert sum(layer.full_bytes for layer in report.layers) == one.kv_bytes


def test_the_command_writes_the_page(folder, capsys, tmp_path):
    out = tmp_path / "page"
    arguments = ["evict", "--host", f"decision:{folder.name}", "--runs", str(folder.parent), "--out", str(out)]
    assert memx([*arguments, "--policy", "h2o", "--budget", "0.25", "--interval", "32", "--episode", "1"]) == 0
    assert json.loads((out / "evict.json").read_text())["policy"] == "h2o"
    assert "reward" in (out / "evict.html").read_text()
    for wrong in (["--file", "x"], ["--model", "x"], ["--protect", "0:2"], ["a prompt"]):
        assert memx([*arguments, *wrong]) == 2
        assert "means nothing with --host" in capsys.readouterr().err
    assert memx([*arguments, "--policy", "full", "--force"]) == 2
    assert "evicts nothing" in capsys.readouterr().err
