"""NAMMs: networks that read attention and decide which tokens of a KV cache to keep, and their rivals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attachment import Attached, attach
    from .cache.cache import EvictingCache
    from .calibration import calibrate
    from .evolution.evolve import Outcome, evolve
    from .evolution.files import load_evolution, save_evolution
    from .evolution.search import Evolution
    from .head_shares import measure_shares
    from .modalities import visual_tokens
    from .online import calibrate_threshold
    from .policies.base import Policy, Rule, SummaryPolicy
    from .policies.budgeted import BudgetPolicy
    from .policies.features.registry import FEATURES, NO_PASS
    from .policies.fixed import FixedScores
    from .policies.head_table import HeadTable
    from .policies.heuristics import POLICIES, make_policy
    from .policies.network import Namm
    from .policies.shares import HeadShares
    from .saved.card import Card, Score
    from .saved.files import load, save
    from .saved.places import shipped_namms
    from .saved.push import push_to_hub

_HOME = {
    "Attached": ".attachment",
    "BudgetPolicy": ".policies.budgeted",
    "Card": ".saved.card",
    "EvictingCache": ".cache.cache",
    "Evolution": ".evolution.search",
    "FEATURES": ".policies.features.registry",
    "FixedScores": ".policies.fixed",
    "HeadShares": ".policies.shares",
    "HeadTable": ".policies.head_table",
    "NO_PASS": ".policies.features.registry",
    "Namm": ".policies.network",
    "Outcome": ".evolution.evolve",
    "POLICIES": ".policies.heuristics",
    "Policy": ".policies.base",
    "Rule": ".policies.base",
    "Score": ".saved.card",
    "SummaryPolicy": ".policies.base",
    "attach": ".attachment",
    "calibrate": ".calibration",
    "calibrate_threshold": ".online",
    "evolve": ".evolution.evolve",
    "load": ".saved.files",
    "load_evolution": ".evolution.files",
    "make_policy": ".policies.heuristics",
    "measure_shares": ".head_shares",
    "push_to_hub": ".saved.push",
    "save": ".saved.files",
    "save_evolution": ".evolution.files",
    "shipped_namms": ".saved.places",
    "visual_tokens": ".modalities",
}
__all__ = [
    "FEATURES",
    "NO_PASS",
    "POLICIES",
    "Attached",
    "BudgetPolicy",
    "Card",
    "EvictingCache",
    "Evolution",
    "FixedScores",
    "HeadShares",
    "HeadTable",
    "Namm",
    "Outcome",
    "Policy",
    "Rule",
    "Score",
    "SummaryPolicy",
    "attach",
    "calibrate",
    "calibrate_threshold",
    "evolve",
    "load",
    "load_evolution",
    "make_policy",
    "measure_shares",
    "push_to_hub",
    "save",
    "save_evolution",
    "shipped_namms",
    "visual_tokens",
]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
