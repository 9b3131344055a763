"""Places that another user can write to: nothing is loaded from them, and nothing is put there to be loaded."""

import os
import subprocess
from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.experiments.base_models.gguf_files import cached_folder
from memx.private_files import private_folder, stranger_in

ROOT = Path(__file__).resolve().parent.parent


def test_a_users_own_file_is_nobody_elses(tmp_path):
    (tmp_path / "file").write_text("")
    assert stranger_in(tmp_path / "file") == ""
    (tmp_path / "file").chmod(0o602)
    assert stranger_in(tmp_path / "file") == f"other users can write to {tmp_path / 'file'}"


def test_every_folder_above_counts_but_for_shared_ones_in_which_only_owners_rename(tmp_path):
    folder = tmp_path / "open" / "own"
    folder.mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    assert str(tmp_path / "open") in stranger_in(folder)
    (tmp_path / "open").chmod(0o1777)
    assert stranger_in(folder) == "" and stranger_in(tmp_path / "open")


def test_a_link_counts_where_it_is_and_where_it_points_to(tmp_path):
    for name in ("open", "own"):
        (tmp_path / name).mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "own" / "link").symlink_to(tmp_path / "open")
    (tmp_path / "open" / "link").symlink_to(tmp_path / "own")
    for link in ("own/link", "open/link"):
        assert str(tmp_path / "open") in stranger_in(tmp_path / link)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files away")
def test_another_users_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    os.chown(tmp_path / "file", 12345, 12345)
    assert stranger_in(tmp_path / "file") == f"{tmp_path / 'file'} belongs to another user"


def test_a_private_folder_is_closed_to_others_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "new" / "cache")
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    assert private_folder(made).stat().st_mode & 0o777 == 0o700


def test_a_saved_model_is_used_where_its_files_are_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def convert(folder):
        folder.mkdir()
        (folder / "weights").touch()

    tmp_path.chmod(0o777)  # as the shared disks of many clusters
    folder = cached_folder("model", convert)
    (folder / "weights").chmod(0o666)
    assert cached_folder("model", convert) == folder and (folder / "weights").stat().st_mode & 0o777 == 0o644
    if user := os.getuid():  # only root can give files away
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
    else:
        os.chown(folder / "weights", 12345, 12345)
    with pytest.raises(MemxError, match=r"is not used: .* belongs to another user") as error:
        cached_folder("model", convert)
    assert f"rm -r {folder}" in error.value.hint


def test_make_takes_memx_from_its_own_folder(tmp_path):
    """`make gpu VENV=` puts a link on the search path of Python, which must not lie where others write."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["make", "-n", "gpu", "VENV=", "PYTHON=python"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f'PYTHONPATH="{ROOT}/' in done.stdout and str(tmp_path) not in done.stdout and "/tmp/memx" not in done.stdout
