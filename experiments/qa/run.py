"""`memx eval`: config -> a run folder with what a model answered to each question, and rows on what that means.

Answers are appended a batch at a time, so that a stopped run goes on after the last batch and ends with the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from ...results.store.json_lines import JsonLines, Line
from ...results.store.rows import Row
from ...results.store.runs import Run, RunStore
from ..base_models.model_folder import find_model_folder
from ..config.base import to_yaml
from ..config.question_answering import QaConfig, title_of
from ..runtime.events import Note, Phase, Progress, Report
from ..runtime.lifecycle import note_new_run, recorded_run
from ..runtime.options import Options
from ..runtime.signals import Interrupted, StopRequest, stop_on_signals
from .answer import answer_batch
from .eviction import about_eviction, build, evicting
from .lm_eval_samples import SAMPLES, Samples
from .lm_eval_tasks import check_harness, harness_rows, run_harness
from .model import about_model, check_template, context_of, load_model
from .prompt import Asked, Asker
from .rows import answer_line, answer_rows
from .sets import Sets, read_sets
from .sources import label_of

ANSWERS, HARNESS = "answers.jsonl", "harness.jsonl"


def eval_model(config: QaConfig, options: Options, report: Report, *, batch: int = 32) -> list[Row]:
    """Evaluate a model on questions, in the config's run folder.

    Args:
        config: The evaluation.
        options: Where runs are, and whether to resume or replace one that is there. A finished one is kept if resumed.
        report: Called with the progress.
        batch: How many questions are answered at once.

    Returns:
        The rows.

    Raises:
        MemxError: The folder exists or is in use, or the model or data cannot be loaded.
        Interrupted: A signal asked for a stop; the answers so far are saved.
    """
    store = RunStore(options.runs)
    with store.claim(config.folder, resume=options.resume, force=options.force) as run:
        if options.resume:
            note_new_run(store, config.folder, config, report)
        if options.resume and run.status == "finished":
            report(Note("already finished"))
            return run.rows()
        return _evaluate(config, run, report, batch)


def _evaluate(config: QaConfig, run: Run, report: Report, batch: int) -> list[Row]:
    """Evaluate in a claimed run folder, and record in it how that ended."""
    answers, harness = JsonLines(run.folder / ANSWERS), JsonLines(run.folder / HARNESS)
    with recorded_run(run, keeps=lambda: bool(answers.lines() or harness.lines())):
        find_model_folder(config.model)  # a name that means nothing, before data are fetched
        if config.eviction is not None:
            build(config.eviction, config)
        check_template(config)
        manager, sets = check_harness(config.harness), read_sets(config, lambda text: report(Note(text)))
        run.begin(to_yaml(config), {"experiment": run.name, "seed": config.seed, "device": config.device})
        report(Phase(f"loading {config.model}"))
        model, tokenizer = load_model(config)
        about = about_model(config, model, label_of(config))
        about |= {"run": run.name, "experiment": about["experiment"] or run.name}
        with stop_on_signals() as stop, evicting(model, config) as policy:
            about |= about_eviction(policy, config, about.get("variant", ""))
            evaluation = _Evaluation(
                config, model, tokenizer, report, stop, batch, None if policy is None else policy.every
            )
            evaluation.answer_all(sets, answers)
            evaluation.run_harness(manager, harness)
        rows = [row for task in config.tasks for row in answer_rows(config, task, _of(answers, task.name), about)]
        rows += [row for line in harness.lines() for row in harness_rows(line["results"], about)]
    run.finish(rows, experiment=about["experiment"])
    return rows


class _Evaluation:
    """Evaluates a loaded model on all that has no line yet; Interrupted is raised once a stop is asked for."""

    def __init__(
        self,
        config: QaConfig,
        model: Any,
        tokenizer: Any,
        report: Report,
        stop: StopRequest,
        batch: int,
        every: int | None,
    ) -> None:
        self.config, self.model, self.tokenizer = config, model, tokenizer
        self.report, self.stop, self.batch, self.every = report, stop, batch, every

    def answer_all(self, sets: Sequence[Sets], answers: JsonLines) -> None:
        """Answer every question, the longest prompts of each set first."""
        lines, total = answers.rewind(), sum(len(of_task.questions) for of_task in sets)
        # first of all sets, so that what does not fit in the context is said before anything is answered
        prepared = [(of_task, self._chunks(of_task)) for of_task in sets]
        for of_task, chunks in prepared:
            name = of_task.task.name
            metrics = self.config.metrics.get(name, ())
            lines = _whole_batches(answers, lines, name, chunks)
            answered = {line["number"] for line in lines if line["task"] == name}
            if answered:
                self.report(Note(f"{title_of(name)}: {len(answered)} questions already answered"))
            for chunk in chunks:
                if chunk[0].question.number in answered:
                    continue
                self.check()
                start = perf_counter()
                batch = answer_batch(
                    self.model,
                    self.tokenizer,
                    chunk,
                    self.config.answer_tokens,
                    cached=self.config.eviction is not None,
                    one_line=not self.config.chat,
                )
                for prompt, answer in zip(chunk, batch, strict=True):
                    lines.append(answer_line(name, prompt, answer, metrics, of_task.classes))
                    answers.append(lines[-1])
                seconds = (perf_counter() - start) / len(chunk)
                self.report(Progress(len(lines), total, title_of(name), seconds))

    def _chunks(self, of_task: Sets) -> list[list[Asked]]:
        """The prompts of a set in batches of about one length."""
        asker = Asker(
            self.tokenizer,
            of_task.examples,
            shots=self.config.shots_of(of_task.task),
            room=context_of(self.model.config),
            answer_tokens=self.config.answer_tokens,
            seed=self.config.seed,
            chat=self.config.chat,
        )
        prompts = sorted(map(asker.ask, of_task.questions), key=lambda p: (-len(p.prompt), p.question.number))
        return [prompts[start : start + self.batch] for start in range(0, len(prompts), self.batch)]

    def run_harness(self, manager: Any, results: JsonLines) -> None:
        """Run every task of lm-eval."""
        done = {line["task"] for line in results.rewind()}
        samples = Samples(JsonLines(results.path.with_name(SAMPLES)), done) if self.config.harness.tasks else None
        for task in self.config.harness.tasks:
            if task not in done:
                self.check()
                self.report(Phase(f"lm-eval: {task}"))
                given = (manager, self.model, self.tokenizer, task, self.config)
                scores = run_harness(*given, self.batch, self.report, self.check, self.every)
                if samples is not None:
                    samples.append(task, scores.pop("samples"))
                results.append({"task": task, "results": scores})

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self.stop.asked:
            raise Interrupted("stopped; the answers so far are saved")


def _whole_batches(answers: JsonLines, lines: list[Line], task: str, chunks: Sequence[Sequence[Asked]]) -> list[Line]:
    """The lines without those of a batch that a kill cut off.

    Such a batch is answered again as a whole: sums round as the batch is padded, and a resumed run ends with the same
    rows as one that nothing stopped.
    """
    answered = {line["number"] for line in lines if line["task"] == task}
    batches = [{prompt.question.number for prompt in chunk} for chunk in chunks]
    cut_off = {number for batch in batches if not batch <= answered for number in batch & answered}
    whole = [line for line in lines if line["task"] != task or line["number"] not in cut_off]
    if len(whole) < len(lines):
        answers.write(whole)
    return whole


def _of(answers: JsonLines, task: str) -> list[Line]:
    return [line for line in answers.lines() if line["task"] == task]
