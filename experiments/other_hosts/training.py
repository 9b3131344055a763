"""The training loop of small hosts: a model and a loss by step -> weights, metrics and saved states.

A batch depends on the seed and the step alone, so that a stopped run goes on from its last state and ends bit-identical
on the same CPU and number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...results.store.runs import Run
from ..optim.schedule import warmup_cosine
from ..runtime.events import Evaluation, Note, Report, Step
from ..runtime.lifecycle import RunFailed
from ..runtime.signals import Interrupted, StopRequest
from .states import Moments, restore_state, save_state

Loss = Callable[[int], tuple[Tensor, int]]  # step, from 0 -> the loss, and the number of tokens it is over
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """How a small host is trained.

    Attributes:
        steps: Steps in all.
        lr: Peak learning rate.
        warmup: Steps of linear warm-up.
        final_lr: Last learning rate as a share of the peak, after a cosine.
        weight_decay: Of matrices; vectors have none.
        clip: Largest norm of the gradients.
        checkpoint_every: Steps between saved states.
        log_every: Steps between lines of metrics.jsonl.
        evaluate_every: Steps between evaluations; None: none on the way.
    """

    steps: int
    lr: float
    warmup: int
    final_lr: float
    weight_decay: float
    clip: float
    checkpoint_every: int
    log_every: int
    evaluate_every: int | None = None


@dataclass
class HostTrainer:
    """One run of a small host.

    Attributes:
        model: What is trained, in place; it draws nothing at random while it is.
        loss: The loss of a step.
        recipe: How it is trained.
        run: The claimed run's folder.
        report: Called with the progress.
        stop: Whether somebody asked to stop.
        evaluate: Scores by set and metric, on the way; None: nothing is evaluated.
        step: Steps done.
        seconds: Of training so far.
        tokens: Tokens trained on so far.
    """

    model: nn.Module
    loss: Loss
    recipe: Recipe
    run: Run
    report: Report
    stop: StopRequest
    evaluate: Callable[[], Scores] | None = None
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    optimizer: Any = field(init=False, default=None)

    def fit(self) -> None:
        """Train from the newest saved state to the end, whose state is saved as well.

        Raises:
            Interrupted: A stop was asked for; the state after the step at hand is saved.
            RunFailed: The loss or a gradient is not finite.
            MemxError: A saved state is damaged, or the disk is full.
        """
        self.optimizer = torch.optim.AdamW(self._groups(), lr=self.recipe.lr, betas=(0.9, 0.95), foreach=False)
        self._restore()
        recipe, started, before = self.recipe, time.perf_counter(), self.seconds
        self.model.train()
        while self.step < recipe.steps:
            loss, tokens = self.loss(self.step)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise RunFailed(f"the loss is {value} at step {self.step + 1}; lower training.lr")
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip))
            if not math.isfinite(norm):
                raise RunFailed(f"the norm of the gradients is {norm} at step {self.step + 1}; lower training.lr")
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.lr * warmup_cosine(self.step, recipe.steps, recipe.warmup, recipe.final_lr)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step, self.tokens = self.step + 1, self.tokens + tokens
            self.seconds = before + time.perf_counter() - started
            self._log(value, norm)
            if self.stop.asked:
                self._save()
                raise Interrupted(f"stopped at step {self.step}; checkpoint saved")
            if self.step % recipe.checkpoint_every == 0 or self.step == recipe.steps:
                self._save()

    def _groups(self) -> list[dict[str, Any]]:
        """Matrices decay, vectors do not."""
        parameters: Sequence[nn.Parameter] = [one for one in self.model.parameters() if one.requires_grad]
        return [
            {"params": [one for one in parameters if one.dim() > 1], "weight_decay": self.recipe.weight_decay},
            {"params": [one for one in parameters if one.dim() <= 1], "weight_decay": 0.0},
        ]

    def _restore(self) -> None:
        state = restore_state(self.run.folder / "state", self._moments(), lambda text: self.report(Note(text)))
        self.run.rewind_metrics(-1 if state is None else state.step)
        if state is not None:
            self.step, self.seconds, self.tokens = state.step, state.seconds, state.tokens

    def _save(self) -> None:
        save_state(self.run.folder / "state", self._moments(), self.step, self.seconds, self.tokens)

    def _moments(self) -> Moments:
        return Moments(dict(self.model.named_parameters()), self.optimizer)

    def _log(self, loss: float, norm: float) -> None:
        recipe = self.recipe
        self.report(Step(self.step, recipe.steps, loss, self.tokens / self.seconds if self.seconds else 0.0))
        if self.step % recipe.log_every == 0 or self.step == recipe.steps:
            figures = dict(loss=loss, gradient_norm=norm, tokens=self.tokens, seconds=round(self.seconds, 3))
            self.run.append_metrics(step=self.step, **figures)
        due = recipe.evaluate_every is not None and self.step % recipe.evaluate_every == 0
        if due and self.evaluate is not None and self.step < recipe.steps:
            self.model.eval()
            scores = self.evaluate()
            self.model.train()
            self.run.append_metrics(step=self.step, evaluation=scores)
            self.report(Evaluation(self.step, scores))
