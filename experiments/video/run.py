"""One run of `memx train video`: config and run folder -> a trained video model in `checkpoint/`, and rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from ...results.store.environment import commit
from ...results.store.rows import Row
from ...results.store.runs import Run
from ..config.hosts.video import KINDS, VideoConfig
from ..metrics.estimates import share_estimate
from ..other_hosts.measured import TRAINING_UNITS, Measured
from ..other_hosts.training import HostTrainer, Recipe
from ..runtime.events import Phase, Report
from ..runtime.options import Options
from ..runtime.signals import StopRequest
from .data import asked
from .host import VideoHost
from .model import save_model
from .trainee import Trainee


def train_host(config: VideoConfig, run: Run, options: Options, report: Report, stop: StopRequest) -> list[Row]:
    """Train in a claimed run folder, from its newest state on; see `experiments.universal.train.TrainHost`."""
    torch.manual_seed(config.seed)
    trainee = Trainee(config).to(torch.device(config.training.device))
    HostTrainer(trainee, trainee.loss, _recipe(config), run, report, stop).fit()
    trainee.eval()
    save_model(trainee.video, run.folder)
    report(Phase("evaluating"))
    return _rows(config, run.name, VideoHost(trainee.video, config, config.evaluation.mode))


def _recipe(config: VideoConfig) -> Recipe:
    training = config.training
    return Recipe(
        steps=training.steps,
        lr=training.lr,
        warmup=training.warmup,
        final_lr=training.final_lr,
        weight_decay=training.weight_decay,
        clip=training.clip,
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
    )


def _rows(config: VideoConfig, name: str, host: VideoHost) -> list[Row]:
    """How the model answers with its full cache, by kind of question, beside the best guess; on questions of training.

    Their clips are not trained on either, but no evaluation reports them, so that settings may be chosen by them.
    """
    evaluation = config.evaluation
    numbers = range(TRAINING_UNITS, TRAINING_UNITS + evaluation.units)
    measured: list[Measured] = []
    for start in range(0, len(numbers), evaluation.at_once):
        measured += host.measure(None, numbers[start : start + evaluation.at_once])
    kinds = [asked(config, number).question.kind for number in numbers]
    common = dict(
        run=name, experiment=name, kind="video", model=host.name, device=host.device, seed=config.seed,
        variant="full", parameters_total=host.parameters, commit=commit(),
    )  # fmt: skip
    rows = []
    for kind in ("", *KINDS):
        chosen = [one for one, of in zip(measured, kinds, strict=True) if kind in ("", of)]
        if not chosen:
            continue
        dataset = f"questions/{kind}" if kind else "questions"
        correct = share_estimate([one.scores["correct"] / 100 for one in chosen])
        rows.append(Row(**common, dataset=dataset, metric="correct", **correct._asdict()))
        guessed = share_estimate(_guesses(config, [one.unit for one in chosen]))
        rows.append(Row(**common, dataset=dataset, metric="best_guess", **guessed._asdict()))
    return rows


def _guesses(config: VideoConfig, numbers: Sequence[int]) -> list[float]:
    """Whether each question is answered right by what is right most often for its kind, on these questions."""
    questions = [asked(config, number).question for number in numbers]
    most = {
        kind: Counter(one.answer for one in questions if one.kind == kind).most_common(1)[0][0]
        for kind in {one.kind for one in questions}
    }
    return [float(one.answer == most[one.kind]) for one in questions]
