"""A NAMM to the hub: what is uploaded, and one line and a hint for everything that prevents it."""

import types
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors
from memx.errors import MemxError
from memx.namm import Card, load, push_to_hub, save

from .shipped import ship, tiny_namm

NAMES = ["README.md", "namm.json", "namm.safetensors"]


class FakeHub:
    """What a call of `HfApi` was asked for."""

    def __init__(self) -> None:
        self.token, self.made, self.files, self.upload, self.error = None, None, {}, {}, None

    def __call__(self, token=None):
        self.token = token
        return self

    def create_repo(self, repo, **settings):
        if self.error is not None:
            raise self.error
        self.made = (repo, settings)
        return f"https://huggingface.co/{repo}"

    def upload_folder(self, *, folder_path, **settings):
        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.upload = settings


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    return fake


def refused(*given, **settings) -> MemxError:
    with pytest.raises(MemxError) as caught:
        push_to_hub(*given, **settings)
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value


def test_a_namm_is_uploaded_with_a_card(hub, tmp_path):
    address = push_to_hub(tiny_namm(), "user/repo", private=True, token="t", commit_message="First")
    assert address == "https://huggingface.co/user/repo" and hub.token == "t"
    assert hub.made == ("user/repo", {"private": True, "exist_ok": True})
    assert hub.upload["repo_id"] == "user/repo" and hub.upload["commit_message"] == "First"
    assert sorted(hub.files) == NAMES and b'memx.namm.load("user/repo")' in hub.files["README.md"]
    for name, data in hub.files.items():
        (tmp_path / name).write_bytes(data)
    assert load(tmp_path).parameters.equal(tiny_namm().parameters)


def test_a_folder_is_uploaded_as_it_is(hub, tmp_path, monkeypatch):
    save(tiny_namm(), tmp_path / "run" / "namm", host="some/host", tasks=("facts",), card=Card(about="Mine."))
    (tmp_path / "run" / "config.yaml").write_text("secret")
    push_to_hub(tmp_path / "run", "user/repo", token="t")
    assert hub.files == {name: (tmp_path / "run" / "namm" / name).read_bytes() for name in NAMES}
    save(tiny_namm(), tmp_path / "bare", host="some/host", tasks=("facts",))
    push_to_hub(str(tmp_path / "bare"), "user/repo", token="t")
    assert b"| base model | some/host |" in hub.files["README.md"] and sorted(hub.files) == NAMES
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == NAMES[1:], "the folder stays as it is"
    ship(monkeypatch, tmp_path / "shipped")
    push_to_hub("universal", "user/repo", token="t")
    assert b"The NAMM universal." in hub.files["README.md"]


def test_a_login_is_enough(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "saved")
    push_to_hub(tiny_namm(), "user/repo")
    assert hub.token is None and hub.upload


def test_mistakes_reach_no_hub(hub, tmp_path):
    assert "no token" in refused(tiny_namm(), "user/repo").message
    for name in ("repo", "a/b/c", "user/", "../repo"):
        assert "is not the name of a hub repository" in refused(tiny_namm(), name, token="t").message
    assert "no NAMM" in refused(tmp_path / "none", "user/repo", token="t").message
    assert hub.made is None


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (ConnectionError("no route"), "the Hugging Face hub cannot be reached", "hf upload user/repo"),
        (errors.LocalTokenNotFoundError("x"), "refuses to write to user/repo", "hf auth login"),
        (403, "refuses to write to user/repo", "write permission"),
        (503, "cannot upload to user/repo: busy now", "later"),
    ],
)
def test_what_the_hub_refuses(hub, error, message, hint):
    if isinstance(error, int):
        status, error = error, OSError("busy\nnow")
        error.response = types.SimpleNamespace(status_code=status)
    hub.error = error
    told = refused(tiny_namm(), "user/repo", token="t")
    assert message in told.message and hint in told.hint
