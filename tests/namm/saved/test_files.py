"""NAMMs on disk: the same bits come back; whatever is damaged, mixed or of other constants is refused in one line."""

import hashlib
import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import memx.namm
import pytest
import torch
from memx import __version__
from memx.errors import MemxError
from memx.leftovers import temporary_beside
from memx.namm import NO_PASS, HeadShares, HeadTable, Namm, Rule, load, save
from memx.namm.policies.features.spectrum import age_features
from memx.namm.saved.description import CONSTANTS
from safetensors.torch import load_file
from safetensors.torch import save as tensor_bytes

from ..published import token_features


def drawn(seed=0, **settings):
    """A NAMM of random numbers; an MLP has hidden layers of 7 and 3."""
    torch.manual_seed(seed)
    size = 26 * 7 + 8 * 3 + 4 if settings.get("scorer") == "mlp" else 4172
    return Namm(torch.randn(size), torch.rand(17) * 1e-3, torch.rand(17) * 1e-30, **settings)


def same(one, other):
    """Whether two NAMMs are equal, tensors to the bit."""
    for part in fields(Namm):
        ours, theirs = getattr(one, part.name), getattr(other, part.name)
        if isinstance(ours, torch.Tensor):
            if ours.dtype != theirs.dtype or not torch.equal(ours.view(torch.int32), theirs.view(torch.int32)):
                return False
        elif ours != theirs or type(ours) is not type(theirs):
            return False
    return True


NP = dict(scorer="mlp", hidden=(8, 8), features=NO_PASS)
SHARES = HeadShares((0.25,), (((0.4, 0.1), (0.3, 0.2)),))
NAMMS = {
    "defaults": lambda: Namm(),
    "strict": lambda: drawn(strict=True, every=32, name="strïct ☂"),
    "budget": lambda: drawn(rule=Rule(budget=0.1 + 0.2, grouping="per_head")),
    "keeps all": lambda: drawn(rule=Rule(threshold=-torch.inf)),
    "keeps one": lambda: drawn(rule=Rule(threshold=torch.inf)),
    "mlp": lambda: drawn(scorer="mlp", hidden=(7, 3), rule=Rule(threshold=1e-17)),
    "small": lambda: Namm(torch.linspace(-1, 1, 161), torch.rand(9), torch.rand(9), **NP),
    "linear": lambda: Namm(torch.rand(18), features=("log_spectrum",), scorer="linear", activation="relu"),
    "table": lambda: Namm(torch.rand(161 + 2 * 8 + 12), **NP, table=HeadTable(3, 2, bias=False, embedding=2)),
    "shares": lambda: drawn(rule=Rule(budget=0.25, allocation="table", shares=SHARES, first=4, newest=32)),
}


@pytest.mark.parametrize("kind", NAMMS)
def test_a_round_trip_is_exact(tmp_path, kind):
    namm = NAMMS[kind]()
    save(namm, tmp_path / "deep" / "namm", host="some/host", tasks=["a", "b"])
    assert same(namm, load(tmp_path / "deep" / "namm")) and same(namm, load(str(tmp_path / "deep" / "namm")))
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["namm"]


def test_a_budget_and_an_interval_can_be_given(tmp_path):
    save(Namm(torch.randn(4172), rule=Rule(budget=0.5, allocation="global", first=3), every=64), tmp_path / "a")
    found = load(tmp_path / "a", budget=0.25, every=32)
    assert found.rule == Rule(budget=0.25, allocation="global", first=3) and found.every == 32
    assert load(tmp_path / "a").rule.budget == 0.5 and load(tmp_path / "a", every=96).every == 96
    for wrong in ({"budget": 1.5}, {"every": 20}):
        with pytest.raises(MemxError):
            load(tmp_path / "a", **wrong)


def test_a_namm_of_format_1_means_what_it_meant(tmp_path):
    """A file as memx wrote it before features had names."""
    namm = drawn(scorer="mlp", hidden=(7, 3), rule=Rule(budget=0.5, grouping="per_head"), every=64)
    save(namm, tmp_path / "n")
    described = json.loads((tmp_path / "n" / "namm.json").read_text("utf-8"))
    for name in ("features", "activation", "table"):
        del described[name]
    for name in ("allocation", "shares", "first", "newest"):
        del described["rule"][name]
    old = described | {"format": 1, "constants": CONSTANTS[1]}
    (tmp_path / "n" / "namm.json").write_text(json.dumps(old), "utf-8")
    loaded = load(tmp_path / "n")
    assert same(loaded, namm) and loaded.activation == "relu" and loaded.features == ("published",)


def test_what_the_files_hold(tmp_path):
    namm = drawn(every=64)
    memx.namm.save(namm, tmp_path / "namm", host="smollm2", tasks=("retrieval", "qa"))
    assert sorted(file.name for file in (tmp_path / "namm").iterdir()) == ["namm.json", "namm.safetensors"]
    tensors = load_file(tmp_path / "namm" / "namm.safetensors")
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        "mean": [17], "parameters": [4172], "variance": [17]}  # fmt: skip
    assert torch.equal(tensors["parameters"], namm.parameters)
    described = json.loads((tmp_path / "namm" / "namm.json").read_text("utf-8"))
    del described["sha256"]
    assert described == {
        "format": 2,
        "memx": __version__,
        "name": "namm",
        "features": ["published"],
        "scorer": "bam",
        "hidden": [],
        "activation": "relu",
        "strict": False,
        "table": None,
        "rule": {
            "threshold": 0.0,
            "budget": None,
            "grouping": "layer_max",
            "allocation": "equal",
            "shares": None,
            "first": 0,
            "newest": 0,
        },
        "every": 64,
        "constants": {
            "n_fft": 32,
            "hop": 16,
            "window": "hann periodic",
            "decay": 0.99,
            "age base": 50000,
            "ages": 8,
            "smallest deviation": 1e-7,
            "parameters": "of each layer: weight (in x out), bias",
            "gelu": "by the error function",
            "recent queries": 32,
            "future positions": 512,
            "first tokens": 4,
            "added to attention": 1e-6,
            "added to expected attention": 1e-9,
        },
        "host": "smollm2",
        "tasks": ["retrieval", "qa"],
    }


def test_the_constants_are_those_of_the_features():
    """The two that spectrum.py holds without a name."""
    expected = CONSTANTS[2]["age base"] ** -0.75
    assert age_features(torch.tensor([1]))[0, 3].item() == pytest.approx(expected, rel=1e-6)
    nothing, spectrum = torch.zeros(17), torch.ones(1, 1, 1, 17)
    expected = 1 / CONSTANTS[2]["smallest deviation"]
    assert token_features(torch.zeros(1, 1, 1), spectrum, nothing, nothing)[..., 8].item() == pytest.approx(expected)


def test_a_namm_of_an_older_memx_keeps_its_constant(tmp_path):
    save(drawn(1), tmp_path / "new")
    described = json.loads((tmp_path / "new" / "namm.json").read_text("utf-8"))
    del described["constants"]["smallest deviation"]
    ages, spectrum = torch.zeros(1, 1, 1), torch.full((1, 1, 1, 17), 0.01)
    for name, eps in (("stated", {"eps": 1e-5}), ("unstated", {})):
        shutil.copytree(tmp_path / "new", tmp_path / name)
        old = {**described, "constants": described["constants"] | eps}
        (tmp_path / name / "namm.json").write_text(json.dumps(old), "utf-8")
        namm = load(tmp_path / name)
        save(namm, tmp_path / "again")
        kept = load(tmp_path / "again")
        assert kept.eps == namm.eps == 1e-5
        assert json.loads((tmp_path / "again" / "namm.json").read_text("utf-8"))["constants"]["eps"] == 1e-5
        mean, variance = torch.zeros(17), torch.full((17,), 1e-5)
        found = token_features(ages, spectrum, mean, variance, kept.eps)[..., 8:]
        torch.testing.assert_close(found, spectrum / 2e-5**0.5)
        torch.testing.assert_close(token_features(ages, spectrum, mean, variance)[..., 8:], spectrum / 1e-5**0.5)
    assert load(tmp_path / "new").eps == 0
    wrong = {**described, "constants": described["constants"] | {"eps": 1e-3}}
    (tmp_path / "new" / "namm.json").write_text(json.dumps(wrong), "utf-8")
    with pytest.raises(MemxError, match=r"its constant 'eps' is 0\.001, this memx uses 1e-05"):
        load(tmp_path / "new")


def test_other_dtypes_and_views_are_written_as_float32(tmp_path):
    numbers = torch.randn(4172 * 2, dtype=torch.float64, requires_grad=True)[::2]
    save(Namm(numbers, torch.zeros(1).expand(17), torch.ones(17, dtype=torch.bfloat16)), tmp_path / "n")
    loaded = load(tmp_path / "n")
    assert torch.equal(loaded.parameters, numbers.detach().float()) and not loaded.parameters.requires_grad
    assert loaded.mean.tolist() == [0.0] * 17 and loaded.variance.dtype == torch.float32


def test_saving_over_a_namm_replaces_it_as_a_whole(tmp_path):
    save(drawn(1), tmp_path / "n", host="one", tasks=["a"])
    link = tmp_path / "link"
    link.symlink_to("n")
    for seed, place in ((2, tmp_path / "n"), (3, link)):
        save(drawn(seed), place)
        assert same(load(tmp_path / "n"), drawn(seed))
        assert json.loads((tmp_path / "n" / "namm.json").read_text())["host"] is None
    assert link.is_symlink() and sorted(file.name for file in tmp_path.iterdir()) == ["link", "n"]
    (tmp_path / "empty").mkdir()
    save(drawn(), tmp_path / "empty")
    (tmp_path / "n" / "namm.json").unlink()  # what is left of a NAMM is one
    save(drawn(4), tmp_path / "n")
    assert same(load(tmp_path / "n"), drawn(4))


def test_saving_over_something_else_is_refused(tmp_path):
    save(drawn(), tmp_path / "n")
    (tmp_path / "n" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "n", tmp_path / "file", tmp_path):
        with pytest.raises(MemxError, match="exists and is not a saved NAMM") as caught:
            save(drawn(1), place)
        assert caught.value.hint
    assert (tmp_path / "file").read_text() == (tmp_path / "n" / "notes.txt").read_text() == "mine"
    assert same(load(tmp_path / "n"), drawn())
    with pytest.raises(MemxError, match="cannot write"):
        save(drawn(), tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(parameters=torch.full((4172,), torch.nan)), "parameters contains values that are not finite"),
        (dict(parameters=torch.full((4172,), 1e300, dtype=torch.float64)), "not finite"),
        (dict(variance=-torch.ones(17)), "variance is negative"),
        (dict(scorer="gru", parameters=torch.zeros(26)), "scorer: must be 'bam', 'mlp' or 'linear'"),
        (dict(every=None), "every: must be a whole number"),
    ],
)
def test_what_would_not_load_is_not_saved(tmp_path, change, message):
    save(drawn(), tmp_path / "n")
    with pytest.raises(MemxError, match=message):
        save(Namm(**change), tmp_path / "n")
    assert same(load(tmp_path / "n"), drawn())


@pytest.mark.parametrize("missing", ["n", "n/namm.json", "n/namm.safetensors"])
def test_a_missing_folder_or_file(tmp_path, missing):
    save(drawn(), tmp_path / "n")
    path = tmp_path / missing
    path.rename(tmp_path / "elsewhere")
    lacking = f"contains no {path.name}" if path.suffix else "is not a folder"
    with pytest.raises(MemxError, match=f"no NAMM: .*n {lacking}") as caught:
        load(tmp_path / "n")
    assert "memx.namm.save" in caught.value.hint


def test_a_file_is_no_namm(tmp_path):
    (tmp_path / "n").write_text("a file")
    with pytest.raises(MemxError, match=r"no NAMM: .*n is not a folder"):
        load(tmp_path / "n")


def refused(folder: Path) -> str:
    """The one line by which a folder is refused."""
    with pytest.raises(MemxError) as caught:
        load(folder)
    assert "\n" not in caught.value.message and caught.value.hint and str(folder) in caught.value.message
    return caught.value.message


def test_any_damage_to_the_numbers_is_noticed(tmp_path):
    save(drawn(), tmp_path / "n")
    file = tmp_path / "n" / "namm.safetensors"
    whole = file.read_bytes()
    for place in (0, 3, 9, 50, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place])
        assert "namm.safetensors does not match its checksum" in refused(tmp_path / "n")
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "namm.safetensors does not match its checksum" in refused(tmp_path / "n")
    file.write_bytes(whole + b" ")
    assert "namm.safetensors does not match its checksum" in refused(tmp_path / "n")
    save(drawn(1), tmp_path / "other")
    file.write_bytes((tmp_path / "other" / "namm.safetensors").read_bytes())
    assert "does not match its checksum in namm.json" in refused(tmp_path / "n")


def put(folder: Path, data: bytes) -> None:
    """Give a NAMM other numbers, of which its JSON knows."""
    (folder / "namm.safetensors").write_bytes(data)
    described = json.loads((folder / "namm.json").read_text("utf-8"))
    described["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "namm.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("parameters", None, "contains no parameters"),
        ("parameters", torch.zeros(4171), r"parameters has shape \[4171\], not \[4172\]"),
        ("parameters", torch.zeros(1, 4172), r"parameters has shape \[1, 4172\]"),
        ("parameters", torch.zeros(4172, dtype=torch.float64), "parameters is torch.float64, not float32"),
        ("mean", torch.zeros(16), r"mean has shape \[16\], not \[17\]"),
        ("mean", torch.full((17,), torch.inf), "mean contains values that are not finite"),
        ("variance", torch.full((17,), torch.nan), "variance contains values that are not finite"),
        ("variance", torch.full((17,), -1e-9), "a variance is negative"),
    ],
)
def test_numbers_that_are_no_namm(tmp_path, name, tensor, message):
    save(drawn(), tmp_path / "n")
    tensors = load_file(tmp_path / "n" / "namm.safetensors")
    del tensors[name]
    put(tmp_path / "n", tensor_bytes(tensors if tensor is None else tensors | {name: tensor}))
    with pytest.raises(MemxError, match=message):
        load(tmp_path / "n")
    refused(tmp_path / "n")
    put(tmp_path / "n", b"no safetensors at all")
    assert "namm.safetensors is corrupt" in refused(tmp_path / "n")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 3, f"its format version is 3, this memx ({__version__}) reads 1 and 2"),
        ("format", None, "does not describe a NAMM"),
        ("scorer", "gru", "scorer: must be 'bam', 'mlp' or 'linear'"),
        ("scorer", "mlp", "parameters has shape [4172], not [26]"),
        ("hidden", [0], "hidden.0: "),
        ("rule.budget", 1.5, "budget must be in (0, 1] or a whole number of tokens, got 1.5"),
        ("rule.threshold", "NaN", "the threshold is not a number"),
        ("rule.grouping", "layer", "rule.grouping: "),
        ("rule.floor", 1, "rule.floor: is not a known key"),
        ("every", 500, "interval must be a positive multiple of 16 tokens, got 500"),
        ("every", 0, "every: "),
        ("name", None, "name: is missing"),
        ("constants", None, "has no constants"),
        ("constants.decay", 0.9, "its constant 'decay' is 0.9, this memx uses 0.99"),
        ("constants.window", "hann", 'its constant \'window\' is "hann", this memx uses "hann periodic"'),
        ("constants.hop", None, "its constant 'hop' is nothing, this memx uses 16"),
        ("constants.centred", True, "its constant 'centred' is true, this memx uses nothing"),
    ],
)
def test_descriptions_of_something_else(tmp_path, key, value, message):
    save(drawn(), tmp_path / "n")
    described = json.loads((tmp_path / "n" / "namm.json").read_text("utf-8"))
    *above, last = key.split(".")
    part = described
    for name in above:
        part = part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    (tmp_path / "n" / "namm.json").write_text(json.dumps(described))
    assert message in refused(tmp_path / "n")


BAD = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1', b"[" * 200_000, b'{"format": 1, "format": 1}']
BAD += [b'{"format": Infinity}', b'{"format": 1, "host": "\\ud800"}']


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_description_that_is_damaged(tmp_path, text):
    save(drawn(), tmp_path / "n")
    (tmp_path / "n" / "namm.json").write_bytes(text)
    assert "namm.json" in refused(tmp_path / "n")


def test_what_a_kill_left_is_put_back_or_goes_with_the_next_save(tmp_path):
    save(drawn(1), tmp_path / "n")
    (tmp_path / "n").rename(tmp_path / ".n.old")
    (tmp_path / temporary_beside(tmp_path / "n").name.replace(str(os.getpid()), "4194305")).mkdir()
    save(drawn(2), tmp_path / "n")
    assert same(load(tmp_path / "n"), drawn(2)) and [path.name for path in tmp_path.iterdir()] == ["n"]


@pytest.mark.parametrize("over", [True, False])
def test_an_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch, over):
    """Stopped before any flush or rename, by an error or a key, the old NAMM is there whole, or nothing is."""
    calls = {"fsync": (os, "fsync"), "rename": (Path, "rename")}
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        for name, (home, attribute) in calls.items():
            usual = getattr(home, attribute)
            for fatal in range(4 if name == "fsync" else 2 if over else 1):
                folder = tmp_path / f"{name}{fatal}{type(error).__name__}" / "n"
                if over:
                    save(drawn(1), folder)
                left = [fatal]

                def fails(*args, usual=usual, left=left, error=error):
                    left[0] -= 1
                    if left[0] == -1:
                        raise error
                    return usual(*args)

                monkeypatch.setattr(home, attribute, fails)
                with pytest.raises(MemxError if isinstance(error, OSError) else KeyboardInterrupt):
                    save(drawn(2), folder)
                monkeypatch.setattr(home, attribute, usual)
                renamed = name == "fsync" and fatal == 3  # all there; whether it would outlast a power cut is open
                if over or renamed:
                    assert same(load(folder), drawn(2 if renamed else 1))
                else:
                    assert not folder.exists()
                assert not [file for file in folder.parent.iterdir() if file != folder]
