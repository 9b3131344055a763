"""The rules under which tests compare a model that is shared out with one that is whole: two layers of two heads."""

from memx.namm.policies.base import Rule
from memx.namm.policies.head_table import HeadTable
from memx.namm.policies.shares import HeadShares

EVERY, BUDGET = 16, 0.3
SHARES = HeadShares((BUDGET,), (((0.9, 0.1), (0.05, 0.15)),))
RULES = {
    "equal": Rule(budget=BUDGET),
    "global": Rule(budget=BUDGET, allocation="global", first=3, newest=2),
    "table": Rule(budget=BUDGET, allocation="table", shares=SHARES),
    "layer_max": Rule(budget=BUDGET, allocation="layer_max"),
}
TABLE = HeadTable(2, 2)
