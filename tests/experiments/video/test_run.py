"""`memx train video` and what follows: a killed run ends the same, an evaluation resumes, pages and exit codes."""

import json
import re

import pytest
from memx.cli.main import run as memx
from memx.experiments.config.base import run_name
from memx.experiments.config.hosts.kinds import HostPoint
from memx.experiments.runtime.events import Step
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted, StopRequest
from memx.experiments.universal.train import train_point
from memx.experiments.video import cost
from safetensors.torch import load_file

from .tiny_video import SETTINGS, video_config


def train(runs, config, stop_at=None):
    """Train a run, and stop after a step if asked; its folder."""
    point, stop = HostPoint(run_name(config), config), StopRequest()

    def report(event):
        stop.asked = stop.asked or (isinstance(event, Step) and event.step == stop_at)

    train_point(point, Options(runs, resume=True), 1, report, stop)
    return runs / point.name


def rows_of(folder):
    return (folder / "rows.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs"), video_config())


def test_a_killed_run_ends_with_the_same_weights_and_rows(trained, tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, video_config(), stop_at=3)  # between two saved states
    again = train(tmp_path, video_config())
    files = [folder / "checkpoint/model.safetensors" for folder in (trained, again)]
    first, second = (load_file(path) for path in files)
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
    rows = [[json.loads(line) for line in rows_of(folder)] for folder in (trained, again)]
    assert [row["value"] for row in rows[0]] == [row["value"] for row in rows[1]]
    assert {row["metric"] for row in rows[0]} == {"correct", "best_guess"}
    assert len(rows[0]) == 2 * 8 and rows[0][0]["n"] == SETTINGS["evaluation.units"]


def test_an_evaluation_asks_every_policy_and_resumes_with_the_same_rows(trained, tmp_path, capsys):
    ask = ["eval-namm", "--host", f"video:{trained}", "--runs", str(tmp_path), "--policy", "recency", "--json"]
    ask += ["--budget", "0.5", "--set", "resamples=100", "--set", "host.threads=1"]
    assert memx(ask) == 0
    rows = json.loads(capsys.readouterr().out)
    (folder,) = tmp_path.iterdir()
    variants = {row["variant"] for row in rows}
    assert {"full", "namm", "recency", "recency global"} <= variants
    kept = {
        row["token_kind"]: row["value"] for row in rows if row["metric"] == "kept_kind" and row["variant"] == "full"
    }
    assert kept["text"] == 100 and {"changing", "repeated", "distractor"} <= set(kept)
    assert {row["mode"] for row in rows} == {"post_hoc"}
    lines = (folder / "units.jsonl").read_text().splitlines()
    (folder / "units.jsonl").write_text("\n".join(lines[:3]) + "\n")
    told = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**told, "status": "interrupted"}))
    assert memx([*ask, "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    timeless = [{key: value for key, value in row.items() if key != "commit"} for row in rows]
    assert timeless == [{key: value for key, value in row.items() if key != "commit"} for row in again]


def test_a_page_shows_every_frame_and_what_is_kept(trained, tmp_path, capsys):
    out = tmp_path / "page"
    ask = [
        "evict",
        "--host",
        f"video:{trained}",
        "--episode",
        "4",
        "--policy",
        "recency",
        "--budget",
        "0.5",
        "--out",
        str(out),
    ]
    assert memx([*ask, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    page = (out / "clip.html").read_text()
    assert len(re.findall(r'<img src="data:image/png;base64,', page)) == 16 == len(told["frames"])
    assert len(re.findall(r'class="part k[08]"', page)) == 16 * 4  # of the newest half, in every head alike
    gone = len(re.findall(r'class="frame gone"', page))
    # 40 of 80 tokens stay: 11 words and 29 of the clip, which begin in its ninth frame
    assert gone == 8 and f"{told['kinds'][0]['kind']}" in page
    assert all(sum(row) == 40 for row in told["held"])
    assert memx(ask) == 2 and "exists" in capsys.readouterr().err
    assert memx([*ask, "--force", "--new-tokens", "3"]) == 2
    assert "--new-tokens means nothing" in capsys.readouterr().err


def test_mistakes_are_one_line_and_exit_with_2(tmp_path, capsys, monkeypatch):
    for setting, told in (
        ("clips.fewest=8", "clips.fewest"),
        ("model.heads=5", "no multiple"),
        ("training.single=0.9", "more than 1"),
        ("clips.size=10", "clips.size"),
        ("model.patch=7", "model.patch"),
        ("trains=decision", "trains cannot be set"),
    ):
        assert memx(["train", "video", "--set", setting, "--dry-run", "--runs", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert told in error and len(error.strip().splitlines()) <= 2, error
    monkeypatch.setattr(cost, "find_spec", lambda name: None)
    assert memx(["train", "video", "--runs", str(tmp_path)]) == 2
    assert "memx[universal]" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_dry_run_says_how_many_tokens_a_clip_has(tmp_path, capsys):
    assert memx(["train", "video", "--dry-run", "--json", "--runs", str(tmp_path)]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["tokens of a clip"] == 192 and not list(tmp_path.iterdir())
