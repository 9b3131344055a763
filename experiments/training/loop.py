"""The loop of one training run: config, facts or corpus, run folder -> steps, metrics, evaluations, states, rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from ...results.store.rows import Row
from ...results.store.runs import Run
from ..checkpoints.checkpoint import load_state, save_checkpoint, save_state
from ..checkpoints.convert import convert_state
from ..checkpoints.distributed_state import save_shared_state
from ..checkpoints.states import begun_value_step
from ..config.training import TrainConfig
from ..data.facts.questions import FactSplit
from ..distributed.parallel import Parallelism
from ..distributed.process_group import World, local_device
from ..models.assemble import assemble_model
from ..models.pretrained import add_lora
from ..models.slot_usage import SlotUsage
from ..models.whitening import whiten_queries
from ..optim.optimizer import Optimizer
from ..optim.select import make_optimizer
from ..optim.sparse_finetuning import TrainableRows
from ..runtime.devices import autocast_for, pick_device
from ..runtime.events import Evaluation, Note, Phase, Report, Step
from ..runtime.malloc import keep_freed_memory
from ..runtime.signals import Interrupted, StopRequest
from .data import TrainingData
from .evaluation import Evaluator
from .rows import Measured, result_rows
from .step import TrainStep


class Trainer:
    """Everything that one process of a run holds in memory, and its loop; alone, or one of torchrun's."""

    def __init__(
        self,
        config: TrainConfig,
        split: FactSplit,
        run: Run,
        report: Report,
        stop: StopRequest,
        threads: int,
        world: World | None = None,
    ) -> None:
        self.config, self.run, self.report, self.stop, self.split = config, run, report, stop, split
        self.world = world or World()
        torch.set_num_threads(threads)
        self.device = local_device(self.world, pick_device(config.training.device))
        if self.device.type == "cpu":
            keep_freed_memory()
        self.layout = Parallelism(config, self.world, self.device) if self.world.joined else None
        self.lessons = TrainingData(config, split, run, self.world, report)
        self.model, self.tokenizer, new_memory = assemble_model(
            config, self.lessons.new_tokenizer, self.device, self.layout, report
        )
        self.lora = add_lora(self.model, config) if config.finetune.train == "lora" else None
        self.batches = self.lessons.batches(self.tokenizer)
        asked = {"quiet": self._quiet, "notes": self._note, "synced": self.world.joined}
        self.examiner = Evaluator(config, split, self.tokenizer, **asked)
        if new_memory and config.finetune.spread:
            self._spread_queries()  # when resuming too: what is common in text is counted at the start of a run
        if self.layout is not None:
            with self._autocast():
                self.layout.shard_dense(self.model, self.device)
        self.optimizer = self._optimizer()
        self.use = SlotUsage(self.model)
        self.gradients = TrainStep(
            config, self.model, self.use, self.examiner.text, self.device, self.layout, divided=self.lessons.divided
        )
        self.step, self.seconds, self.tokens, self.saved = 0, 0.0, 0, 0
        self.before: dict[str, Any] = {}
        self._restore()

    def fit(self) -> list[Row]:
        """Train to the end, evaluate and save; returns the rows. Raises Interrupted once a stop is asked for."""
        training = self.config.training
        self._measure_before()
        self.model.train()
        started, before = time.perf_counter(), self.seconds
        while self.step < training.steps:
            loss, norms, tokens, stopping = self._train_step()
            self.step += 1
            self.tokens += tokens
            self.seconds = before + time.perf_counter() - started
            self._log(loss, norms)
            if self._due(self.config.evaluation.every) and self.step < training.steps:
                self._evaluate_on_the_way()
            if stopping or (self.layout is None and self.stop.asked):
                self._save()
                raise Interrupted(f"stopped at step {self.step}, state saved")
            if self._due(training.checkpoint_every):
                self._save()
        return self._finish()

    def _train_step(self) -> tuple[float, dict[str, float], int, bool]:
        """One step; its loss, norms, tokens, all over all ranks, and whether some rank was asked to stop."""
        total, tokens = self.gradients(next(self.batches), self.step)
        loss, stopping = float(total), False
        if self.layout is not None:
            loss, asked = self.layout.totals([loss, float(self.stop.asked)])
            stopping = asked > 0
        if loss != loss:
            raise RuntimeError(f"the loss is NaN at step {self.step}; lower training.lr or training.value_lr")
        return loss, self.optimizer.step(self.step), tokens, stopping

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast_for(self.config.training.precision, self.device)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Inside, the model is asked: whole weights, no statistics."""
        with ExitStack() as stack:
            stack.enter_context(self._autocast())
            stack.enter_context(self.use.paused())
            if self.layout is not None:
                stack.enter_context(self.layout.whole(self.model))
            yield

    def _note(self, text: str) -> None:
        self.report(Note(text))

    def _log(self, loss: float, norms: Mapping[str, float]) -> None:
        rate = self.tokens / self.seconds if self.seconds else 0.0
        self.report(Step(self.step, self.config.training.steps, loss, rate))
        if self._due(self.config.training.log_every) or self.step == self.config.training.steps:
            if self.layout is not None:
                self.use.gather(self.layout)
            use = {"memory_use": self.use.read()} if self.use.windows else {}
            self.run.append_metrics(
                step=self.step, loss=loss, **norms, tokens=self.tokens, seconds=round(self.seconds, 3), **use
            )

    def _evaluate_on_the_way(self) -> None:
        found = self.examiner.on_the_way(self.model)
        self.run.append_metrics(step=self.step, evaluation=found)
        self.report(Evaluation(self.step, found))

    def _measure_before(self) -> None:
        """What a pretrained model knows before it is trained: the facts, and its loss on ordinary text."""
        if self.step or self.before or self.config.finetune.source is None:
            return
        self.report(Phase("asking before training"))
        self.before = self.examiner.before(self.model)
        self.run.append_metrics(step=0, before=self.before)

    def _finish(self) -> list[Row]:
        self.report(Phase("asking the final questions"))
        answers, text = self.examiner.final(self.model), self.examiner.measure_text(self.model)
        measured = Measured(answers, self.before, text, self.use.last, self.optimizer.value_step, self.examiner.dataset)
        if self.lora is not None:
            self.lora.merge_and_unload()
        place = self.run.folder / "checkpoint"
        if self.layout is not None:
            if self.saved != self.step:
                self._save()
            state = self.run.folder / "state"
            self.world.on_first(lambda: convert_state(state, place))
        self.optimizer.tables.release()
        if self.layout is None:
            save_checkpoint(place, self.model, self.tokenizer)
        return result_rows(self.config, self.run.name, self.model, self.device, measured, self.split.trained)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _save(self) -> None:
        rest: dict[str, Any] = {"position": self.lessons.position(self.batches), "before": self.before}
        rest |= {"seconds": self.seconds, "tokens": self.tokens, "value_step": self.optimizer.value_step}
        self.saved = self.step
        folder = self.run.folder / "state"
        if self.layout is None:
            save_state(folder, self.step, self.model, self.optimizer, self.use, rest)
            return
        save_shared_state(folder, self.step, self.model, self.tokenizer, self.optimizer, self.use, rest, self.layout)

    def _restore(self) -> None:
        state = load_state(self.run.folder / "state", self.model, self.optimizer, self.use, self.layout)
        if state is None:
            self.run.rewind_metrics(0)
            return
        self.step, self.seconds, self.tokens, self.before = (state[k] for k in ("step", "seconds", "tokens", "before"))
        self.batches.seek(state["position"])
        self.saved = self.step
        self.run.rewind_metrics(self.step)
        self.report(Note(f"resumed at step {self.step}"))

    def _spread_queries(self) -> None:
        """Fit a new memory's queries to the host's hidden states of ordinary text, or of the facts without it."""
        self.report(Phase("fitting the queries to the model"))
        text = self.examiner.common_text()
        given = self.lessons.first_tokens(self.batches) if text is None else (text, None)
        with self._autocast():
            whiten_queries(self.model.model, *given)

    def _optimizer(self) -> Optimizer:
        rare = None
        if self.config.finetune.train == "slots":
            assert self.examiner.text is not None
            self.report(Phase("reading text to find its slots"))
            with self._autocast():
                rare = TrainableRows(self.model, self.config.finetune, self.examiner.text.training)
        tokens = self.lessons.tokens_per_step(self.batches)
        begun = begun_value_step(self.run.folder / "state")
        return make_optimizer(self.config, self.model, tokens, rare, self.report, begun)
