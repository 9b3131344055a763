"""Policies of a user's own: found by module, file or entry point, made like those of memx, refused with a hint."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from memx.errors import MemxError
from memx.namm import Rule, make_policy, plugins
from memx.namm.plugins import find_class, is_plugin, plugin_digest, short_name

TEXT = """
from memx.namm import BudgetPolicy


class Long(BudgetPolicy):
    def scores(self, view):
        return view.value.norm(dim=-1)


class NoBudget:
    pass


class NoScores:
    def __init__(self, budget, every, rule):
        self.rule, self.every, self.name = rule, every, "x"


number = 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "own_policy.py"
    path.write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield path
    for name in [name for name in sys.modules if name == "own_policy" or name.startswith("memx_policy_")]:
        del sys.modules[name]


@pytest.mark.parametrize("place", ["own_policy.py", "own_policy", "{}"])
def test_a_policy_of_a_file_or_module_is_made_like_those_of_memx(file, place):
    rule = Rule(allocation="global", first=2)
    policy = make_policy(place.format(file) + ":Long", budget=0.25, every=32, rule=rule)
    assert (policy.name, policy.every, policy.hop) == ("Long", 32, 0)
    assert (policy.rule.budget, policy.rule.allocation, policy.rule.first) == (0.25, "global", 2)


def test_a_name_that_an_installed_package_gives(file, monkeypatch):
    point = EntryPoint("longest", "own_policy:Long", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    sys.path.append(str(file.parent))
    assert is_plugin("longest") and not is_plugin("knorm")
    assert make_policy("longest", budget=0.5).name == "Long"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("own_policy.py:Lon", "has no Lon", "Long"),
        ("own_policy.py:", "is not MODULE:CLASS", "my_policy.py:MyPolicy"),
        ("own_policy.py:number", "is no class", "name the class"),
        ("absent.py:Long", "no file absent.py", "before the colon"),
        ("absent_module:Long", "no module absent_module", "FILE.py:CLASS"),
        ("own_policy.py:NoBudget", "cannot be made with budget, every and rule", "BudgetPolicy"),
        ("own_policy.py:NoScores", "has no hop, context, width, observe, scores", "BudgetPolicy"),
        ("own_polic", "unknown policy", "FILE.py:CLASS"),
    ],
)
def test_what_is_no_policy_is_refused_with_a_hint(file, name, message, hint):
    with pytest.raises(MemxError, match=message) as caught:
        make_policy(name, budget=0.5)
    assert hint in str(caught.value.hint)


def test_a_file_that_fails_says_why(file):
    file.write_text("1 / 0")
    with pytest.raises(MemxError, match="ZeroDivisionError: division by zero"):
        find_class("own_policy.py:Long")
    file.write_text("import a_package_that_is_absent")
    with pytest.raises(MemxError, match="needs the package a_package_that_is_absent"):
        find_class("own_policy:Long")


def test_the_digest_changes_with_the_file(file):
    before = plugin_digest("own_policy.py:Long")
    file.write_text(TEXT + "\n# changed\n")
    assert plugin_digest("own_policy.py:Long") != before


def test_names_are_told_apart_without_torch():
    code = "import sys; from memx.namm.plugins import is_plugin; is_plugin('a'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_scores_are_those_of_the_class(file):
    policy = make_policy("own_policy.py:Long", budget=0.5)

    class View:
        value = torch.tensor([[[[3.0, 4.0], [0.0, 1.0]]]])

    assert policy.scores(View()).tolist() == [[[5.0, 1.0]]]


def test_a_class_of_its_own_gets_a_rule_with_the_budget(file):
    file.write_text(
        "class Plain:\n"
        "    name, hop, context, width = 'plain', 0, 0, 0\n"
        "    def __init__(self, budget, every, rule):\n"
        "        self.every, self.rule = every, rule\n"
        "    observe = scores = None\n"
    )
    assert make_policy("own_policy.py:Plain", budget=0.25).rule.budget == 0.25


def test_names_of_classes_and_files(file):
    file.write_text(TEXT + "\n\nclass Longer(Long):\n    pass\n")
    assert make_policy("own_policy.py:Longer", budget=0.5).name == "Longer"
    assert short_name(f"{file}:Long") == "own_policy.py:Long" and short_name("knorm") == "knorm"


def test_a_file_may_import_its_neighbour_from_another_folder(file, tmp_path, monkeypatch):
    (tmp_path / "neighbour_of_own_policy.py").write_text("factor = 2\n")
    file.write_text("from neighbour_of_own_policy import factor\n" + TEXT)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert make_policy(f"{file}:Long", budget=0.5).name == "Long"
    sys.modules.pop("neighbour_of_own_policy", None)
