"""How long an evolution takes, roughly: FLOPs and calls of layers -> hours, with the training of a preset's base model.

The speeds are assumptions: those of the presets for SmolLM2, as measured on one CPU core (AMD EPYC, AVX-512).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...results.store.runs import RunStore
from ..config.eviction.evolution import EvolveConfig
from ..eviction.base_model import base_model_point
from ..planning.estimate import cost_of

_SPEEDS = {"cpu": 1e11, "cuda": 2e14}  # FLOPs a second: of one core; of one H100-class GPU in bfloat16
_CALL = {"cpu": 0.02, "cuda": 0.001}  # seconds that one call of a layer takes, however little it computes
_START = 10.0  # seconds: loading the libraries, the model and the prompts
_PASSES = 3  # of a training step: forward, backward (twice the work)


@dataclass(frozen=True)
class ExpectedTime:
    """A rough time.

    Attributes:
        hours: Of everything that is still to do.
        base_model: Hours of it for training the base model; 0 if it is trained already or not a preset's.
        assumption: The speeds that it rests on, in words.
    """

    hours: float
    base_model: float
    assumption: str


def expected_time(config: EvolveConfig, runs: Path, device: str, flops: float, calls: int) -> ExpectedTime:
    """Estimate the time of an evolution.

    Args:
        config: The evolution.
        runs: The folder of runs, where the base model may be trained already.
        device: cpu or cuda.
        flops: Of the evolution.
        calls: Calls of layers, each with a batch of candidates.

    Returns:
        The time.
    """
    threads = config.host.threads or torch.get_num_threads()
    speed, call = _SPEEDS[device], _CALL[device]
    where = "one GPU"
    if device == "cpu":
        speed *= threads
        where = f"{threads} CPU thread{'s' if threads > 1 else ''}"
    base = _base_model_seconds(config, runs, speed, call)
    seconds = _START + base + flops / speed + calls * call
    assumption = f"assuming {speed:.2g} FLOP/s on {where} and {call * 1000:g} ms per call of a layer"
    return ExpectedTime(seconds / 3600, base / 3600, assumption)


def _base_model_seconds(config: EvolveConfig, runs: Path, speed: float, call: float) -> float:
    """Seconds to train the model of a preset, 0 if none is to be trained."""
    if config.host.name is not None:
        return 0.0
    point = base_model_point(config.host)
    if RunStore(runs).run(point.name).status == "finished":
        return 0.0
    cost = cost_of(point, runs)
    layers = point.config.model.layers
    return cost.training_flops / speed + _PASSES * cost.steps * layers * call
