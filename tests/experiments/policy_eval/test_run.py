"""Whole evaluations on a tiny host: the same rows whatever stops a run, and what is evaluated by default."""

import json
import os
import signal
from typing import get_args

import numpy as np
import pytest
from memx import namm
from memx.cli.commands import options
from memx.errors import MemxError
from memx.experiments.config.base import run_name, to_tree, to_yaml, tree_hash
from memx.experiments.config.eviction.policy_eval import BASELINES, Allocation
from memx.experiments.config.eviction.tasks import HELD_OUT_TASKS, NAMED_TASKS, TRAINING_TASKS
from memx.experiments.config.loading import load_eval_config, load_evolution_config
from memx.experiments.data.long_context.families import FAMILIES
from memx.experiments.eviction.head_shares import HEAD_SHARES
from memx.experiments.eviction.measurements import CacheSize, CacheUse, Measurements
from memx.experiments.policy_eval import run
from memx.experiments.policy_eval.online_thresholds import THRESHOLDS, online_thresholds
from memx.experiments.policy_eval.run import RESULTS, eval_namm
from memx.experiments.policy_eval.sources import eval_tree
from memx.experiments.runtime.events import Note, Progress
from memx.experiments.runtime.lifecycle import RunFailed
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import POLICIES
from memx.namm.policies.keep import ALLOCATIONS
from memx.namm.policies.shares import HeadShares
from memx.results.namm.rows import allocation_of
from memx.results.store.runs import RunStore

from ..evolution.tiny_evolution import settings, write_host
from .tiny_evaluation import EVERY, scorer
from .tiny_evaluation import config as tiny


def test_names_that_are_free_of_torch_are_those_there_are():
    assert ("full", *BASELINES) == tuple(POLICIES)
    assert ALLOCATIONS == get_args(Allocation) == tuple(one.value for one in options.Allocation)
    assert (*TRAINING_TASKS, *HELD_OUT_TASKS, *NAMED_TASKS) == tuple(FAMILIES)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A host and a NAMM with a threshold, on disk."""
    folder = tmp_path_factory.mktemp("place")
    namm.save(scorer(Rule()), folder / "mine", host="another", tasks=["key_values"])
    return write_host(folder / "host"), folder / "mine"


def asked(place, **changes):
    host, saved = place
    given = {"host.name": str(host), "host.threads": 1, "tasks": ["key_values", "passkey", "code_next"]}
    given |= {"length": 200, "prompts": 2, "budgets": [0.4], "policies": ["random", "h2o"], "resamples": 100}
    given |= {"documents": 1, **{key.replace("__", "."): value for key, value in changes.items()}}
    return load_eval_config(eval_tree([saved], given), [*given.items()])


@pytest.fixture(scope="module")
def straight(place, tmp_path_factory):
    """A run that nothing stopped: (config, run, rows)."""
    root = tmp_path_factory.mktemp("runs")
    resolved = asked(place, write=True)
    rows = eval_namm(resolved, Options(root), quiet)
    return resolved, RunStore(root).run(run_name(resolved)), rows


def quiet(event):
    pass


def judged(run):
    return [json.loads(line) for line in (run.folder / RESULTS).read_text().splitlines()]


def test_a_run_writes_all_that_it_found(straight, place):
    resolved, run, rows = straight
    assert run.status == "finished" and run.rows() == rows
    assert load_eval_config(str(run.folder / "config.yaml")) == resolved
    written = judged(run)
    assert [line["task"] for line in written[:3]] == ["key_values", "passkey", "code_next"]  # taking turns
    found = {
        (row.variant, row.dataset, row.metric, row.model_extra["budget"], row.model_extra["size"]): row for row in rows
    }
    assert {row.dataset for row in rows} == {
        "trained/key_values", "trained/all", "held-out/passkey", "held-out/code_next", "held-out/all", "all/all",
        "kinds/code", "kinds/prose",
    }  # fmt: skip
    one = found["namm", "held-out/all", "log_likelihood", None, "own"]
    assert one.model_extra["evolved_on"] == "another" and one.n == 4 and one.model == str(place[0])
    by_hand = [
        np.mean([facts["log_likelihood"] for line in written if line.get("task") == task for facts in line["facts"]
                 if facts["variant"] == "namm" and facts["size"] == "own"])
        for task in ("passkey", "code_next")
    ]  # fmt: skip
    assert one.value == pytest.approx(np.mean(by_hand))
    assert found["random", "all/all", "kept", 0.4, "budget"].value == pytest.approx(40, abs=0.5)
    assert found["random", "all/all", "score", 0.4, "budget"].n == 4  # code_next has none
    layers = [row for row in rows if row.metric == "kept_layer" and row.model_extra["size"] == "own"]
    own = found["namm", "all/all", "kept", None, "own"].value
    assert np.mean([row.value for row in layers if row.variant == "namm"]) == pytest.approx(own, abs=1e-2)


def test_what_is_dropped_of_all_kinds_together_is_what_is_not_kept(straight):
    _, run, rows = straight
    documents = [line for line in judged(run) if "document" in line]
    assert [(line["document"], line["number"]) for line in documents] == [("code", 0), ("prose", 0)]
    for text in ("code", "prose"):
        found = [row for row in rows if row.dataset == f"kinds/{text}"]
        lost = {}
        for variant in ("namm", "random"):
            kinds = [row for row in found if row.variant == variant and row.metric == "dropped"]
            assert sum(row.model_extra["share"] for row in kinds) == pytest.approx(100)
            names = {row.model_extra["token_kind"] for row in kinds}
            assert names >= ({"newline", "name", "operator"} if text == "code" else {"newline", "content word"})
            lost[variant] = sum(row.value * row.model_extra["share"] / 100 for row in kinds)
        assert lost["namm"] == pytest.approx(lost["random"], abs=0.6)  # as much in all, to the nearest token
        runs = {row.variant: row.value for row in found if row.metric == "dropped_run"}
        assert runs["random"] > 1 and runs["namm"] > 1


def test_a_question_that_is_read_before_eviction_is_part_of_the_context(straight, place, tmp_path):
    _, run, _ = straight
    before = asked(place, question="before")
    rows = eval_namm(before, Options(tmp_path), quiet)
    assert {row.model_extra["question"] for row in rows} == {"before"}
    lines = {(line["task"], line["number"]): line for line in judged(run) if "task" in line}
    own = [line for line in judged(RunStore(tmp_path).run(run_name(before))) if "task" in line]
    full = {key: line["facts"][0]["log_likelihood"] for key, line in lines.items()}
    for line in own:
        key = line["task"], line["number"]
        assert line["tokens"] > lines[key]["tokens"]
        assert line["facts"][0]["log_likelihood"] == pytest.approx(full[key], abs=1e-4)  # the full cache sees the same
    assert run_name(before) != run_name(asked(place))


def test_stopped_on_request_and_gone_on(straight, tmp_path):
    resolved, run, rows = straight

    def stop(event):
        if isinstance(event, Progress) and event.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        eval_namm(resolved, Options(tmp_path), stop)
    stopped = RunStore(tmp_path).run(run.name)
    assert stopped.status == "interrupted" and len(judged(stopped)) == 2
    with pytest.raises(MemxError, match="exists"):
        eval_namm(resolved, Options(tmp_path), quiet)
    with (stopped.folder / RESULTS).open("a") as file:
        file.write('{"task": "code_next", "number": 0, "fac')  # what a kill cuts off
    notes = []
    again = eval_namm(resolved, Options(tmp_path, resume=True), notes.append)
    assert Note("resumed after 2 of 6 prompts") in notes and again == rows
    assert (stopped.folder / RESULTS).read_text() == (run.folder / RESULTS).read_text()
    assert eval_namm(resolved, Options(tmp_path, resume=True), quiet) == again


def test_another_namm_in_the_same_folder_is_refused(place, tmp_path):
    resolved = asked(place)
    source = resolved.namms[0].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(MemxError, match="changed since this evaluation started"):
        eval_namm(resolved.model_copy(update={"namms": (source,)}), Options(tmp_path), quiet)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_namm_with_another_budget_is_another_one(place, tmp_path):
    saved = tmp_path / "mine"
    for budget in (0.3, 0.4):
        namm.save(scorer(Rule(budget=budget)), saved, host="another", tasks=["key_values"])
        if budget == 0.3:
            given = {"host.name": str(place[0]), "tasks": ["key_values"], "length": 220, "prompts": 1}
            config = load_eval_config(eval_tree([saved], given), [*given.items()])
    with pytest.raises(MemxError, match="changed since this evaluation started"):
        eval_namm(config, Options(tmp_path / "runs"), quiet)


def test_kinds_of_token_are_counted_under_the_evaluations_own_table(place, tmp_path):
    """Not under the NAMM's, which may be of a model with other heads."""
    table = HeadShares((0.4,), (((0.4,), (0.2,), (0.6,)),), source="three layers")
    made = scorer(Rule(budget=0.4, allocation="table", shares=table))
    namm.save(made, tmp_path / "mine", host="another", tasks=["key_values"])
    given = {"host.name": str(place[0]), "tasks": ["key_values"], "length": 220, "prompts": 1, "documents": 1}
    given |= {"policies": ["random"], "budgets": [0.4], "share_prompts": 1, "resamples": 100}
    rows = eval_namm(
        load_eval_config(eval_tree([tmp_path / "mine"], given), [*given.items()]), Options(tmp_path), quiet
    )
    assert {row.variant for row in rows if row.dataset == "kinds/code"} == {"namm table", "random"}


def test_an_infinite_threshold_is_read_again(tmp_path):
    path = tmp_path / THRESHOLDS
    path.write_text(json.dumps({"namm": {"0.75": -np.inf, "0.125": np.inf}}))
    assert online_thresholds(None, None, [], [], path, None) == {"namm": {0.75: -np.inf, 0.125: np.inf}}
    path.write_text('{"namm": {"0.75": NaN}}')
    with pytest.raises(MemxError, match="is damaged"):
        online_thresholds(None, None, [], [], path, None)


# -- what is evaluated by default


def write_run(folder, host, budget=None, **changes):
    """A run folder of an evolution, as it stands when a NAMM was saved."""
    resolved = load_evolution_config("namm-smollm2", settings(host, **changes))
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(resolved))
    namm.save(scorer(Rule(budget=budget)), folder / "namm", host=str(host), tasks=list(resolved.tasks.train))
    return folder


def test_a_run_says_what_is_evaluated(place, tmp_path):
    run = write_run(tmp_path / "mine-12345678", place[0], 0.3, fitness__mode="online", seed=5)
    found = load_eval_config(eval_tree([run], {}))
    assert found.tasks == ("key_values", "prose_next", *HELD_OUT_TASKS) and found.trained == (
        "key_values",
        "prose_next",
    )
    assert (found.mode, found.length, found.every, found.host.name) == ("online", 220, EVERY, str(place[0]))
    assert found.shares == (0.75, 0.5, 0.3, 0.25, 0.125) and found.policies == BASELINES
    (source,) = found.namms
    assert (source.label, source.seed, source.budget, source.evolved_on) == ("namm", 5, 0.3, str(place[0]))
    assert load_eval_config(eval_tree([run], {"mode": "post_hoc"}), [("mode", "post_hoc")]).mode == "post_hoc"


def test_several_runs_have_labels_and_must_agree(place, tmp_path):
    one = write_run(tmp_path / "mine-12345678", place[0])
    two = write_run(tmp_path / "mine-23456789", place[0], seed=1, tasks__length=300)
    with pytest.raises(MemxError, match="differ in length: 220, 300") as caught:
        eval_tree([one, two], {})
    assert "--length" in caught.value.hint
    found = load_eval_config(eval_tree([one, two], {"length": 250}), [("length", 250)])
    assert [source.label for source in found.namms] == ["namm mine-12345678", "namm mine-23456789"]
    other = write_run(tmp_path / "other-23456789", place[0], tasks__train=["needles"], tasks__length=250)
    found = load_eval_config(eval_tree([one, other], {"length": 250}), [("length", 250)])
    assert [source.label for source in found.namms] == ["namm mine", "namm other"]
    assert found.trained == ("key_values", "prose_next", "needles")  # by any of them


def test_scores_that_are_not_finite_end_the_run_with_their_names(place, tmp_path, monkeypatch):
    config = asked(place, tasks=["key_values"], prompts=1, documents=0)
    bad = Measurements("h2o", CacheSize(0.4), CacheUse(0.4, 0.4, [0.4], 1, 1), float("nan"), False)
    monkeypatch.setattr(run.Evaluation, "_measure", lambda self, prompt, known: [bad])
    with pytest.raises(RunFailed, match="on key_values under h2o are not finite; check its weights"):
        eval_namm(config, Options(tmp_path), quiet)
    assert not RunStore(tmp_path).run(run_name(config)).rows()


def test_a_table_of_head_shares_is_measured_once_and_kept_in_the_run(place, tmp_path):
    """Beside a threshold for reading: of each a file, and lines with their names."""
    small = dict(tasks=["key_values"], prompts=1, policies=["recency"], documents=0, share_prompts=1)
    resolved = asked(place, **small, mode="online", allocations=["equal", "table"], online_thresholds=True)
    rows = eval_namm(resolved, Options(tmp_path), quiet)
    run = RunStore(tmp_path).run(run_name(resolved))
    table = HeadShares.from_tree(json.loads((run.folder / HEAD_SHARES).read_text()))
    assert table.budgets == (0.4,) and table.source == "KVzip, 1 context"
    ((_, threshold),) = json.loads((run.folder / THRESHOLDS).read_text())["namm"].items()
    assert np.isfinite(threshold)
    shown = {row.variant: allocation_of(row) for row in rows if row.labels.size == "budget"}
    assert shown == {
        "full": "", "namm per head": "equal", "recency": "equal", "namm table": "table", "recency table": "table",
        "namm threshold": "threshold",
    }  # fmt: skip
    own = {row.variant: allocation_of(row) for row in rows if row.labels.size == "own"}
    assert own == {"namm": "layer_max", "recency": "equal", "recency table": "table"}
    kept = {row.variant: row.value for row in rows if (row.metric, row.labels.budget) == ("kept", 0.4)}
    assert kept["recency table"] == pytest.approx(kept["recency"], abs=0.5)


def test_a_run_keeps_its_name_where_later_keys_are_not_set():
    tree = to_tree(tiny())
    later = (
        "allocations", "allocations_of", "head_shares", "share_prompts", "online_thresholds", "protect_first",
        "protect_newest", "question",
    )  # fmt: skip
    assert tree_hash(tree) == tree_hash({key: value for key, value in tree.items() if key not in later})
    assert tree_hash(tree) != tree_hash(to_tree(tiny(allocations=("global",))))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"allocations": ("equal", "equal")}, "allocations has an entry twice"),
        ({"allocations_of": {"tova": ("global",)}, "policies": ("h2o",)}, "allocations_of: 'tova' is not evaluated"),
        ({"allocations_of": {"namm": ()}}, "allocations_of.namm is empty"),
        ({"policies": ("kvzip",), "mode": "online"}, "kvzip reads the whole context"),
        ({"online_thresholds": True}, "set mode to online"),
        ({"question": "before", "mode": "online"}, "question before is for eviction after the context was read"),
    ],
)
def test_what_cannot_be_evaluated_together_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny(**wrong)
