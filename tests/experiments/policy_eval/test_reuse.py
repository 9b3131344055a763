"""NAMMs added to an evaluation: the same figures as if all had been measured together, without measuring the rest."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.experiments.config.base import run_name
from memx.experiments.config.loading import load_eval_config
from memx.experiments.eviction.head_shares import HEAD_SHARES
from memx.experiments.policy_eval import measure
from memx.experiments.policy_eval.reuse import read_reused
from memx.experiments.policy_eval.run import RESULTS, eval_namm
from memx.experiments.policy_eval.sources import eval_tree, with_policy_sources
from memx.experiments.runtime.options import Options
from memx.namm.plugins import plugin_digest
from memx.namm.policies.base import Rule
from memx.namm.policies.network import Namm
from memx.results.store.runs import RunStore

from ..evolution.tiny_evolution import write_host


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base model and two NAMMs, on disk."""
    folder = tmp_path_factory.mktemp("place")
    for seed, name in enumerate(("one", "two")):
        parameters = torch.randn(4172, generator=torch.Generator().manual_seed(seed))
        made = Namm(parameters, rule=Rule(budget=0.4, allocation="global"), every=64)
        namm.save(made, folder / name, host="another", tasks=["key_values"])
    return write_host(folder / "host"), folder / "one", folder / "two"


def asked(place, *namms, **changes):
    given = {"host.name": str(place[0]), "host.threads": 1, "tasks": ["key_values", "passkey"], "length": 200}
    given |= {"prompts": 2, "budgets": [0.4, 0.2], "policies": ["random", "h2o", "kvzip"], "resamples": 100}
    given |= {"allocations": ["equal", "table"], "allocations_of": {"namm": ["global"], "kvzip": ["global"]}}
    given |= {"documents": 0, **{key.replace("__", "."): value for key, value in changes.items()}}
    return load_eval_config(eval_tree([*namms], given), [*given.items()])


def quiet(event):
    pass


@pytest.fixture(scope="module")
def first(place, tmp_path_factory):
    """A finished evaluation of the first NAMM: its folder."""
    root, config = tmp_path_factory.mktemp("first"), asked(place, place[1])
    eval_namm(config, Options(root), quiet)
    return root / run_name(config)


def figures(rows):
    found = {}
    for row in rows:
        labels = row.labels
        found[row.variant, row.dataset, row.metric, labels.budget, labels.layer, labels.rival] = row.value, row.low
    return found


def test_rows_are_those_of_an_evaluation_of_all_together(place, first, tmp_path, monkeypatch):
    together = figures(eval_namm(asked(place, *place[1:]), Options(tmp_path / "a"), quiet))
    asked_for = []
    batches = measure.PolicyBatch

    def watched(slots, members):
        asked_for.extend(member.name for member in members)
        return batches(slots, members)

    monkeypatch.setattr(measure, "PolicyBatch", watched)
    monkeypatch.setattr(measure, "kvzip_scores", None)  # which nothing asks for
    config = asked(place, *place[1:], reuse=str(first))
    added = eval_namm(config, Options(tmp_path / "b"), quiet)
    assert [*figures(added)] == [*together]  # in the same order
    for key, (value, low) in figures(added).items():
        assert (value, low) == pytest.approx(together[key], abs=1e-5), key
    assert set(asked_for) == {"namm"} and len(asked_for) == 4 * 2  # prompts, budgets: the second NAMM alone
    assert "namm one" in {row.variant.removesuffix(" global") for row in added}  # the first has another label now
    run = RunStore(tmp_path / "b").run(run_name(config))
    assert (run.folder / HEAD_SHARES).read_bytes() == (first / HEAD_SHARES).read_bytes()


def test_a_namm_with_the_same_numbers_that_keeps_other_tokens_is_measured(place, first, tmp_path):
    made = namm.load(place[1])
    namm.save(
        replace(made, rule=replace(made.rule, first=9)), tmp_path / "protects", host="another", tasks=["key_values"]
    )
    config = asked(place, tmp_path / "protects")
    alone = figures(eval_namm(config, Options(tmp_path / "a"), quiet))
    again = figures(eval_namm(config.model_copy(update={"reuse": str(first)}), Options(tmp_path / "b"), quiet))
    wanted = {key: value[0] for key, value in alone.items() if "namm" in key[0] and key[2] == "log_likelihood"}
    assert wanted and {key: again[key][0] for key in wanted} == pytest.approx(wanted, abs=1e-5)
    before = figures(eval_namm(asked(place, place[1]), Options(tmp_path / "c"), quiet))
    assert any(abs(value - before[key][0]) > 1e-3 for key, value in wanted.items())
    namm.save(
        replace(made, rule=replace(made.rule, first=0)), tmp_path / "protects", host="another", tasks=["key_values"]
    )
    with pytest.raises(MemxError, match="changed since this evaluation started"):
        eval_namm(config, Options(tmp_path / "d"), quiet)


def test_lines_of_a_threshold_are_not_those_of_a_budget(place, first, tmp_path):
    made = namm.load(place[1])
    folder = tmp_path / "threshold"
    namm.save(replace(made, rule=Rule(threshold=0.0)), folder, host="another", tasks=["key_values"])
    config = asked(place, folder, policies=["random"], allocations=["equal"], allocations_of={})
    reused = read_reused(config.model_copy(update={"reuse": str(first)}))
    assert {key.variant for key in reused.keys if not key.variant.startswith("namm")} >= {"random", "h2o"}
    assert not [key for key in reused.keys if key.variant.startswith("namm")]


def test_a_threshold_for_reading_is_calibrated_anew(place, tmp_path):
    changes = dict(mode="online", policies=["random"], allocations=["equal"], allocations_of={}, share_prompts=1)
    config = asked(place, place[1], **changes, online_thresholds=True)
    eval_namm(config, Options(tmp_path), quiet)
    again = config.model_copy(update={"reuse": str(tmp_path / run_name(config))})
    assert {key.variant for key in read_reused(again).keys} >= {"namm", "random"}
    assert "namm threshold" not in {key.variant for key in read_reused(again).keys}


def test_what_older_versions_wrote_of_protection_means_as_a_namm_says(place, first, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(first, old)
    lines = (old / "config.yaml").read_text().splitlines()
    told = [line.replace("null", "0") if line.startswith("protect_") else line for line in lines]
    (old / "config.yaml").write_text("\n".join(line for line in told if "settings:" not in line) + "\n")
    assert load_eval_config(str(old / "config.yaml")).protect_first == 0
    eval_namm(asked(place, place[2], reuse=str(old)), Options(tmp_path / "runs"), quiet)
    with pytest.raises(MemxError, match="has protect_first None, and this evaluation 3"):
        eval_namm(asked(place, place[2], reuse=str(old), protect_first=3), Options(tmp_path / "runs"), quiet)


def test_kinds_of_token_are_counted_under_every_namm(place, first, tmp_path):
    rows = eval_namm(asked(place, *place[1:], reuse=str(first), documents=1), Options(tmp_path), quiet)
    counted = {row.variant for row in rows if row.dataset == "kinds/code"}
    assert {"random", "namm one", "namm two"} <= {name.removesuffix(" global") for name in counted}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 220}, "has length 200, and this evaluation 220"),
        ({"seed": 1}, "has seed 0, and this evaluation 1"),
        ({"split": "validation"}, "has split test"),
        ({"host__dtype": "bfloat16"}, "has host.dtype float32"),
        ({"question": "before"}, "has question after, and this evaluation before"),
        ({"prompts": 3}, "has 2 prompts per family, and this evaluation 3"),
        ({"tasks": ["needles", "passkey"]}, "has no prompts of needles"),
        ({"write": True}, "has no generated answers"),
    ],
    ids=str,
)
def test_measurements_of_something_else_are_refused(place, first, tmp_path, changes, message):
    with pytest.raises(MemxError, match=message) as caught:
        eval_namm(asked(place, place[2], reuse=str(first), **changes), Options(tmp_path), quiet)
    assert caught.value.hint and "\n" not in str(caught.value)


def test_what_is_no_finished_evaluation_is_refused(place, first, tmp_path):
    def reuse(folder):
        eval_namm(asked(place, place[2], reuse=str(folder)), Options(tmp_path / "runs"), quiet)

    with pytest.raises(MemxError, match="none is not a run of memx eval-namm"):
        reuse(tmp_path / "none")
    stopped = tmp_path / "stopped"
    shutil.copytree(first, stopped)
    info = json.loads((stopped / "run.json").read_text())
    (stopped / "run.json").write_text(json.dumps(info | {"status": "interrupted"}))
    with pytest.raises(MemxError, match="is interrupted, not finished"):
        reuse(stopped)
    other = tmp_path / "other"
    shutil.copytree(first, other)
    lines = [json.loads(line) for line in (other / RESULTS).read_text().splitlines()]
    lines[1]["tokens"] += 1
    (other / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(MemxError, match=r"prompt 1 of passkey has .* tokens here") as caught:
        reuse(other)
    assert "leave out --reuse" in caught.value.hint
    cut = tmp_path / "cut"
    shutil.copytree(first, cut)
    (cut / RESULTS).write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(MemxError, match="has no line for prompt 2 of key_values"):
        reuse(cut)


def test_an_evaluation_with_nothing_new_takes_over_everything(place, first, tmp_path, monkeypatch):
    together = figures(eval_namm(asked(place, place[1]), Options(tmp_path / "a"), quiet))
    monkeypatch.setattr(measure, "kvzip_scores", None)
    rows = eval_namm(asked(place, place[1], reuse=str(first)), Options(tmp_path / "b"), quiet)
    assert figures(rows) == together


def test_another_table_of_head_shares_is_refused(place, first, tmp_path):
    tree = json.loads((first / HEAD_SHARES).read_text())
    same, other = tmp_path / "same.json", tmp_path / "other.json"
    same.write_text(json.dumps(tree))
    eval_namm(asked(place, place[2], reuse=str(first), head_shares=str(same)), Options(tmp_path), quiet)
    tree["tables"][0][0][0] = 0.5
    other.write_text(json.dumps(tree))
    with pytest.raises(MemxError, match="has another table of head shares") as caught:
        eval_namm(asked(place, place[2], reuse=str(first), head_shares=str(other)), Options(tmp_path), quiet)
    assert "--shares" in caught.value.hint


def test_a_policy_of_a_users_own_is_measured_anew_after_a_change(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own_policy_to_reuse.py"
    file.write_text(
        "from memx.namm import BudgetPolicy\n\n\nclass Own(BudgetPolicy):\n"
        "    def scores(self, view):\n        return view.ages.float()\n"
    )
    named = {"policies": [f"{file}:Own"], "allocations": ["equal"], "allocations_of": {}, "tasks": ["key_values"]}
    config = with_policy_sources(asked(place, place[1], **named))
    assert config.policy_sources == {f"{file}:Own": plugin_digest(f"{file}:Own")}
    eval_namm(config, Options(tmp_path / "runs"), quiet)
    earlier = str(tmp_path / "runs" / run_name(config))
    again = asked(place, place[1], place[2], **named, reuse=earlier)
    assert read_reused(with_policy_sources(again)) is not None
    file.write_text(file.read_text() + "# changed\n")
    with pytest.raises(MemxError, match="has changed since"):
        read_reused(with_policy_sources(again))
    assert run_name(with_policy_sources(asked(place, place[1], **named))) != run_name(config)
    with pytest.raises(MemxError, match="has changed since this config was written"):
        with_policy_sources(config)


def test_a_trained_model_is_compared_with_what_it_was_by_prompt(place, first, tmp_path):
    """Figures by hand from the lines of both evaluations; the model itself differs from itself in nothing."""
    from memx.experiments.base_models.load import load_host

    trained, tokenizer = load_host(str(place[0]))
    with torch.no_grad():
        trained.lm_head.weight.add_(
            torch.randn(trained.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
        )
    trained.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    config = asked(place, place[1], before=str(first), host__name=str(tmp_path / "trained"))
    rows = eval_namm(config, Options(tmp_path / "runs"), quiet)
    by_folder = []
    for folder in (first, tmp_path / "runs" / run_name(config)):
        lines = [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]
        facts = {(one["task"], one["number"], fact["variant"], fact["budget"]): fact["log_likelihood"]
                 for one in lines for fact in one["facts"]}  # fmt: skip
        by_folder.append(facts)
    then, now = by_folder
    found = figures(rows)
    for variant, budget in (("full", None), ("namm global", 0.2), ("random", 0.4)):
        here, there, full = (
            [facts[task, number, *line] for task in ("key_values", "passkey") for number in range(2)]
            for facts, line in ((now, (variant, budget)), (then, (variant, budget)), (then, ("full", None)))
        )
        change = sum(a - b for a, b in zip(here, there, strict=True)) / 4
        relative = sum(min(torch.tensor(a - b).exp(), 1) for a, b in zip(here, full, strict=True)) / 4
        about = (variant, "all/all")
        assert found[*about, "log_likelihood_over_before", budget, None, ""][0] == pytest.approx(change)
        assert found[*about, "relative_to_before", budget, None, ""][0] == pytest.approx(float(relative), rel=1e-5)
        assert abs(change) > 1e-3
    same = figures(eval_namm(asked(place, place[1], before=str(first)), Options(tmp_path / "same"), quiet))
    changes = [value for key, value in same.items() if key[2].endswith("_over_before")]
    assert changes and set(changes) == {(0.0, 0.0)}


@pytest.mark.parametrize("changes", [{"seed": 1}, {"length": 190}, {"prompts": 3}, {"tasks": ["people"]}], ids=str)
def test_other_prompts_are_no_comparison_of_training(place, first, tmp_path, changes):
    with pytest.raises(MemxError):
        eval_namm(asked(place, place[1], before=str(first), **changes), Options(tmp_path), quiet)
    assert not list(tmp_path.glob("*/rows.jsonl"))
