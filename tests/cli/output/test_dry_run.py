"""Dry runs say what the run would refuse, and how many facts it would see."""

import shutil

from memx.cli.main import run as memx
from memx.cli.output.dry_run import print_folders, would_write


def test_a_folder_with_a_run_is_said_to_exist(tiny_run, tmp_path):
    run, _ = tiny_run
    assert "exists" in would_write(str(run.folder)) and "--resume" in would_write(str(run.folder))
    assert would_write(str(tmp_path / "new")) == str(tmp_path / "new")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".lock").touch()  # what a command that was refused may leave
    assert would_write(str(tmp_path / "new")) == str(tmp_path / "new")


def test_a_dry_run_counts_the_facts_and_names_the_folder(capsys, tiny_run, tmp_path):
    assert memx(["train", "tiny", "--dry-run", "--runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "285 are trained on; 15 are held out" in shown and "exists" not in shown
    folder = shown.rsplit("would write ", 1)[1].strip()
    shutil.copytree(tiny_run[0].folder, folder)
    assert memx(["train", "tiny", "--dry-run", "--runs", str(tmp_path)]) == 0
    assert f"{folder} (exists: add --resume" in capsys.readouterr().out


def test_of_many_new_folders_some_are_named_and_all_that_exist(capsys, tiny_run, tmp_path):
    run, _ = tiny_run
    new = [str(tmp_path / f"run{number}") for number in range(20)]
    print_folders([*new[:9], str(run.folder), *new[9:]])
    shown = capsys.readouterr().out
    assert "run6" in shown and "run7" not in shown and "and 13 more; --json lists them all" in shown
    assert f"{run.folder} (exists" in shown
    print_folders(new[:8])
    assert capsys.readouterr().out.count("would write") == 8


def test_a_dry_run_says_what_was_noticed_in_the_facts(capsys, tmp_path):
    facts = tmp_path / "mine.csv"
    facts.write_text("subject;relation;object\n" + "".join(f"town {i};country;land {i}\n" for i in range(30)) * 2)
    assert memx(["train", "tiny", "--facts", str(facts), "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().err
    assert "';'" in shown and shown.count("merged 30 duplicate facts") == 1
