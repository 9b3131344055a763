"""What training a decision transformer would be, for `memx train --dry-run`. No torch here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ...errors import MemxError
from ..config.hosts.decision import DecisionConfig
from ..runtime.options import Options

_HINT = "pip install 'memx[universal]'"


def check_installed() -> None:
    """Raise MemxError if the simulators are not installed."""
    if find_spec("gymnasium") is None:
        raise MemxError("decision transformers need gymnasium", hint=_HINT)


def check_environment(config: DecisionConfig) -> None:
    """Raise MemxError if the environment of a config needs what is not installed."""
    check_installed()
    if config.environment.name != "Pendulum-v1" and find_spec("mujoco") is None:
        raise MemxError(f"{config.environment.name} needs mujoco", hint=_HINT)


def cost_of(config: DecisionConfig, options: Options) -> dict[str, Any]:
    """Names and amounts of a run, in the order in which they are shown.

    Args:
        config: The run.
        options: Where runs are.
    """
    shape, steps = config.model, config.environment.steps
    layer = 4 * shape.width**2 + 3 * shape.width * shape.hidden + 2 * shape.width
    own = config.episodes
    return {
        "environment": config.environment.name,
        "hidden": ", ".join(config.environment.hidden) or "nothing",
        "steps of an episode": steps,
        "tokens of an episode": 3 * steps,
        "episodes to learn from": own.count,
        "simulated steps": steps * (own.generations * own.population * own.trials + own.count + 220),
        "parameters of the layers": shape.layers * layer + shape.width,
        "training steps": config.training.steps,
        "training tokens": config.training.steps * config.training.batch * 3 * steps,
        "evaluated episodes": config.evaluation.units,
    }
