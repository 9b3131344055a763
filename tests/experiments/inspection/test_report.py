"""`memx report`: one page that holds everything, loads nothing, and takes any text of users for text."""

import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from memx.cli.main import run
from memx.experiments.inspection.compare import group_runs
from memx.experiments.inspection.find import latest_experiment
from memx.experiments.inspection.pictures import inline
from memx.experiments.inspection.report import report_page
from memx.results.store.json_lines import JsonLines
from memx.results.store.runs import RunStore

ASIDE = ("majority_exact_match", "chance_exact_match", "slots_used", "usage_kl")  # no answers of the model
VOID = ("meta", "br", "hr", "img", "input", "link", "wbr")
LOADING = ("src", "href", "xlink:href", "data", "action", "srcset", "poster")


class Page(HTMLParser):
    """Elements with their attributes, ids, headings, and what does not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def text(runs):
    return report_page(RunStore(runs).runs(), "Four runs")


def test_the_page_is_whole_and_loads_nothing(text):
    page = Page(text)
    ids = [one["id"] for _, one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for name in LOADING:
            if name in attributes:
                assert attributes[name].startswith("#") and attributes[name][1:] in ids, (tag, attributes)
    assert not page.all("script", "link", "img", "iframe")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert all(f"url(#{one}" in text for one in re.findall(r"url\(#([^)]*)", text))
    assert not set(re.findall(r"url\(#([^)]*)\)", text)) - set(ids)


def test_the_page_can_be_read_without_seeing_it(text):
    page = Page(text)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    pictures = [one for one in page.all("svg") if one.get("role") == "img"]
    assert len(pictures) >= 2 and all(one["aria-labelledby"] for one in pictures)
    assert all("scope" in one for one in page.all("th"))
    assert all(one.get("aria-label") for one in page.all("div") if one.get("role") == "region")
    assert page.all("html")[0]["lang"] == "en" and "width=device-width" in str(page.all("meta"))


def test_the_page_says_what_the_runs_say(text, runs):
    found = RunStore(runs).runs()
    said = " ".join(Page(text).text)
    for group in group_runs(found):
        assert group.name in said and "2 runs with seeds 0, 1" in said
        for key in group.scores:
            assert group.text(key) in said or key[1] in ASIDE
    assert "paired by seed" in said and "memory.slots" in said and "torch" in said
    for one in found:
        assert f"memx train --config {one.folder}/config.yaml" in said


def test_texts_of_users_are_texts(runs, tmp_path):
    one = RunStore(runs).runs()[0]
    shutil.copytree(one.folder, tmp_path / one.name)
    (copied,) = RunStore(tmp_path).runs()
    kept = JsonLines(copied.folder / "answers.jsonl")
    evil = "</td><script>alert(1)</script>"
    kept.write([{**line, "question": evil, "exact_match": 0.0} for line in kept.lines()])
    text = report_page([copied], evil)
    assert "<script" not in text and "&lt;script&gt;" in text
    Page(text)


def test_a_run_that_is_not_finished_has_a_page(runs, tmp_path):
    one = RunStore(runs).runs()[0]
    folder = shutil.copytree(one.folder, tmp_path / "runs" / one.name)
    (folder / "rows.jsonl").unlink()
    (stopped,) = RunStore(tmp_path / "runs").runs()
    stopped.end("interrupted")
    said = " ".join(Page(report_page([stopped], "Stopped")).text)
    assert "no scores yet" in said and "--resume" in said and "Training and evaluation curves" in said


def test_ids_of_a_picture_get_a_prefix_with_all_that_points_to_them():
    drawn = '<g id="a" clip-path="url(#a)"/><use xlink:href="#a"/>'
    file = f'<?xml?><svg width="9pt" viewBox="0 0 9 8"><metadata>m</metadata>{drawn}</svg>'
    svg, width = inline(file, "p-", "A < B")
    assert width == 9.0 and "m</metadata" not in svg and "<title" in svg and "A &lt; B" in svg
    assert svg.count("p-a") == 3 and 'width="9pt"' not in svg


def test_the_latest_experiment_is_all_runs_of_the_last_one(runs):
    assert len(latest_experiment(runs)) == 4


def test_the_command_writes_the_page_and_refuses_what_is_none(runs, tmp_path, capsys):
    out = tmp_path / "made" / "page.html"
    assert run(["report", "looked", "--runs", str(runs), "--out", str(out), "--title", "A title"]) == 0
    assert "<h1>A title</h1>" in out.read_text() and str(out) in capsys.readouterr().out
    for wrong in (str(tmp_path / "page.pdf"), str(tmp_path)):
        assert run(["report", "--runs", str(runs), "--out", wrong]) == 2
    assert run(["report", "nothing", "--runs", str(runs), "--out", str(out)]) == 2


def test_differences_of_three_groups_are_those_of_the_group_that_is_named(runs, tmp_path):
    found = RunStore(runs).runs()
    for one in (found[0], found[2], found[3]):  # three groups: two seeds of a model with another setting
        shutil.copytree(one.folder, tmp_path / one.name)
    changed = tmp_path / found[2].name / "config.yaml"
    changed.write_text(changed.read_text().replace("clip: 1.0", "clip: 2.0"))
    rows = tmp_path / found[2].name / "rows.jsonl"
    rows.write_text("".join(line for line in rows.read_text().splitlines(True) if '"seen"' not in line))
    page = Page(report_page(RunStore(tmp_path).runs(), "Three"))
    said = " ".join(page.text)
    table = said.partition("Differences from")[2].partition("Figures")[0]
    seen = table.partition("seen facts")[2].partition("paraphrased facts")[0]
    assert found[3].name in seen and found[2].name not in seen
