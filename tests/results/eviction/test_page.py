"""The page and picture of an eviction: text is escaped and whole, classes and titles say what the data say."""

import json
import re
from html import unescape

import pytest
from memx.errors import MemxError
from memx.results.eviction import files as evict_files
from memx.results.eviction.figure import evict_figure
from memx.results.eviction.page import LEVELS, evict_page, level, shown
from memx.results.eviction.report import (
    EvictionReport,
    LayerCache,
    Unit,
    Written,
    report_facts,
    report_json,
    size_table,
)

UNITS = (
    Unit(0, 1, "<s>", special=True),
    Unit(1, 2, "if a<b &"),
    Unit(2, 3, " \n\t"),
    Unit(3, 6, "😀"),
    Unit(6, 7, "</pre><script>alert('x')</script>"),
    Unit(7, 8, '"end"\u202e\x00'),
)
HELD = [[1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.5, 1.0], [1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 1.0]]


def cache(layer: int, slots: int, heads: int = 2) -> LayerCache:
    return LayerCache(layer, heads, float(slots), slots, slots * 1024, 64, 8 * 1024)


def report(**changes) -> EvictionReport:
    found = dict(
        host="a<b>&host",
        policy="snapkv",
        rule="budget 0.5",
        every=4,
        protect=((0, 1),),
        device="cpu",
        dtype="float32",
        units=UNITS,
        held=HELD,
        layers=(cache(0, 3), cache(1, 4)),
        after=(cache(0, 5), cache(1, 6)),
        answer=Written("<b>bold</b>", 5, True, 1.0, 0.01, 2),
        full=Written("& more", 5, True, 1.0, None),
    )
    return EvictionReport(**{**found, **changes})


def spans(page: str) -> list[tuple[str, int, str, str]]:
    """(classes, tokens, title, text) of every piece of the prompt, its marks of white space taken back."""
    prompt = re.search(r'<pre id="prompt">(.*?)</pre>', page, re.DOTALL)
    assert prompt is not None
    found = re.findall(r'<span class="([^"]*)"(?: data-n="(\d+)")? title="([^"]*)">(.*?)</span>', prompt[1], re.DOTALL)
    return [(a, int(n or 1), title, unescape(re.sub(r"</?i>|<wbr>", "", text))) for a, n, title, text in found]


def test_every_piece_is_there_escaped_and_with_visible_white_space():
    page = evict_page(report())
    texts = [text for *_, text in spans(page)]
    assert texts == ["<s>", "if·a<b·&", "·↵\n⇥\t", "😀", UNITS[4].text, '"end"U+202EU+0000']
    assert "alert('x')" not in page and page.count("<script") == 2 == page.count("</script>")
    assert "<b>bold" not in page and "a<b>&host" not in page and "\u202e" not in page and "\x00" not in page
    assert not re.search(r"""(src|href)=|url\(|@import|https?:""", page), "nothing is fetched"


def test_classes_and_titles_say_what_the_data_say():
    for (classes, count, title, _), unit in zip(spans(evict_page(report())), UNITS, strict=True):
        parts = [share for layer in HELD for share in layer[unit.start : unit.stop]]
        share = sum(parts) / len(parts)
        assert classes.split()[0] == f"h{level(share)}" and count == unit.stop - unit.start
        assert f"kept by {100 * share:.0f}%" in title
        assert ("special" in classes) == unit.special and ("safe" in classes) == (unit.start == 0)
    assert "tokens 3-5 ·" in spans(evict_page(report()))[3][2]


def test_layers_weigh_by_their_heads():
    uneven = report(layers=(cache(0, 3, heads=3), cache(1, 4, heads=1)))
    assert uneven.by_token[3] == pytest.approx(1 / 4) and report().by_token[3] == pytest.approx(1 / 2)


def test_the_script_gets_every_layer():
    held = re.search(r'id="data">(.*?)</script>', evict_page(report()), re.DOTALL)
    assert held is not None
    data = json.loads(held[1])
    assert data["tops"] == data["heads"] == [2, 2]
    assert [[int(digit) / 2 for digit in row] for row in data["held"]] == HELD
    many = report(layers=(cache(0, 3, heads=64), cache(1, 4, heads=64)), held=[[1 / 64] * 8, [63 / 64] * 8])
    held = re.search(r'"held":\["(.*?)","(.*?)"\]', evict_page(many))
    assert held is not None and held.groups() == ("1" * 8, "y" * 8), "some is never none, nor all"


@pytest.mark.parametrize(
    ("share", "colour"), [(0, 0), (1e-3, 1), (0.5, 4), (0.999, 7), (1 - 1e-9, LEVELS), (1, LEVELS)]
)
def test_only_none_and_all_have_the_colours_of_none_and_all(share, colour):
    assert level(share) == colour


def test_runs_are_marked_where_they_were():
    page = evict_page(report())
    assert '😀</span><b class="run" title="eviction here, after 4 tokens">4</b>' in page
    assert page.count("eviction here, after") == 2, "after 4 and after 8"
    assert "shorter than the eviction interval" in evict_page(report(every=512)) and 'class="run"' not in evict_page(
        report(every=None)
    )


def test_emoji_of_several_characters_stay_whole():
    family = "👩\u200d👧"
    assert shown(family) == family


def test_the_table_joins_layers_that_are_alike():
    table = size_table(report(layers=(cache(0, 3), cache(1, 3), cache(2, 4)), held=[HELD[0]] * 3))
    assert [line[0] for line in table.lines] == ["0 to 1, each", "2", "all"]
    assert table.lines[0][-1] == "37.5%" and table.lines[-1][-1] == "41.7%" and len(table.facts) == 3


def test_facts_are_json():
    facts = json.loads(report_json(report_facts(report())))
    assert facts["held"] == HELD and facts["units"][3]["text"] == "😀" and facts["runs"] == [4, 8]
    assert facts["share"] == pytest.approx(7 / 16) and facts["answer"]["agrees"] == 2


@pytest.mark.parametrize("changes", [{}, {"every": None, "protect": ()}, {"every": 512}])
def test_the_picture_is_drawn_from_all_layers(changes):
    figure = evict_figure(report(**changes))
    (image,) = [image for axis in figure.axes for image in axis.images]
    rows = image.get_array()
    assert rows is not None and rows[0].tolist() == HELD[0] and rows[-1].tolist() == HELD[1]


def test_files_come_together_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "one"
    written = evict_files.write_report(folder, report())
    assert [path.name for path in written] == ["evict.html", "evict.png", "evict.json"]
    assert sorted(folder.iterdir()) == sorted(written) and list(folder.parent.iterdir()) == [folder]
    with pytest.raises(MemxError, match="exists"):
        evict_files.write_report(folder, report())
    before = written[0].read_bytes()

    def full(path, content):
        if path.name == "evict.json":
            raise MemxError("cannot write: the disk is full")
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    monkeypatch.setattr(evict_files, "write_atomically", full)
    for place in (folder, tmp_path / "other"):
        with pytest.raises(MemxError, match="disk is full"):
            evict_files.write_report(place, report(policy="h2o"), force=True)
    assert written[0].read_bytes() == before and sorted(folder.iterdir()) == sorted(written)
    written[2].unlink()  # of an older memx, or moved away: what is left stays
    with pytest.raises(MemxError, match="disk is full"):
        evict_files.write_report(folder, report(policy="h2o"), force=True)
    assert written[0].read_bytes() == before and sorted(folder.iterdir()) == sorted(written[:2])
    assert not (tmp_path / "other").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["new"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MemxError, match="is not a folder"):
        evict_files.check_free(tmp_path / "file")
