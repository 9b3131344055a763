"""A NAMM by folder, run, shipped name or hub name; for every place without one, one line and a hint."""

import subprocess
import sys
from pathlib import Path

import huggingface_hub
import memx.namm
import pytest
import torch
from huggingface_hub import constants, errors
from memx import hub
from memx.errors import MemxError
from memx.namm import load, save, shipped_namms
from memx.namm.saved import places
from memx.namm.saved.places import FILES, find_namm

from .shipped import ship, tiny_namm


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    return ship(monkeypatch, tmp_path / "shipped")


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    """A hub that answers every name with a NAMM, and a list of what was asked for."""
    save(tiny_namm(7), tmp_path / "cache", card="# a\n")
    asked = []

    def snapshot_download(name, **settings):
        asked.append((name, settings))
        return str(tmp_path / "cache")

    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def refused(place, **settings) -> MemxError:
    with pytest.raises(MemxError) as caught:
        load(place, **settings)
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value


def test_a_shipped_name(shipped):
    assert torch.equal(load("universal").parameters, tiny_namm(0).parameters)
    assert torch.equal(load(Path("smollm2")).parameters, tiny_namm(1).parameters)
    assert shipped_namms() == {name: f"The NAMM {name}. It is made for tests." for name in ("smollm2", "universal")}


def test_what_exists_wins_over_names(shipped, on_hub):
    save(tiny_namm(3), "universal")
    save(tiny_namm(4), Path("user/repo"))
    for place, seed in (("universal", 3), ("user/repo", 4), ("smollm2", 1)):
        assert torch.equal(load(place).parameters, tiny_namm(seed).parameters)
    assert not on_hub


def test_the_folder_of_a_run_means_its_namm():
    save(tiny_namm(3), "run/namm")
    assert torch.equal(load("run").parameters, tiny_namm(3).parameters) and find_namm("run") == Path("run/namm")


@pytest.mark.parametrize(("name", "hint"), [("Univesal", "did you mean 'universal'?"), ("other", "smollm2")])
def test_a_name_that_is_not_shipped(shipped, name, hint):
    error = refused(name)
    assert f"{name!r} is not a folder, and memx ships no NAMM of that name" in error.message and hint in error.hint


def test_whatever_the_shipped_folder_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "SHIPPED", tmp_path / "none")
    assert shipped_namms() == {} and "ships" in refused("universal").message
    folder = tmp_path / "some"
    for name, card in (("bare", None), ("headless", "no heading"), ("code", "# a\n\n```sh\nx\n```\n")):
        save(tiny_namm(), folder / name, card=card)
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "code" / "README.md").write_bytes(b"\xff")
    monkeypatch.setattr(places, "SHIPPED", folder)
    assert shipped_namms() == {"bare": "", "code": "", "headless": ""}
    assert "is not a folder" in refused("empty").message


def test_every_namm_that_memx_ships_loads_and_says_what_it_is():
    for name, about in shipped_namms().items():
        assert about and isinstance(memx.namm.load(name), memx.namm.Namm)


def test_a_hub_name(on_hub):
    assert torch.equal(load("user/repo", revision="v1").parameters, tiny_namm(7).parameters)
    ((name, settings),) = on_hub
    assert name == "user/repo" and settings == {"revision": "v1", "allow_patterns": list(FILES)}


def test_a_repository_without_a_namm(tmp_path, on_hub):
    (tmp_path / "cache" / "namm.json").unlink()
    assert "user/repo on the Hugging Face hub contains no namm.json" in refused("user/repo").message


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        ("RepositoryNotFoundError", "no folder user/repo, and no such NAMM", "hf auth login"),
        ("GatedRepoError", "the NAMM user/repo is gated", "accept its terms"),
        ("RevisionNotFoundError", "has no revision 'v1'", "branch, tag or commit"),
        ("LocalEntryNotFoundError", "hub cannot be reached", "hf download user/repo"),
        ("HfHubHTTPError", "hub cannot be reached", "hf download user/repo"),
        ("HFValidationError", "no hub repository can have that name", "spelling"),
    ],
)
def test_what_the_hub_refuses(monkeypatch, on_hub, kind, message, hint):
    def fails(name, **settings):
        raise type(kind, (getattr(errors, kind),), {"__init__": lambda self: None})()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    error = refused("user/repo", revision="v1")
    assert message in error.message and hint in error.hint


def test_a_hub_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    error = refused("some-org/a-namm-that-is-not-here")
    assert "cannot be reached" in error.message and "--local-dir a-namm-that-is-not-here" in error.hint


@pytest.mark.parametrize("place", ["a/b/c", "../user/repo", "/nowhere/namm", "user/"])
def test_paths_are_no_hub_names(on_hub, place):
    assert "is not a folder" in refused(place).message and not on_hub


def test_finding_a_namm_imports_no_torch(tmp_path):
    save(tiny_namm(), tmp_path / "namm")
    code = f"import sys; from memx.namm.saved.places import find_namm, shipped_namms; find_namm({str(tmp_path)!r}); "
    code += "shipped_namms(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
