"""The loop of one training run: config, facts and run folder -> steps, metrics, evaluations, states, rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ..memory_layers.llama import moe_layers_of
from ..results.files import write_atomically
from ..results.rows import Row
from ..results.store import Run
from .allocator import keep_freed_memory
from .build import build_model, build_tokenizer, pick_device, use_bfloat16
from .checkpoint import load_state, save_checkpoint, save_state
from .config import TrainConfig
from .data.batches import Batch, PackedBatches, check_lengths
from .data.questions import FactSplit, Question, documents_of, question_sets
from .data.tokenizer import tokenizer_from_text
from .evaluate import answer_questions, estimates, longest_answer, sample_questions
from .metrics import Estimate
from .objective import answer_loss, balance_loss, parts_of, text_loss
from .optimizer import Optimizer
from .pretrained import Pretrained, add_lora, load_pretrained
from .report import Measured, result_rows
from .run_optimizer import Report, run_optimizer
from .spread import spread_queries
from .stop import Interrupted, StopRequest
from .text_probe import RareRows, TextProbe
from .use import UseStatistics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Trainer:
    """Everything that one run holds in memory, and its loop."""

    def __init__(
        self, config: TrainConfig, split: FactSplit, run: Run, report: Report, stop: StopRequest, threads: int
    ) -> None:
        self.config, self.run, self.report, self.stop = config, run, report, stop
        torch.set_num_threads(threads)
        self.device = pick_device(config.training.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.split = split
        self.model, self.tokenizer, new_memory = self._model()
        self.lora = add_lora(self.model, config) if config.finetune.train == "lora" else None
        check_lengths(self.split.trained, self.tokenizer, config.data.sequence, self.split.seed)
        self.questions = question_sets(self.split)
        self.max_answer = max(config.evaluation.max_answer, longest_answer(self.split.trained, self.tokenizer) + 1)
        self._note_short_training()
        self.text = TextProbe(config.text, self.tokenizer, config.data.seed) if config.text.source else None
        self.batches = PackedBatches(
            self.split.trained,
            self.tokenizer,
            batch=config.training.batch,
            sequence=config.data.sequence,
            seed=config.seed,
            split_seed=self.split.seed,
            loss_on=config.data.loss_on,
        )
        if new_memory and config.finetune.spread:
            self._spread_queries()  # when resuming too: what is common in text is counted at the start of a run
        self.optimizer = self._optimizer()
        self.use = UseStatistics(self.model)
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.before: dict[str, Any] = {}
        self._restore()

    def fit(self) -> list[Row]:
        """Train to the end, evaluate and save; returns the rows. Raises Interrupted once a stop is asked for."""
        training = self.config.training
        self._measure_before()
        self.model.train()
        started, before = time.perf_counter(), self.seconds
        while self.step < training.steps:
            loss, norms, tokens = self._train_step()
            self.step += 1
            self.tokens += tokens
            self.seconds = before + time.perf_counter() - started
            self._log(loss, norms)
            if self._due(self.config.evaluation.every) and self.step < training.steps:
                self._evaluate_on_the_way()
            if self.stop.asked:
                self._save()
                raise Interrupted(f"stopped at step {self.step}, state saved")
            if self._due(training.checkpoint_every):
                self._save()
        return self._finish()

    def _train_step(self) -> tuple[float, dict[str, float], int]:
        batch = next(self.batches)
        counted = int((batch.labels != -100).sum())
        parts = parts_of(batch, self.config.training.accumulate)
        experts, weight = moe_layers_of(self.model), self.config.memory.balance / len(parts)
        total = 0.0
        for part in parts:
            part = Batch(*(tensor.to(self.device) for tensor in part))
            self._count_only(part.documents.flatten() >= 0)
            with self._autocast():
                loss = answer_loss(self.model, part) / counted
                whole = loss + balance_loss(experts, weight)
            whole.backward()
            total += loss.detach()
        blocks = self.text.mixed_in(self.step) if self.text else None
        if blocks is not None:
            self._count_only(None)
            with self._autocast():
                text_loss(self.model, blocks.to(self.device)).backward()
        loss = float(total)
        if loss != loss:
            raise RuntimeError(f"the loss is NaN at step {self.step}; lower training.lr or training.value_lr")
        return loss, self.optimizer.step(self.step), int((batch.documents >= 0).sum())

    def _count_only(self, mask: torch.Tensor | None) -> None:
        """Leave padding out of the statistics of use and of the experts' balance."""
        self.use.count_only(mask)
        for layer in moe_layers_of(self.model):
            layer.counted = mask

    def _autocast(self):
        if use_bfloat16(self.config.training.precision, self.device):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _log(self, loss: float, norms: Mapping[str, float]) -> None:
        state = {"step": self.step, "steps": self.config.training.steps, "loss": loss}
        rate = self.tokens / self.seconds if self.seconds else 0.0
        self.report({**state, "tokens_per_second": rate})
        if self._due(self.config.training.log_every) or self.step == self.config.training.steps:
            use = {"memory_use": self.use.read()} if self.use.windows else {}
            self.run.append_metrics(
                step=self.step, loss=loss, **norms, tokens=self.tokens, seconds=round(self.seconds, 3), **use
            )

    def _evaluate_on_the_way(self) -> None:
        evaluation = self.config.evaluation
        drawn = sample_questions(self.questions, evaluation.questions, self.config.data.seed)
        found = {}
        for tier, answers in self._ask(drawn).items():
            found[tier] = {metric: estimate.value for metric, estimate in estimates(answers).items()}
        self.run.append_metrics(step=self.step, evaluation=found)
        self.report({"step": self.step, "evaluation": found})

    def _ask(self, sets: Mapping[str, Sequence[Question]]) -> dict[str, list]:
        evaluation = self.config.evaluation
        with self._autocast(), self.use.paused():
            return {
                tier: answer_questions(
                    self.model, self.tokenizer, asked, batch=evaluation.batch, max_answer=self.max_answer
                )
                for tier, asked in sets.items()
            }

    def _measure_before(self) -> None:
        """What a pretrained model knows before it is trained: the facts, and its loss on ordinary text."""
        if self.step or self.before or self.config.finetune.source is None:
            return
        self.report({"step": 0, "phase": "asking before training"})
        answers = self._ask(self._final_questions())
        self.before = {"answers": {tier: estimates(found)["exact_match"] for tier, found in answers.items()}}
        if self.text:
            self.before["text"] = self._measure_text()
        self.run.append_metrics(step=0, before=self.before)

    def _measure_text(self) -> Estimate | None:
        if self.text is None:
            return None
        with self._autocast(), self.use.paused():
            return self.text.measure(self.model)

    def _final_questions(self) -> dict[str, list[Question]]:
        return sample_questions(self.questions, self.config.evaluation.final_questions, self.config.data.seed)

    def _finish(self) -> list[Row]:
        self.report({"step": self.step, "phase": "asking the final questions"})
        answers = self._ask(self._final_questions())
        measured = Measured(answers, self.before, self._measure_text(), self.use.last, self.optimizer.value_step)
        if self.lora is not None:
            self.lora.merge_and_unload()
        self.optimizer.tables.release()
        save_checkpoint(self.run.folder / "checkpoint", self.model, self.tokenizer)
        return result_rows(self.config, self.run.name, self.model, self.device, measured, self.split.trained)

    def _note_short_training(self) -> None:
        """Say so if the steps end before every phrasing of a fact was shown: then not all of `seen` was seen."""
        passes = self.config.training.steps * self.config.training.batch / len(self.split.trained)
        most = max(len(documents_of(fact, self.split.seed)) for fact in self.split.trained)
        if passes < most:
            self.report({"note": f"{passes:.1f} passes show each fact in fewer than its {most} phrasings"})

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _save(self) -> None:
        rest = {"position": self.batches.position, "seconds": self.seconds, "tokens": self.tokens}
        rest["before"] = self.before
        save_state(self.run.folder / "state", self.step, self.model, self.optimizer, self.use, rest)

    def _restore(self) -> None:
        state = load_state(self.run.folder / "state", self.model, self.optimizer, self.use)
        if state is None:
            self.run.rewind_metrics(0)
            return
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
        self.batches.seek(state["position"])
        self.before = state["before"]
        self.run.rewind_metrics(self.step)
        self.report({"note": f"resumed at step {self.step}"})

    def _model(self) -> Pretrained:
        if self.config.finetune.source is not None:
            self.report({"phase": f"loading {self.config.finetune.source}"})
            return load_pretrained(self.config, self.device)
        tokenizer = self._tokenizer()
        return Pretrained(build_model(self.config, tokenizer, self.device), tokenizer, new_memory=False)

    def _spread_queries(self) -> None:
        """Fit a new memory's queries to the host's hidden states of ordinary text, or of the facts without it."""
        self.report({"phase": "fitting the queries to the model"})
        first = self._first_batch()
        given = (self.text.training,) if self.text else (first.tokens, first.documents >= 0)
        with self._autocast():
            spread_queries(self.model.model, *given)

    def _first_batch(self) -> Batch:
        first = next(self.batches)
        self.batches.seek({"epoch": 0, "cursor": 0})
        return first

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the run: trained at its start, read again when it goes on."""
        path = self.run.folder / "tokenizer.json"
        if not path.is_file():
            self.report({"phase": "training the tokenizer"})
            write_atomically(path, build_tokenizer(self.config, self.split).backend_tokenizer.to_str())
        return tokenizer_from_text(path.read_text("utf-8"))

    def _optimizer(self) -> Optimizer:
        rare = None
        if self.config.finetune.train == "slots":
            assert self.text is not None
            self.report({"phase": "reading text to find its slots"})
            with self._autocast():
                rare = RareRows(self.model, self.config.finetune, self.text.training)
        return run_optimizer(self.config, self.model, self._first_batch().tokens.numel(), rare, self.report)
