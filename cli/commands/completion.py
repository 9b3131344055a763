"""What shells complete: names of presets, policies, models and ops, found without importing torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

MODELS = ("smollm2", "gemma3-270m")
POLICIES = (
    "full", "random", "recency", "streamingllm", "h2o", "knorm", "tova", "snapkv", "keydiff", "expected_attention",
)  # fmt: skip
_ROOT = Path(__file__).resolve().parents[2]


def op_names() -> list[str]:
    """Names of the ops: the folders of kernels that hold a definition."""
    return sorted(path.parent.name for path in (_ROOT / "kernels").glob("*/reference.py"))


def namm_names() -> list[str]:
    """Names of the NAMMs that come with memx."""
    return sorted(path.parent.name for path in (_ROOT / "namm" / "shipped").glob("*/namm.json"))


def metric_names() -> list[str]:
    """Names of the metrics for answers, without their end `_score`."""
    from ...experiments.metrics.registry import METRICS

    return [name.removesuffix("_score") for name in METRICS]


def preset_names(command: str | None = None) -> list[tuple[str, str]]:
    """Names of presets with the line that describes each.

    Args:
        command: Those of one command, as train; all without one.
    """
    from ...experiments.config.presets import all_presets

    return [(name, about) for name, (of, about) in all_presets().items() if command in (None, of)]


def complete_presets(incomplete: str) -> list[tuple[str, str]]:
    """Presets of any command that begin with a text."""
    return [preset for preset in preset_names() if preset[0].startswith(incomplete)]


def complete_training_presets(incomplete: str) -> list[tuple[str, str]]:
    """Presets of `memx train` that begin with a text."""
    return [preset for preset in preset_names("train") if preset[0].startswith(incomplete)]


def complete_evolution_presets(incomplete: str) -> list[tuple[str, str]]:
    """Presets of `memx evolve-namm` that begin with a text."""
    return [preset for preset in preset_names("evolve-namm") if preset[0].startswith(incomplete)]


def complete_of(names: Callable[[], list[str]] | tuple[str, ...]) -> Callable[[str], list[str]]:
    """Make a completion of fixed names.

    Args:
        names: The names, or a function that finds them when they are asked for.

    Returns:
        A function from the text so far to the names that begin with it.
    """

    def complete(incomplete: str) -> list[str]:
        known = names() if callable(names) else names
        return [name for name in known if name.startswith(incomplete)]

    return complete
