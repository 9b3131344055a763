"""`memx convert`: which folders it refuses to replace."""

from pathlib import Path

import pytest
from memx.cli.main import run as memx


@pytest.fixture
def stopped(tmp_path, monkeypatch) -> Path:
    """A run folder with a state that is not looked at, below the current folder."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "stopped"
    (run / "state" / "step-00000002" / "model").mkdir(parents=True)
    (run / "state" / "step-00000002" / "state.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    return run


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (".", "--out . contains the run"),
        ("..", "--out .. contains the run"),
        ("runs", "--out runs contains the run"),
        ("runs/stopped", "--out runs/stopped contains the run"),
        ("other", "other has files, but no model to overwrite"),
        ("other/thesis.txt", "other/thesis.txt is a file"),
    ],
)
def test_a_folder_that_is_no_model_is_not_replaced(capsys, stopped, out, said):
    before = sorted(stopped.parents[1].rglob("*"))
    assert memx(["convert", "runs/stopped", "--out", out, "--force"]) == 2
    assert f"error: {said}" in capsys.readouterr().err
    assert sorted(stopped.parents[1].rglob("*")) == before


def test_a_run_that_is_the_current_folder(capsys, stopped, monkeypatch):
    monkeypatch.chdir(stopped)
    target = stopped.with_name("stopped-step-00000002")
    target.mkdir()
    assert memx(["convert", "."]) == 2
    assert f"error: {target} exists" in capsys.readouterr().err
