"""Files that are written whole or not at all, and the folder of what is cached."""

from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.files import cache_folder, replace_file, write_atomically


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
