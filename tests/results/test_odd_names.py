"""Names of users in figures: shown as they are, never set as formulas, left out or run; and what to do without rows."""

import re

import pytest
from memx.errors import MemxError
from memx.plain_text import printable, shortened
from memx.results.labels import drawn
from memx.results.plots import PICTURES, draw
from memx.results.selection import PlotRequest, save_figure
from memx.results.store.rows import Row, write_rows
from memx.results.style import caption_below, new_figure

ODD = [
    "_hidden",
    "$x$",
    "a $ b",
    r"$\frac",
    r"\mathdefault{x}",
    "中文 😀 ñ",
    "[/red] <b>",
    "%s {0}",
    "a\x1b[31mb\u202e",
]


def texts_of(path):
    """What a picture in SVG shows, as text."""
    return re.findall(r"<text[^>]*>(.*?)</text>", path.read_text("utf-8"), re.DOTALL)


def shown(name):
    return printable(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def test_odd_names_are_in_the_legend_and_the_caption_as_they_are(tmp_path):
    figure, (axis,) = new_figure(1)
    for name in ODD:
        axis.plot([0, 1], [0, 1], label=drawn(name))
    axis.set_yticks([0, 1], [drawn(ODD[0]), drawn(ODD[3])])
    axis.set_title(ODD[2])
    caption_below(figure, " · ".join(ODD), [axis])
    svg, png = save_figure(figure, tmp_path, "odd", ["svg", "png"])
    texts = [text.replace("\u200b", "").strip() for text in texts_of(svg)]
    assert all(shown(name) in texts for name in ODD) and png.stat().st_size > 1000
    assert texts.count(shown(ODD[0])) == texts.count(shown(ODD[3])) == 2 and shown(ODD[2]) in texts
    assert any(all(shown(name) in text for name in ODD) for text in texts)


def test_names_without_an_end_leave_room_for_the_picture(tmp_path):
    figure, (axis,) = new_figure(1)
    axis.plot([0, 1], [0, 1], label=drawn("x" * 5000))
    caption_below(figure, "y" * 5000 + " and words", [axis])
    save_figure(figure, tmp_path, "long", ["png"])  # without a warning that nothing fits
    assert len(drawn("x" * 5000)) == 60 and drawn("a\nb\tc") == "a b c"


@pytest.mark.parametrize("name", ["_a", "$a$"])
def test_variants_of_odd_names_are_drawn(tmp_path, name):
    rows = [
        Row(run=f"r{i}", experiment="e", kind="memory", model="$m_", dataset="rephrased", metric=metric, value=5.0 + i,
            n=100, memory_slots=1024, parameters_total=10_000, flops=1000, variant=variant)
        for i, variant in enumerate(["one", name])
        for metric in ("exact_match", "nll")
    ]  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", rows)
    request = PlotRequest([tmp_path / "rows.jsonl"], tmp_path / "out", "figure", ["svg"])
    files, table = draw("ablation", request)
    assert name in [text.replace("\u200b", "").strip() for text in texts_of(files[0])]
    assert name in [line[0] for line in table.lines]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_without_rows_names_the_command_that_makes_them(tmp_path, picture):
    folder = tmp_path / "empty"
    folder.mkdir()
    program = " ".join(picture.made_by.split()[:2])
    for source in (folder, tmp_path / "nowhere"):
        with pytest.raises(MemxError) as caught:
            draw(picture.name, PlotRequest([source], tmp_path / "out", "figure"))
        assert f"{program}" in caught.value.message + caught.value.hint
    assert not (tmp_path / "out").exists()


def test_long_texts_are_shortened_in_their_middle():
    assert shortened("abcdefghij", 5) == "ab…ij"[:5] and shortened("abc", 3) == "abc"
    assert [len(shortened("x" * 100, most)) for most in (3, 4, 60)] == [3, 4, 60]
