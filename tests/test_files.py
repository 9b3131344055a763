"""Files that are written whole or not at all, and the folder of what is cached."""

import os
from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.files import cache_folder, inside, put_back, put_in_place, replace_file, write_atomically
from memx.leftovers import sweep, temporary_beside


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"old", b"new"):
        replace_file(tmp_path / "file", content)
    assert (tmp_path / "file").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "folder", b"text")
    with pytest.raises(MemxError, match="cannot write"):
        write_atomically(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "memx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache_folder().is_relative_to(Path("/somewhere"))


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_new_files_follow_the_umask_and_replaced_ones_keep_their_mode(tmp_path, umask):
    replace_file(tmp_path / "new", b"")
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o604)
    replace_file(tmp_path / "old", b"new")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "file").write_text("")
    (tmp_path / "made" / "file").chmod(0o600)  # as safetensors makes them
    put_in_place(tmp_path / "made", tmp_path / "folder")
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("new", "old", "folder/file", "folder")]
    assert modes == [0o640, 0o604, 0o640, 0o750]


def test_nothing_is_replaced_that_may_not_be(tmp_path):
    write_atomically(tmp_path / "file", "old", replace=False)
    with pytest.raises(MemxError, match="file exists"):
        write_atomically(tmp_path / "file", "new", replace=False)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MemxError, match="not a regular file"):
        write_atomically(tmp_path / "pipe", "new")
    for name in ("made", "there"):
        (tmp_path / name).mkdir()
    with pytest.raises(MemxError, match="exists"):
        put_in_place(tmp_path / "made", tmp_path / "there", replace=False)
    assert (tmp_path / "file").read_text() == "old" and (tmp_path / "made").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "pipe", "made", "there"}


def test_a_folder_that_a_kill_left_without_its_name_gets_it_back(tmp_path):
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "file").write_text("old")
    put_back(tmp_path / "model")
    assert (tmp_path / "model" / "file").read_text() == "old"
    (tmp_path / ".model.old").mkdir()
    put_back(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path):
    mine = temporary_beside(tmp_path / "x")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-4194304-"))  # above every process number
    elsewhere = mine.with_name(".memx-00000000-1-0123abcd.tmp")
    for path in (mine, dead, elsewhere, tmp_path / ".memx-x.tmp"):
        path.write_text("")
    sweep(tmp_path)
    assert not dead.exists() and mine.exists() and elsewhere.exists()
    os.utime(elsewhere, (0, 0))
    write_atomically(tmp_path / "y", "")
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, ".memx-x.tmp", "y"}
    sweep(tmp_path, owned=True)
    assert {path.name for path in tmp_path.iterdir()} == {".memx-x.tmp", "y"}


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", ".x", "x\n", " x", "x" * 201, "a\0"])
def test_a_name_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(MemxError, match="--name: the name"):
        inside(tmp_path, name, "--name")
    assert inside(tmp_path, "Größe 1.0-x_y", "--name") == tmp_path / "Größe 1.0-x_y"
