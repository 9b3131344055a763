"""A decision transformer of seconds: its config, its run, and evaluations of it."""

from functools import cache
from pathlib import Path

from memx.experiments.config.eviction.universal_eval import TrainedHost, UniversalEvalConfig
from memx.experiments.config.hosts.kinds import HostPoint, host_points
from memx.experiments.decision.host import DecisionHost, load_host
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import StopRequest
from memx.experiments.universal.load import checksum
from memx.experiments.universal.train import train_point

SETTINGS = {
    "environment.steps": 16, "environment.shown": 2, "environment.after": 0, "environment.repeat": 1,
    "episodes.generations": 3, "episodes.population": 4, "episodes.trials": 1, "episodes.count": 12,
    "model.width": 16, "model.layers": 2, "model.heads": 2, "model.hidden": 16,
    "training.steps": 6, "training.batch": 3, "training.warmup": 2, "training.checkpoint_every": 2,
    "training.log_every": 2, "training.threads": 1,
    "evaluation.units": 4, "evaluation.at_once": 2, "evaluation.every": 32,
}  # fmt: skip
ARGUMENTS = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]


def point(**changes) -> HostPoint:
    """The tiny run, with other settings."""
    (found,) = host_points("decision", [*{**SETTINGS, **changes}.items()], [])
    return found


def train(runs: Path, report=lambda event: None, stop: StopRequest | None = None, **changes) -> HostPoint:
    """Train it, or go on."""
    found = point(**changes)
    train_point(found, Options(runs, resume=True), 1, report, stop or StopRequest())
    return found


@cache
def trained(runs: Path) -> Path:
    """The folder of the tiny run, trained once for each folder of runs."""
    return runs / train(runs).name


def double(folder: Path) -> DecisionHost:
    """The host in float64, where no sum is near a tie."""
    host = load_host(folder, "cpu")
    host.model.double()
    return host


def evaluation(folder: Path, **changes) -> UniversalEvalConfig:
    """An evaluation of seconds."""
    host = TrainedHost(kind="decision", run=folder.name, sha256=checksum(folder), threads=1)
    given = dict(policies=("recency", "h2o"), budgets=(0.5,), every=32, units=4, at_once=2, resamples=100)
    return UniversalEvalConfig(host=host, **given | changes)
