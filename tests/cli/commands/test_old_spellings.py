"""Spellings of 0.1 that still work: each does what its new spelling does, and prints one line that names it."""

import pytest
from memx.cli.main import run as memx
from memx.cli.parsing.spellings import OLD_OPTIONS, respelt
from memx.results import selection
from memx.results.plots import OLD_NAMES, PICTURES

REFERENCE = "results/reference"
NOTE = "note: "


@pytest.fixture(autouse=True)
def unrendered(monkeypatch):
    """Figures are made but not rendered: the spelling has no part in that."""
    monkeypatch.setattr(selection, "picture_of", lambda figure, kind: kind.encode())


def outcome(capsys, *arguments: str) -> tuple[int, str, list[str], list[str]]:
    """Exit code, stdout, the lines of stderr without notes, and the notes."""
    code = memx(list(arguments))
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    return code, captured.out, [n for n in lines if not n.startswith(NOTE)], [n for n in lines if n.startswith(NOTE)]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (["bench", "--list"], ["bench", "list"], 0),
        (["bench", "--list", "--json"], ["bench", "list", "--json"], 0),
        (["bench", "--compare", "ROWS", "--against", "ROWS"], ["bench", "compare", "ROWS", "ROWS"], 0),
        (["bench", "--op", "bag_dot", "--shapes", "M=3"], ["bench", "ops", "bag_dot", "--shapes", "M=3"], 2),
        (["bench", "--op", "step", "--slots", "1000"], ["bench", "step", "--slots", "1000"], 2),
        (["bench", "--op", "host", "--shapes", "x=1"], ["bench", "offload", "--shapes", "x=1"], 2),
        (["bench", "--op", "prefill", "--every", "20"], ["bench", "eviction", "prefill", "--interval", "20"], 2),
        (["bench", "--op", "evolve", "--host", "none"], ["bench", "evolution", "--model", "none"], 2),
        (["evict", "text", "--host", "none"], ["evict", "text", "--model", "none"], 2),
        (["evict", "text", "--host=none", "--every=64"], ["evict", "text", "--model=none", "--interval=64"], 2),
        (["eval-namm", "none", "--host", "x", "--peers"], ["eval-namm", "none", "--model", "x", "--third-party"], 2),
        (["evolve-namm", "--host", "none"], ["evolve-namm", "--model", "none"], 2),
        (["plot", "--what", "ablation", "none.jsonl"], ["plot", "ablation", "none.jsonl"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_old_and_new_do_the_same(capsys, pytestconfig, old, new, code):
    rows = str(pytestconfig.rootpath / REFERENCE / "bench" / "bench.rows.jsonl")
    before, after = (outcome(capsys, *(rows if a == "ROWS" else a for a in given)) for given in (old, new))
    assert before[:3] == after[:3]
    assert before[0] == code and before[3] and not after[3]


@pytest.mark.parametrize(
    ("old", "rows"),
    [
        ("rivals", "rivals/rivals"),
        ("dropped", "namm-published/dropped"),
        ("front", "namm/evolve"),
        ("bench", "bench/bench"),
    ],
)
def test_old_names_of_pictures(capsys, tmp_path, pytestconfig, old, rows):
    lines = (pytestconfig.rootpath / REFERENCE / f"{rows}.rows.jsonl").read_text("utf-8").splitlines(keepends=True)
    source = tmp_path / "rows.jsonl"  # of one op
    source.write_text(
        "".join(line for line in lines if old != "bench" or '"ceilings"' in line or '"bag_dot ' in line), "utf-8"
    )
    where = [str(source), "--out", str(tmp_path), "--formats", "svg"]
    after = outcome(capsys, "plot", OLD_NAMES[old], *where)
    assert after[0] == 0 and after[1] and not after[3]
    assert outcome(capsys, "plot", *where, "--what", old, "--name", OLD_NAMES[old])[:3] == after[:3]
    code, out, _, notes = outcome(capsys, "plot", old, *where)
    assert (code, out) == after[:2] and f"memx plot {OLD_NAMES[old]}" in notes[0]


def test_an_old_option_writes_the_files_that_it_wrote(capsys, tmp_path, pytestconfig):
    source = str(pytestconfig.rootpath / REFERENCE / "namm-published" / "dropped.rows.jsonl")
    assert outcome(capsys, "plot", source, "--what", "dropped", "--out", str(tmp_path), "--formats", "svg")[0] == 0
    assert (tmp_path / "dropped.svg").is_file() and not (tmp_path / "evicted.svg").exists()


def test_a_folder_with_an_old_name_of_a_picture_is_a_folder(capsys, tmp_path, pytestconfig, monkeypatch):
    rows = pytestconfig.rootpath / REFERENCE / "facts" / "memory.rows.jsonl"
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "rows.jsonl").write_bytes(rows.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert outcome(capsys, "plot", "bench", "--formats", "svg")[0] == 0
    assert (tmp_path / "results" / "figures" / "memory.svg").is_file()


def test_a_picture_that_has_no_name_is_the_memory(capsys, tmp_path, pytestconfig):
    source = str(pytestconfig.rootpath / REFERENCE / "facts" / "memory.rows.jsonl")
    where = [source, "--out", str(tmp_path), "--formats", "svg"]
    assert outcome(capsys, "plot", *where) == outcome(capsys, "plot", "memory", *where)
    assert (tmp_path / "memory.svg").is_file()


def test_old_spellings_are_replaced_before_the_double_dash_and_only_where_the_new_one_exists():
    assert respelt(["--host", "a", "--", "--host"], {"--model"}) == ["--model", "a", "--", "--host"]
    assert respelt(["--host=a"], {"--model"}) == ["--model=a"]
    both = {"--model", "--host"}  # where --host has a new meaning, its value tells which
    assert respelt(["--host", "a", "--host=b"], both) == ["--model", "a", "--model=b"]
    assert respelt(["--host", "decision:a", "--host=video:b"], both) == ["--host", "decision:a", "--host=video:b"]
    assert respelt(["--host", "--write"], {"--runs"}) == ["--host", "--write"]
    assert respelt(["--every"], {"--every", "--interval"}) == ["--every"]


def test_old_names_lead_to_names_that_exist():
    assert set(OLD_NAMES.values()) <= {picture.name for picture in PICTURES}
    assert not set(OLD_NAMES) & {picture.name for picture in PICTURES}
    assert not set(OLD_OPTIONS) & set(OLD_OPTIONS.values())


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["plot", "--what", "rivls"], "--what: no picture 'rivls'", "'rivals'"),
        (["plot", "--formats", "png", "baselines"], "nothing at baselines", "memx plot baselines"),
        (["bench", "--compare", "a"], "--compare needs --against", "memx bench compare NEW OLD"),
        (["bench", "host"], "no subcommand 'host'", "memx bench offload"),
        (["bench", "decode"], "no subcommand 'decode'", "memx bench eviction decode"),
    ],
)
def test_mistakes_name_the_new_spelling(capsys, tmp_path, monkeypatch, arguments, message, hint):
    monkeypatch.chdir(tmp_path)
    code, out, lines, _ = outcome(capsys, *arguments)
    assert code == 2 and not out and message in lines[0] and hint in lines[1]
