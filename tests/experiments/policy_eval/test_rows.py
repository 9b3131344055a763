"""Rows of an evaluation by hand."""

import numpy as np
import pytest
from memx.experiments.policy_eval.rows import EvalReport

from .tiny_evaluation import config


def lines(rival=0.0):
    """Two prompts each of a trained and of two held-out families; full is exact on all but one family."""
    made = []
    for family, (task, full) in enumerate([("quote", True), ("passkey", True), ("count", False)]):
        for number in range(2):
            likelihood = -1.0 - family

            def facts(variant, lost, exact, kept, likelihood=likelihood, **labels):
                own = {"variant": variant, "budget": 0.5, "size": "budget", **labels}
                own |= {
                    "log_likelihood": likelihood - lost,
                    "exact": exact,
                    "kept": kept,
                    "held": kept + 0.1,
                    "layers": [kept, kept],
                }
                return own | {"kv_bytes": 100, "bookkeeping_bytes": 10}

            made.append({"task": task, "number": number, "tokens": 200, "facts": [
                facts("full", 0.0, full, 1.0, budget=None),
                facts("namm", 0.5, full and number == 0, 0.5),
                facts("tova", 1.0 - rival, number == 1, 0.5),
                facts("kvpress TOVAPress", 0.25, True, 0.5),
            ]})  # fmt: skip
    return made


def rows_of(made, **changes):
    asked = config(
        tasks=("quote", "passkey", "count"), trained=("quote",), budgets=(0.5,), policies=("tova",), **changes
    )
    report = EvalReport(asked, made, run="eval-1", about={"model": "host", "device": "cpu"})
    return {(row.variant, row.dataset, row.metric, (row.model_extra or {}).get("rival")): row for row in report.rows()}


def test_no_baseline_is_named_best_where_several_are_alike():
    made = lines()
    for line in made:
        for one in line["facts"]:
            one["exact"] = one["exact"] or one["variant"] in ("tova", "kvpress TOVAPress")
    wanted = ("all/all", "exact_over_best_rival")
    assert [rival for _, dataset, metric, rival in rows_of(made) if (dataset, metric) == wanted] == ["2 tied"]


def test_rows_by_hand():
    found = rows_of(lines())
    value = {key: row.value for key, row in found.items()}
    assert value["full", "all/all", "log_likelihood", None] == -2
    assert value["namm", "all/all", "lost_nats", None] == 0.5
    assert value["namm", "held-out/all", "relative_log_likelihood", None] == pytest.approx(np.exp(-0.5))
    assert value["namm", "trained/quote", "exact", None] == 50 and found["namm", "trained/all", "exact", None].n == 2
    assert value["namm", "held-out/all", "exact", None] == 25 and value[
        "full", "all/all", "exact", None
    ] == pytest.approx(200 / 3)
    relative = found["namm", "held-out/all", "relative_exact", None]  # of passkey alone: the full cache has no count
    assert relative.value == 0.5 and relative.n == 2 and ("namm", "held-out/count", "relative_exact", None) not in found
    assert value["namm", "all/all", "log_likelihood_minus_full", None] == -0.5
    assert value["namm", "trained/all", "exact_minus_full", None] == -50
    assert value["namm", "all/all", "log_likelihood_over", "tova"] == 0.5
    assert value["namm", "all/all", "log_likelihood_over", "kvpress TOVAPress"] == -0.25
    assert value["namm", "all/all", "log_likelihood_over_best_rival", "kvpress TOVAPress"] == -0.25
    assert value["namm", "held-out/count", "exact_over_best_rival", "kvpress TOVAPress"] == -100
    assert value["namm", "all/all", "held", None] == pytest.approx(60)
    assert value["namm", "all/all", "kept", None] == 50 and value["namm", "all/all", "kv_bytes", None] == 100
    assert ("namm", "trained/quote", "kv_bytes", None) not in found
    one = found["kvpress TOVAPress", "all/all", "exact", None]
    assert (one.model_extra["package"], one.model_extra["budget"], one.model_extra["mode"]) == (
        "kvpress",
        0.5,
        "post_hoc",
    )
    assert one.n == 6 and one.kind == "eviction" and one.model == "host"


def test_likelihoods_are_compared_as_shares_of_the_full_caches_too():
    found = rows_of(lines())
    value = {key: row.value for key, row in found.items()}
    assert value["namm", "all/all", "relative_log_likelihood_over", "tova"] == pytest.approx(np.exp(-0.5) - np.exp(-1))
    better = rows_of(lines(rival=2.0))  # TOVA above the full cache, of which the capped likelihood knows nothing
    over = better["namm", "all/all", "relative_log_likelihood_over", "tova"]
    assert over.value == pytest.approx(np.exp(-0.5) - 1)


def test_a_policy_that_reads_the_context_twice_is_compared_but_no_rival():
    made = lines()
    for line in made:
        line["facts"] += [line["facts"][0] | {"variant": "kvzip global", "budget": 0.5, "log_likelihood": 0.0}]
    found = rows_of(made)
    assert found["namm", "all/all", "log_likelihood_over", "kvzip global"].value == pytest.approx(-2.5)
    assert ("namm", "all/all", "log_likelihood_over_best_rival", "kvpress TOVAPress") in found


def test_namms_and_allocations_are_compared_with_the_first_namm():
    made = lines()
    for line in made:
        namm = line["facts"][1]
        first = namm | {"variant": "namm a global"}
        line["facts"][1:2] = [
            first | {"variant": "namm a", "log_likelihood": first["log_likelihood"] - 0.25},
            first,
            first | {"variant": "namm b global", "log_likelihood": first["log_likelihood"] + 0.25},
        ]
    sources = [{"folder": label, "sha256": "0", "label": label, "budget": 0.5} for label in ("namm a", "namm b")]
    found = rows_of(made, namms=sources, allocations_of={"namm": ("global", "equal")})
    over = {
        (variant, rival): row.value
        for (variant, dataset, metric, rival), row in found.items()
        if (dataset, metric) == ("all/all", "log_likelihood_over_first")
    }
    assert over == {("namm a", "namm a global"): pytest.approx(-0.25), ("namm b global", "namm a global"): 0.25}
    relative = found["namm b global", "held-out/all", "relative_log_likelihood_over_first", "namm a global"]
    assert relative.value == pytest.approx(np.exp(-0.25) - np.exp(-0.5)) and relative.low == relative.high
    assert ("namm b global", "held-out/count", "log_likelihood_over_first", "namm a global") not in found


def test_a_threshold_for_reading_is_not_compared_at_its_nominal_budget():
    made = lines()
    for line in made:
        line["facts"].append(line["facts"][1] | {"variant": "namm threshold", "kept": 0.7, "held": 0.7})
    found = rows_of(made, online_thresholds=True, mode="online")
    over = {variant for variant, _, metric, _ in found if "_over" in metric}
    assert over == {"namm"}
    assert found["namm threshold", "all/all", "held", None].value == pytest.approx(70)


def test_heads_with_thresholds_of_their_own_share_nothing():
    made = lines()
    for line in made:
        line["facts"][1] |= {"size": "own", "budget": None}
    for grouping, allocation in (("per_head", "threshold"), ("layer_max", "layer_max"), (None, "layer_max")):
        source = {"folder": "a", "sha256": "0", "budget": None, "grouping": grouping}
        row = rows_of(made, namms=[source])["namm", "all/all", "exact", None]
        assert row.model_extra["allocation"] == allocation


def test_rows_do_not_depend_on_the_order_of_prompts():
    assert rows_of(lines()) == rows_of(lines()[::-1])


def test_scores_are_of_the_families_that_have_one():
    made = lines()
    for line in made:
        for facts in line["facts"]:
            if line["task"] != "count":
                facts["score"] = 1.0 if facts["variant"] == "full" else 0.25
    found = rows_of(made, write=True)
    assert found["namm", "all/all", "score", None].value == 25 and found["namm", "all/all", "score", None].n == 4
    assert found["namm", "held-out/all", "relative_score", None].value == 0.25
    assert ("namm", "held-out/count", "score", None) not in found
