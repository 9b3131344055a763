"""One training run: config and run folder -> checkpoint, metrics and rows.

The run saves its state on the way; started again with the same folder it goes on from the last one and ends
bit-identical, on the same CPU and number of threads, to a run that was never stopped. On CUDA it goes on from the same
state, but some of torch's backward passes add in no fixed order there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MemxError
from ..results.files import write_atomically
from ..results.rows import Row
from ..results.store import Run
from .build import build_model, build_split, build_tokenizer, pick_device, use_bfloat16
from .checkpoint import load_state, save_checkpoint, save_state, saved_states
from .config import TrainConfig
from .data.batches import Batch, PackedBatches, block_mask, check_lengths
from .data.facts import facts_digest
from .data.files import is_facts_file
from .data.questions import FactSplit, Question, documents_of, question_sets
from .data.tokenizer import tokenizer_from_text
from .evaluate import answer_questions, estimates, longest_answer, sample_questions
from .optimizer import Optimizer
from .report import result_rows
from .settings import to_yaml
from .stop import Interrupted, StopRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..memory_layers.llama import MemoryLlamaForCausalLM

Report = Callable[[Mapping[str, Any]], None]


class Trainer:
    """Everything that one run holds in memory, and its loop."""

    def __init__(
        self, config: TrainConfig, split: FactSplit, run: Run, report: Report, stop: StopRequest, threads: int
    ) -> None:
        self.config, self.run, self.report, self.stop = config, run, report, stop
        torch.set_num_threads(threads)
        self.device = pick_device(config.training.device)
        self.split = split
        self.tokenizer = self._tokenizer()
        check_lengths(self.split.trained, self.tokenizer, config.data.sequence, self.split.seed)
        self.questions = question_sets(self.split)
        self.max_answer = max(config.evaluation.max_answer, longest_answer(self.split.trained, self.tokenizer) + 1)
        self._note_short_training()
        self.model = build_model(config, self.tokenizer, self.device)
        self.optimizer = Optimizer(self.model, config.training)
        self.batches = PackedBatches(
            self.split.trained,
            self.tokenizer,
            batch=config.training.batch,
            sequence=config.data.sequence,
            seed=config.seed,
            split_seed=self.split.seed,
            loss_on=config.data.loss_on,
        )
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self._restore()

    def fit(self) -> list[Row]:
        """Train to the end, evaluate and save; returns the rows. Raises Interrupted once a stop is asked for."""
        training = self.config.training
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
        total = 0.0
        for part in _parts(batch, self.config.training.accumulate):
            part = Batch(*(tensor.to(self.device) for tensor in part))
            with self._autocast():
                loss = answer_loss(self.model, part) / counted
            loss.backward()
            total += loss.detach()
        loss = float(total)
        if loss != loss:
            raise RuntimeError(f"the loss is NaN at step {self.step}; lower training.lr or training.value_lr")
        return loss, self.optimizer.step(self.step), int((batch.documents >= 0).sum())

    def _autocast(self):
        if use_bfloat16(self.config.training.precision, self.device):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _log(self, loss: float, norms: Mapping[str, float]) -> None:
        state = {"step": self.step, "steps": self.config.training.steps, "loss": loss}
        rate = self.tokens / self.seconds if self.seconds else 0.0
        self.report({**state, "tokens_per_second": rate})
        if self._due(self.config.training.log_every) or self.step == self.config.training.steps:
            self.run.append_metrics(
                step=self.step, loss=loss, **norms, tokens=self.tokens, seconds=round(self.seconds, 3)
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
        with self._autocast():
            return {
                tier: answer_questions(
                    self.model, self.tokenizer, asked, batch=evaluation.batch, max_answer=self.max_answer
                )
                for tier, asked in sets.items()
            }

    def _finish(self) -> list[Row]:
        self.report({"step": self.step, "phase": "asking the final questions"})
        drawn = sample_questions(self.questions, self.config.evaluation.final_questions, self.config.data.seed)
        answers = self._ask(drawn)
        save_checkpoint(self.run.folder / "checkpoint", self.model, self.tokenizer)
        return result_rows(self.config, self.run.name, self.model, self.device, answers, self.split.trained)

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
        save_state(self.run.folder / "state", self.step, self.model, self.optimizer, rest)

    def _restore(self) -> None:
        state = load_state(self.run.folder / "state", self.model, self.optimizer)
        if state is None:
            self.run.rewind_metrics(0)
            return
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
        self.batches.seek(state["position"])
        self.run.rewind_metrics(self.step)
        self.report({"note": f"resumed at step {self.step}"})

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the run: trained at its start, read again when it goes on."""
        path = self.run.folder / "tokenizer.json"
        if not path.is_file():
            self.report({"phase": "training the tokenizer"})
            write_atomically(path, build_tokenizer(self.config, self.split).backend_tokenizer.to_str())
        return tokenizer_from_text(path.read_text("utf-8"))


def train(config: TrainConfig, run: Run, report: Report, stop: StopRequest, threads: int) -> list[Row]:
    """Train one point in a claimed run folder, and record in it how that ended."""
    before = run.info()
    # a run that goes on keeps its threads, and so its bits
    threads = config.training.threads or before.get("threads") or threads
    began = bool(saved_states(run.folder / "state"))
    try:
        split, notes = build_split(config)
        digest = facts_digest([*split.trained, *split.unseen])
        _same_facts(run, digest)
        for note in notes:
            report({"note": note})
        about = {"experiment": config.experiment, "seed": config.seed, "device": config.training.device}
        run.begin(to_yaml(config), {**about, "threads": threads, "facts": digest})
        trainer = Trainer(config, split, run, report, stop, threads)
        rows = trainer.fit()
    except (Interrupted, KeyboardInterrupt):
        run.end("interrupted")
        raise
    except MemxError as error:
        if began or saved_states(run.folder / "state"):
            run.end("failed", error=error.message)
        else:
            run.discard()
        raise
    except Exception as error:
        run.end("failed", error=f"{type(error).__name__}: {error}")
        raise
    run.finish(
        rows, seconds=round(trainer.seconds, 1), steps=trainer.step, tokens=trainer.tokens, device=str(trainer.device)
    )
    shutil.rmtree(run.folder / "state", ignore_errors=True)  # the checkpoint is what is left to keep
    return rows


def check_facts(config: TrainConfig, run: Run) -> None:
    """Raise MemxError if a user's file says other facts than those that a finished run was trained on."""
    if any(is_facts_file(source) for source in config.data.facts):
        split, _ = build_split(config)
        _same_facts(run, facts_digest([*split.trained, *split.unseen]))


def _same_facts(run: Run, digest: str) -> None:
    before = run.info().get("facts")
    if before not in (None, digest):
        raise MemxError(f"the facts have changed since run {run.name} began", hint="--force starts it anew")


def answer_loss(model: MemoryLlamaForCausalLM, batch: Batch) -> Tensor:
    """Cross-entropy summed over the labelled tokens of a packed batch; logits are made for those alone."""
    hidden = model.model(
        batch.tokens, attention_mask=block_mask(batch.documents), position_ids=batch.positions, use_cache=False
    ).last_hidden_state  # [R, S, d]
    labels = batch.labels.flatten()
    counted = (labels != -100).nonzero().squeeze(-1)
    logits = model.lm_head(hidden.flatten(0, 1).index_select(0, counted))  # [counted, vocabulary]
    return F.cross_entropy(logits.float(), labels.index_select(0, counted), reduction="sum")


def _parts(batch: Batch, parts: int) -> list[Batch]:
    split = [tensor.tensor_split(parts) for tensor in batch]
    return [Batch(*part) for part in zip(*split, strict=True) if len(part[0])]
