"""The trial of a user's own policy: what does as the commands rely on passes, and each mistake is found."""

import json
import sys

import pytest
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.eviction.policy_check import check_own_policy

POLICIES = """
import torch
from memx.namm import BudgetPolicy, Rule


class Good(BudgetPolicy):
    def scores(self, view):
        return view.value.norm(dim=-1)


class Drawn(BudgetPolicy):
    def scores(self, view):
        return torch.rand(view.ages.shape)


class Batch(BudgetPolicy):
    def scores(self, view):
        return (view.key - view.key.mean((0, 1, 2))).norm(dim=-1)


class Shape(BudgetPolicy):
    def scores(self, view):
        return view.key


class Unknown(BudgetPolicy):
    def scores(self, view):
        return view.ages * float("nan")


class Fails(BudgetPolicy):
    def scores(self, view):
        return view.absent


class RawKeys(BudgetPolicy):
    def scores(self, view):
        return -view.key.var(dim=-1)


class Nothing(BudgetPolicy):
    def scores(self, view):
        view.ages.float()


class Whole(BudgetPolicy):
    def scores(self, view):
        return -view.ages


class Sometimes(BudgetPolicy):
    hop = 16

    def observe(self, block):
        return block.attention.key.new_zeros(*block.attention.key.shape[:3], 0)

    def scores(self, view):
        if len(view.key) > 1:
            raise ValueError("one sequence at a time")
        return view.ages.float()


class TooMany(BudgetPolicy):
    def __post_init__(self):
        object.__setattr__(self, "rule", Rule(budget=1.0))

    def scores(self, view):
        return view.ages
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("policies") / "policies_to_check.py"
    path.write_text(POLICIES)
    yield path
    for name in [name for name in sys.modules if name.startswith("memx_policy_")]:
        del sys.modules[name]


def failed(checks):
    return [check.name for check in checks if check.passed is False]


@pytest.mark.parametrize(
    ("name", "every"), [("snapkv", 64), ("{}:Good", 32), ("{}:Whole", 64), ("knorm", 256), ("{}:RawKeys", 48)]
)
def test_what_does_as_the_commands_rely_on_passes(file, name, every):
    checks = check_own_policy(name.format(file), every=every)
    assert failed(checks) == [] and len(checks) == 7
    assert "times that of knorm" in checks[-1].found


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Drawn", "when it runs again"),
        ("Batch", "alone and in a padded batch"),
        ("Shape", "scores are numbers"),
        ("Unknown", "scores are numbers"),
        ("Fails", "scores are numbers"),
        ("Nothing", "scores are numbers"),
        ("TooMany", "its budget in every layer"),
        ("Sometimes", "alone and in a padded batch"),
    ],
)
def test_each_mistake_is_found(file, name, first):
    found = failed(check_own_policy(f"{file}:{name}"))
    assert found and first in found[0]


def test_what_has_no_budget_is_refused():
    with pytest.raises(MemxError, match="takes no budget"):
        check_own_policy("full")


def test_the_command_line(file, capsys):
    assert memx(["policies", "check", f"{file}:Shape", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["passed"] is False and "returned scores of shape" in found["found"]
    assert memx(["policies", "check", "absent.py:X"]) == 2
    assert "no file absent.py" in capsys.readouterr().err
    assert memx(["policies", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["snapkv"]["source"] == "arXiv 2404.14469" and {"universal", "kvzip", "full"} <= listed.keys()
    assert memx(["policies", "list"]) == 0
    assert "Keeps the newest tokens" in capsys.readouterr().out
