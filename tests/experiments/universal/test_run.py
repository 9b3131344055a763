"""Evaluations on a decision transformer: the same rows after a stop, and what the rows say."""

import json

import numpy as np
import pytest
from memx.errors import MemxError
from memx.experiments.policy_eval.sources import namm_entries
from memx.experiments.runtime.events import Progress
from memx.experiments.runtime.options import Options
from memx.experiments.universal.load import find_host_run
from memx.experiments.universal.run import evaluate_on_host
from memx.results.store.runs import RunStore

from ..decision.tiny_host import evaluation, trained


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("decision"))


@pytest.fixture(scope="module")
def rows(host):
    return evaluate_on_host(with_namm(host), Options(host.parent), lambda event: None)


def with_namm(host, **changes):
    from pathlib import Path

    return evaluation(host, namms=namm_entries([Path("universal")]), name="with-namm", **changes)


def value(rows, variant, metric, budget=0.5, **labels):
    (row,) = [
        row
        for row in rows
        if (row.variant, row.metric, row.labels.budget) == (variant, metric, budget)
        and all(getattr(row.labels, key) == one for key, one in labels.items())
    ]
    return row


def told(rows):
    return [row.model_dump(exclude={"run", "experiment", "commit"}) for row in rows]


def test_a_killed_evaluation_ends_with_the_same_rows(host, tmp_path):
    config = evaluation(host, name="killed")
    whole = evaluate_on_host(evaluation(host, name="whole"), Options(host.parent), lambda event: None)

    def kill(event):
        if isinstance(event, Progress) and event.done == 5:
            raise Killed

    with pytest.raises(Killed):
        evaluate_on_host(config, Options(host.parent), kill)
    done = []
    resumed = evaluate_on_host(
        config, Options(host.parent, resume=True), lambda e: done.append(e) if isinstance(e, Progress) else None
    )
    assert done[0].done == 6 and done[-1].done == done[-1].total == 10
    assert told(resumed) == told(whole)
    again = evaluate_on_host(config, Options(host.parent, resume=True), lambda event: None)
    assert told(again) == told(whole)


def test_rows_are_means_and_paired_differences_of_units(host, rows):
    lines = [json.loads(line) for line in (host.parent / rows[0].run / "units.jsonl").read_text().splitlines()]
    scores = {}
    for line in lines:
        found = scores.setdefault((line["variant"], line["budget"]), {})
        found.update({one["unit"]: one["scores"]["return"] for one in line["units"]})
    of = {key: np.array([found[unit] for unit in range(4)]) for key, found in scores.items()}
    full = of["full", None]
    assert value(rows, "full", "return", None).value == pytest.approx(full.mean())
    for variant in ("namm", "namm global", "recency", "h2o"):
        assert value(rows, variant, "return").value == pytest.approx(of[variant, 0.5].mean())
        assert value(rows, variant, "return_minus_full").value == pytest.approx((of[variant, 0.5] - full).mean())
    over = value(rows, "namm", "return_over", rival="h2o")
    assert (
        over.value == pytest.approx((of["namm", 0.5] - of["h2o", 0.5]).mean()) and over.low <= over.value <= over.high
    )
    best = value(rows, "namm", "return_over_best_rival")
    rivals = ("recency", "recency global", "h2o", "h2o global")
    assert best.value == pytest.approx(min((of["namm", 0.5] - of[one, 0.5]).mean() for one in rivals))


def test_rows_say_what_is_held_and_of_which_kinds(rows):
    assert value(rows, "full", "held", None).value == 100
    held = value(rows, "recency", "held")
    assert held.value == pytest.approx(100 * 31 / 47, abs=1e-3)
    kinds = {row.labels.token_kind for row in rows if row.metric == "kept_kind"}
    assert kinds == {"return", "state", "action", "near action", "far action", "state with goals"}
    assert value(rows, "recency", "kept_kind", token_kind="state with goals", layer=None).value == 0
    assert {row.labels.layer for row in rows if row.metric == "kept_layer"} == {0, 1}


def test_every_row_names_host_seed_and_interval(rows):
    assert {(row.kind, row.dataset, row.seed, row.n) for row in rows} == {("decision", "episodes", 0, 4)}
    assert {row.labels.every for row in rows} == {32} and {row.labels.mode for row in rows} == {"online"}


def test_a_host_that_changed_or_is_not_there_is_refused(host, tmp_path):
    changed = evaluation(host, name="changed")
    changed = changed.model_copy(update={"host": changed.host.model_copy(update={"sha256": "0"})})
    with pytest.raises(MemxError, match="changed since"):
        evaluate_on_host(changed, Options(host.parent), lambda event: None)
    assert not RunStore(host.parent).has_content("changed")
    for spec, what in (("nothing", "is not KIND:RUN"), ("decision:none", "no run"), ("poker:x", "is not KIND:RUN")):
        with pytest.raises(MemxError, match=what):
            find_host_run(spec, tmp_path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"policies": ("recenzy",)}, "recency"),
        ({"budgets": (1.5,)}, "no share below 1"),
        ({"every": 24}, "multiple of 16"),
        ({"allocations": ("table",)}, "no table of head shares"),
        ({"policies": ("snapkv",), "every": 16}, "snapkv observes"),
        ({"policies": ()}, "nothing to evaluate"),
    ],
)
def test_wrong_settings_are_refused(host, changes, what):
    with pytest.raises(ValueError, match=what):
        evaluation(host, **changes)
