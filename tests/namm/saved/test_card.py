"""The card of a NAMM: a front matter that the hub reads, and all that is known; it lies beside the NAMM's files."""

import pytest
import yaml
from huggingface_hub import ModelCard
from memx.errors import MemxError
from memx.namm import NO_PASS, Card, HeadTable, Namm, Rule, Score, load, save
from memx.namm.saved.card import card_text

from .shipped import tiny_namm

CARD = Card(
    about="Keeps half of the tokens.",
    command="memx evolve-namm config.yaml",
    config="seed: 3\nname: a\n",
    seeds=(3, 4),
    scores=(Score("test prompts: all", "a|b", 0.51234, 0.4, 0.6, 16), Score("test", "kept", 12.5)),
    license="mit",
)


def test_the_front_matter_is_one_of_the_hub():
    data = ModelCard(card_text(tiny_namm(), CARD)).data
    assert data.library_name == "memx" and data.license == "mit" and {"memx", "namm"} <= {*data.tags}


def test_all_that_is_known_is_in_the_text():
    text = card_text(tiny_namm(), CARD, host="some/host", tasks=("needles", "facts"), place="user/repo")
    for part in (
        "# namm\n\nKeeps half of the tokens.\n",
        "| parameters | 10 |",
        "| features | `log_age`, ",
        "| keeps | 0.5 of all tokens, allocation equal |",
        "| tokens between evictions | 64 |",
        "| base model | some/host |",
        "| tasks | `needles`, `facts` |",
        "| seeds | 3, 4 |",
        "| test prompts: all | a\\|b | 0.512 | 0.400 to 0.600 | 16 |",
        "| test | kept | 12.500 |  |  |",
        "```sh\nmemx evolve-namm config.yaml\n```",
        "```yaml\nseed: 3\nname: a\n```",
        'memx.namm.load("user/repo")',
        "memx evict --file prompt.txt --namm user/repo",
        'memx.load_model("some/host")',
        "works with any model",
    ):
        assert part in text, part
    assert yaml.safe_load(text.split("---")[1])["license"] == "mit"


def test_what_is_not_known_is_left_out():
    text = card_text(tiny_namm(rule=Rule(threshold=0.5)), Card())
    assert "threshold 0.5, layer_max" in text and 'memx.load_model("smollm2")' in text
    assert not any(part in text for part in ("base model", "| tasks |", "| seeds |", "## Scores", "## How it was made"))
    bound = Namm(scorer="linear", features=NO_PASS, table=HeadTable(2, 3, True, 0))
    assert "its base model only" in card_text(bound, Card())


def test_a_card_lies_beside_the_files_and_goes_with_them(tmp_path):
    folder = tmp_path / "n"
    save(tiny_namm(), folder, host="some/host", card=CARD)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "namm.json", "namm.safetensors"]
    assert "some/host" in (folder / "README.md").read_text("utf-8")
    save(tiny_namm(1), folder, card="# mine\n")
    assert (folder / "README.md").read_text("utf-8") == "# mine\n" and load(folder).every == 64
    save(tiny_namm(2), folder)
    assert not (folder / "README.md").exists()


def test_a_folder_with_a_readme_alone_is_no_namm(tmp_path):
    (tmp_path / "README.md").write_text("# project\n")
    with pytest.raises(MemxError, match="is not a saved NAMM"):
        save(tiny_namm(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "# project\n"
