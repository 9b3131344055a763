"""`memx train decision`: config and run folder -> episodes, a trained decision transformer, and what it scores."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ...files import write_atomically
from ...results.store.environment import commit
from ...results.store.rows import Row
from ...results.store.runs import Run
from ..config.hosts.decision import DecisionConfig
from ..metrics.estimates import Estimate, mean_estimate
from ..other_hosts.training import HostTrainer, Loss, Recipe
from ..runtime.devices import pick_device
from ..runtime.events import Phase, Progress, Report
from ..runtime.options import Options
from ..runtime.signals import Interrupted, StopRequest
from .batches import EpisodeBatches
from .episodes import EXPERT, MEDIUM, RANDOM, Episodes, find_episodes
from .host import WEIGHTS, make_host, untrained
from .model import DecisionTransformer, build_model

_QUALITIES = {"random episodes": RANDOM, "medium episodes": MEDIUM, "expert episodes": EXPERT}


def train_host(config: DecisionConfig, run: Run, options: Options, report: Report, stop: StopRequest) -> list[Row]:
    """See `TrainHost`."""
    episodes = _episodes(config, options, report, stop)
    device = pick_device(config.training.device)
    model = build_model(config, episodes.states.shape[2], episodes.actions.shape[2])
    untrained(model, episodes)
    torch.nn.Module.to(model, device)
    training = config.training
    recipe = Recipe(
        steps=training.steps, lr=training.lr, warmup=training.warmup, final_lr=training.final_lr,
        weight_decay=training.weight_decay, clip=training.clip, checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
    )  # fmt: skip
    trainer = HostTrainer(model, loss_of(config, model, episodes, device), recipe, run, report, stop)
    trainer.fit()
    (run.folder / WEIGHTS).parent.mkdir(exist_ok=True)
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(run.folder / WEIGHTS, save(state))
    report(Phase(f"playing {config.evaluation.units} episodes"))
    return _rows(config, run, options, episodes, _check_of(stop))


def loss_of(config: DecisionConfig, model: DecisionTransformer, episodes: Episodes, device: torch.device) -> Loss:
    """The mean squared error of the actions of a step's episodes, and its tokens."""
    batches = EpisodeBatches(episodes, config.training.batch, config.seed, device)

    def loss(step: int) -> tuple[Tensor, int]:
        batch = batches.at(step)
        error = (model.actions(batch.returns, batch.states, batch.actions) - batch.actions).square().mean(-1)
        there = batch.there.to(error)
        return (error * there).sum() / there.sum(), 3 * int(there.sum())

    return loss


def _episodes(config: DecisionConfig, options: Options, report: Report, stop: StopRequest) -> Episodes:
    """Read or make the episodes."""
    report(Phase("evolving the policies whose episodes are learned from"))
    total, check = config.episodes.generations, _check_of(stop)

    def done(generation: int) -> None:
        if generation % 10 == 0 or generation == total:
            report(Progress(generation, total, "generations", 0.0))
        check()

    return find_episodes(config, options.runs, done)


def _check_of(stop: StopRequest) -> Callable[[], None]:
    def check() -> None:
        if stop.asked:
            raise Interrupted("stopped; what was saved is continued with --resume")

    return check


def _rows(
    config: DecisionConfig, run: Run, options: Options, episodes: Episodes, check: Callable[[], None]
) -> list[Row]:
    """What the model scores with the full cache, and what it learned from."""
    host = make_host(config, run.folder / WEIGHTS, options.runs, config.training.device)
    measured, asked = [], config.evaluation
    for start in range(0, asked.units, asked.at_once):
        measured += host.measure(None, range(start, min(start + asked.at_once, asked.units)), check)
    common = dict(
        run=run.name, experiment=run.name, kind="decision", model=host.name, device=host.device, seed=config.seed,
        parameters_total=host.parameters, commit=commit(),
    )  # fmt: skip

    def row(dataset: str, metric: str, estimate: Estimate) -> Row:
        return Row(**common, dataset=dataset, metric=metric, **estimate._asdict())  # type: ignore[arg-type]

    rows = [row(host.unit, name, mean_estimate([one.scores[name] for one in measured])) for name in host.metrics]
    for name, quality in _QUALITIES.items():
        if (of_quality := episodes.returns[episodes.quality == quality]).size:
            rows.append(row(name, "return", mean_estimate(of_quality.tolist())))
    for name, value in (("random", episodes.random_return), ("expert", episodes.expert_return)):
        rows.append(row(f"{name} policy", "return", Estimate(value, 100, None, value, value)))
    assert all(np.isfinite(one.value) for one in rows), os.fspath(run.folder)
    return rows
