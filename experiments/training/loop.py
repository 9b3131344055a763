"""The loop of one training run: batches -> steps, metrics, evaluations, saved states, and rows at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ...results.store.rows import Row
from ...results.store.runs import Run
from ..checkpoints.checkpoint import Checkpointer
from ..checkpoints.state_tensors import first_not_finite
from ..checkpoints.states import TrainingState, damaged, drop_older_states
from ..config.training import TrainConfig
from ..data.facts.questions import FactSplit
from ..distributed.parallel import Parallelism
from ..models.slot_usage import SlotUsage
from ..optim.optimizer import Optimizer
from ..runtime.devices import autocast_for
from ..runtime.events import Evaluation, Note, Phase, Report, Step
from ..runtime.lifecycle import RunFailed
from ..runtime.signals import Interrupted, StopRequest
from .continual.evaluation import PartEvaluator, PartScores, as_scores
from .data import Batches, TrainingData
from .divergence import check_rows, diverged
from .evaluation import Evaluator
from .fact_qa import answer_lines, by_name_length
from .lengthen import keeps_state
from .rows import Measured, result_rows
from .step import TrainStep

if TYPE_CHECKING:
    from ...memory_layers.llama import MemoryLlamaForCausalLM


@dataclass
class Trainer:
    """Everything that one process of a run holds, as `build.build_trainer` puts it together, and its loop.

    lora: the tuner that merges LoRA adapters at the end, if there are some. step, tokens, seconds: of training so far,
    by all ranks. before: what a pretrained model knew before training. saved: the step of the last saved state. parts:
    what was measured after each part of the facts.
    """

    config: TrainConfig
    split: FactSplit
    run: Run
    report: Report
    stop: StopRequest
    device: torch.device
    parallelism: Parallelism
    data: TrainingData
    batches: Batches
    model: MemoryLlamaForCausalLM
    lora: Any
    evaluator: Evaluator
    optimizer: Optimizer
    usage: SlotUsage
    train_step: TrainStep
    checkpointer: Checkpointer
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    before: dict[str, Any] = field(default_factory=dict)
    saved: int = 0
    parts: list[PartScores] = field(default_factory=list)

    def fit(self) -> list[Row]:
        """Train from the newest saved state to the end, evaluate and export.

        Returns:
            The rows of the run.

        Raises:
            Interrupted: a stop was asked for; the state after the step at hand is saved.
            RunFailed: the loss, a gradient, a weight or a score is not finite; the last saved state stays.
            MemxError: a saved state is damaged, or the disk is full.
        """
        training, evaluation = self.config.training, self.config.evaluation
        self._restore()
        self._measure_before()
        self.model.train()
        started, seconds_before = time.perf_counter(), self.seconds
        while self.step < training.steps:
            step_of_part = self.step % self.config.part_steps
            if self.step and not step_of_part:
                self.optimizer.reset()  # each part begins without the moments of the one before
            # forward and backward of each micro-batch; gradients are summed over ranks on the way
            own_loss, tokens = self.train_step(next(self.batches), self.step)
            # a stop goes with the loss, so that all ranks learn of it in one collective and end after the same step
            loss, stops = self.parallelism.totals([float(own_loss), float(self.stop.asked)])
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss}")
            try:
                norms = self.optimizer.step(step_of_part)  # clips, steps, clears the gradients
            except FloatingPointError as error:
                raise self._diverged(str(error), loss) from None
            self.step += 1
            self.tokens += tokens
            self.seconds = seconds_before + time.perf_counter() - started
            self._log(loss, norms)
            if self._due(evaluation.every) and self.step < training.steps:
                self._evaluate()
            if self.evaluator.parts is not None and self._due(self.config.part_steps):
                self._measure_part(self.evaluator.parts)
            alone = self.parallelism.world.size == 1  # then a stop that came since the loss counts too
            if stops or (alone and self.stop.asked):
                self._save()
                raise Interrupted(f"stopped at step {self.step}; checkpoint saved")
            if self._due(training.checkpoint_every):
                self._save()
        return self._finish()

    def _restore(self) -> None:
        state = self.checkpointer.restore(lambda text: self.report(Note(text)))
        if state is None:
            self.run.rewind_metrics(-1)  # also of what was measured before the first step, which comes again
            return
        self.step, self.seconds, self.tokens, self.before = state.step, state.seconds, state.tokens, state.before
        self.saved, self.parts = self.step, [as_scores(scores) for scores in state.parts]
        if self.evaluator.known is not None:
            self.evaluator.known.read(self.run.folder)
        try:
            self.batches.seek(state.position)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise damaged(
                self.run.folder / "state", f"the position of step {state.step} in the data is damaged"
            ) from None
        self.run.rewind_metrics(self.step)
        self.parallelism.world.on_first(lambda: drop_older_states(self.run.folder / "state", self.step))
        self.report(Note(f"resumed at step {self.step}"))

    def _state(self) -> TrainingState:
        return TrainingState(
            position=self.data.position(),
            before=self.before,
            seconds=self.seconds,
            tokens=self.tokens,
            value_step=self.optimizer.value_step,
            step=self.step,
            run=self.run.name,
            parts=self.parts,
        )

    def _save(self) -> None:
        """Save a state to resume from, of finite numbers alone."""
        self._check_finite()
        self.checkpointer.save(self._state())
        self.saved = self.step

    def _check_finite(self) -> None:
        """Raise RunFailed, on every rank, if a weight or a moment of any is not finite."""

        def check() -> None:
            name = first_not_finite({**dict(self.model.named_parameters()), **self.optimizer.state_tensors()})
            if name is not None:
                raise self._diverged(f"{name} is not finite")

        self.parallelism.world.together(check)

    def _keeps_state(self) -> bool:
        tensors = [*self.model.parameters(), *self.optimizer.state_tensors().values()]
        return keeps_state(self.config, sum(tensor.numel() * tensor.element_size() for tensor in tensors))

    def _diverged(self, what: str, loss: float | None = None) -> RunFailed:
        return diverged(self.config, self.run.name, self.step, what, loss)

    def _measure_before(self) -> None:
        """What a pretrained model knows before it is trained: the facts, and its loss on ordinary text."""
        if self.step or self.before or self.config.finetune.source is None:
            return
        self.report(Phase("evaluating before training"))
        with self._evaluating():
            self.before = self.evaluator.before_training(self.model)
        measured = [*self.before["answers"].values(), *filter(None, [self.before.get("text")])]
        measured += self.before.get("cached", {}).values()
        if not all(math.isfinite(estimate.value) for estimate in measured):
            raise RunFailed(f"{self.config.finetune.source} computes scores that are not finite before any training")
        if (known := self.evaluator.known) is not None:
            self.parallelism.world.on_first(lambda: known.write(self.run.folder))
            self.report(Note(f"answers {len(known.questions):,} of {known.asked:,} general questions: they are kept"))
        self.run.append_metrics(step=0, before=self.before)

    def _measure_part(self, evaluator: PartEvaluator) -> None:
        """What the model knows after a part of the facts."""
        part = self.step // self.config.part_steps
        self.report(Phase(f"evaluating after part {part} of {self.config.finetune.parts}"))
        with self._evaluating():
            scores = evaluator.measure(self.model, part - 1)
        if not all(math.isfinite(one.value) for figures in scores.values() for one in figures.values()):
            raise self._diverged("a score is not finite")
        self.parts.append(scores)
        self.run.append_metrics(step=self.step, part=part, scores=scores)

    def _evaluate(self) -> None:
        with self._evaluating():
            metrics = self.evaluator.during_training(self.model)
        for name, scores in metrics.items():
            for metric, value in scores.items():
                if not math.isfinite(value):
                    raise self._diverged(f"{metric} of {name} is {value}")
        self.run.append_metrics(step=self.step, evaluation=metrics)
        self.report(Evaluation(self.step, metrics))

    def _log(self, loss: float, norms: Mapping[str, float]) -> None:
        steps = self.config.training.steps
        rate = self.tokens / self.seconds if self.seconds else 0.0
        self.report(Step(self.step, steps, loss, rate))
        if self._due(self.config.training.log_every) or self.step == steps:
            self.usage.gather(self.parallelism)
            usage = {"memory_use": self.usage.read()} if self.usage.windows else {}
            self.run.append_metrics(
                step=self.step, loss=loss, **norms, tokens=self.tokens, seconds=round(self.seconds, 3), **usage
            )

    def _finish(self) -> list[Row]:
        """Run the final evaluation and export the model."""
        self._check_finite()
        if self.saved != self.step and not self.parallelism.world.joined and self._keeps_state():
            self._save()  # of several processes, the export saves it
        self.report(Phase("final evaluation" if self.evaluator.questions else "measuring held-out loss"))
        with self._evaluating():
            answers, cached = self.evaluator.final_answers(self.model), self.evaluator.cached_answers(self.model)
            # after the last part both were measured already
            kept = self.parts[-1] if self.parts else self.evaluator.kept(self.model)
        value_step, dataset = self.optimizer.value_step, self.evaluator.dataset
        names = {tier: by_name_length(asked, self.evaluator.tokenizer) for tier, asked in answers.items()}
        text, known = kept.get("text", {}).get("nll"), kept.get("known", {})
        measured = Measured(
            answers, self.before, text, self.usage.last, value_step, dataset, cached, names, known, self.parts
        )
        if self.lora is not None:
            self.lora.merge_and_unload()
        rows = result_rows(self.config, self.run.name, self.model, self.device, measured, self.split.trained)
        if (what := check_rows(rows)) is not None:
            raise self._diverged(what)
        self.checkpointer.export(self.run.folder / "checkpoint", self._state())
        if answers:
            self.parallelism.world.on_first(lambda: self.run.keep_answers(answer_lines(answers)))
        self.optimizer.tables.release()
        return rows

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Inside, the model is asked: under autocast, with whole weights, and no lookup counts as use."""
        precision = self.config.training.precision
        with autocast_for(precision, self.device), self.usage.paused(), self.parallelism.whole(self.model):
            yield

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0
