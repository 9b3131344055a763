"""How the heads of a policy share a budget: told by rows, by names, and of older rows by what they are about."""

import pytest
from memx.results.namm.curves import Curve
from memx.results.namm.looks import looks_of, policy_label
from memx.results.namm.rows import allocation_of, prepared, split_allocation
from memx.results.namm.scores_table import namm_table

from . import namm_rows as made


@pytest.mark.parametrize(
    ("policy", "parts"),
    [
        ("knorm", ("knorm", "")),
        ("knorm table", ("knorm", " table")),
        ("namm a layer_max", ("namm a", " layer_max")),
        ("namm per head", ("namm", " per head")),
        ("namm threshold", ("namm", " threshold")),
    ],
)
def test_names_end_with_how_a_budget_is_shared(policy, parts):
    assert split_allocation(policy) == parts


def test_rows_of_older_versions_have_equal_shares_but_for_a_namms_own_threshold():
    rows = made.evaluation(policies=("knorm",))
    names = {row.variant for row in rows}
    shown = {(row.variant, row.labels.size): allocation_of(row, names) for row in rows}
    assert shown["knorm", "budget"] == shown["knorm", "own"] == shown["namm per head", "budget"] == "equal"
    assert shown["namm", "own"] == shown["namm", "budget"] == "layer_max"


def test_a_policy_with_each_allocation_is_a_line_of_its_own():
    rows = made.evaluation(policies=("knorm",), namms=())
    more = [
        row.model_copy(update={"variant": "knorm table", "allocation": "table"})
        for row in rows
        if row.variant == "knorm"
    ]
    found = {row.variant: allocation_of(row) for row in prepared([*rows, *more]) if row.variant != "full"}
    assert found == {"knorm": "equal", "knorm table": "table"}
    looks = looks_of([Curve(name, "memx", [], [], []) for name in found])
    assert looks["knorm"].colour == looks["knorm table"].colour and looks["knorm"].line != looks["knorm table"].line
    assert policy_label("knorm table", found) == "L2 norm table"
    facts = namm_table(prepared([*rows, *more]), ["exact"]).facts
    assert {fact["policy"]: fact["allocation"] for fact in facts} == found | {"full": ""}
