"""`memx eval-namm`: config -> a run folder with what each policy did with each prompt, and rows on what that means.

Results of each prompt are appended as they come, so that a stopped run goes on after the last of them and ends with
the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from ...errors import MemxError
from ...json_text import parse_json
from ...namm.policies.network import Namm
from ...namm.policies.shares import HeadShares, allowed
from ...namm.saved.files import read_files
from ...namm.saved.places import DESCRIPTION, find_namm
from ...results.store.json_lines import JsonLines
from ...results.store.rows import Row
from ...results.store.runs import Run, RunStore
from ...transformers_compat import input_device
from ..config.base import run_name, to_yaml
from ..config.eviction.policy_eval import EvalConfig, NammSource
from ..data.long_context.example import DoesNotFit
from ..eviction.answers import Prompt, question_first
from ..eviction.base_model import check_prompt_length, describe_base_model, prepare_base_model
from ..eviction.head_shares import HEAD_SHARES, kvzip_shares, read_shares, write_shares
from ..eviction.kvpress_presses import check_host, check_peers
from ..eviction.measurements import Measurements
from ..eviction.policy import OTHER_HEADS
from ..eviction.tasks import Draws, check_fit, task_prompts, unfit
from ..runtime.events import Note, Phase, Progress, Report
from ..runtime.lifecycle import RunFailed, note_new_run, recorded_run
from ..runtime.malloc import keep_freed_memory
from ..runtime.options import Options
from ..runtime.signals import Interrupted, StopRequest, stop_on_signals
from ..runtime.threads import restored_threads, run_threads
from .leaderboard import asked, write_leaderboard
from .measure import PolicyEvaluator
from .online_thresholds import THRESHOLDS, Thresholds, online_thresholds
from .reuse import before_rows, read_before, read_reused
from .rows import EvalReport, Key
from .sources import settings_checksum
from .third_party import measure_third_party
from .token_drops import draw_documents, drops_of, kind_rows

RESULTS = "prompts.jsonl"


def eval_namm(config: EvalConfig, options: Options, report: Report) -> list[Row]:
    """Evaluate NAMMs and the policies that they are compared with, in the config's run folder.

    Args:
        config: The evaluation.
        options: Where runs are, and whether to resume or replace one that is there. A finished one is kept if resumed.
        report: Called with the progress.

    Returns:
        The rows.

    Raises:
        MemxError: The folder exists or is in use, the base model cannot be loaded, or a NAMM is another one.
        Interrupted: A signal asked for a stop; the prompts that are done are saved.
    """
    store = RunStore(options.runs)
    with store.claim(run_name(config), resume=options.resume, force=options.force) as run:
        if options.resume:
            note_new_run(store, run.name, config, report)
        if options.resume and run.status == "finished":
            report(Note("already finished"))
            return run.rows()
        return _evaluate(config, options, run, report)


def _evaluate(config: EvalConfig, options: Options, run: Run, report: Report) -> list[Row]:
    """Evaluate in a claimed run folder, and record in it how that ended."""
    before = run.info()
    threads = run_threads(config.host.threads, before, torch.get_num_threads(), report)
    with recorded_run(run, keeps=lambda: bool(JsonLines(run.folder / RESULTS).lines())), restored_threads():
        torch.set_num_threads(threads)
        keep_freed_memory()
        if config.peers:
            check_peers()
        namms = [load_source(source) for source in config.namms]
        about = {"experiment": run.name, "seed": config.seed, "device": config.host.device, "threads": threads}
        run.begin(to_yaml(config), about)
        with stop_on_signals() as stop:
            evaluation = Evaluation(config, namms, run, options.runs, report, stop)
            evaluation.run()
        rows = evaluation.rows(run.name)
        write_leaderboard(run.folder / RESULTS, config)
    run.finish(rows)
    return rows


class Evaluation:
    """The base model, prompts and evaluator of one run, which continues after the lines that are there."""

    def __init__(
        self,
        config: EvalConfig,
        namms: list[Namm],
        run: Run,
        runs: Path,
        report: Report,
        stop: StopRequest,
    ) -> None:
        self.config, self.report, self.stop = config, report, stop
        self.results = JsonLines(run.folder / RESULTS)
        self.reused, self.before = read_reused(config), read_before(config)
        check_prompt_length(config.host, describe_base_model(config.host), config.length, "length")
        self.model, self.tokenizer, self.host = prepare_base_model(config.host, runs, report)
        for source, namm in zip(config.namms, namms, strict=True):
            if namm.table is not None and (made_for := source.evolved_on) not in ("", self.host):
                report(Note(OTHER_HEADS.format(made_for)))
        if config.peers:
            check_host(self.model)
        shares = self._head_shares(namms, run.folder / HEAD_SHARES) if "table" in config.all_allocations else None
        thresholds = self._thresholds(namms, run.folder / THRESHOLDS) if config.online_thresholds else None
        taken = self.reused.keys if self.reused else frozenset[Key]()
        how = self._check, shares, thresholds, taken
        self.evaluator = PolicyEvaluator(self.model, self.tokenizer, config, namms, *how)

    @property
    def about(self) -> dict[str, Any]:
        """The fields of all rows that are about the host."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return {"model": self.host, "device": str(input_device(self.model)), "parameters_total": count}

    def run(self) -> None:
        """Measure every prompt and document that has no line yet. Raises Interrupted once a stop is asked for."""
        lines = self.results.rewind()
        prompts_done = {(line["task"], line["number"]) for line in lines if "task" in line}
        documents_done = {(line["document"], line["number"]) for line in lines if "document" in line}
        total = len(self.config.tasks) * self.config.prompts
        if lines:
            self.report(Note(f"resumed after {len(prompts_done)} of {total} prompts"))
        self.report(Phase("preparing prompts"))
        for task, number, prompt in self._prompts():
            if self.before:
                self.before.check(task, number, len(prompt.context))
            if (task, number) in prompts_done:
                continue
            start = perf_counter()
            known = self.reused.of(task, number, len(prompt.context)) if self.reused else {}
            measured = self._measure(prompt, known)
            self._check_finite(task, measured)
            facts = [entry.line() for entry in measured]
            told = asked(prompt) if self.config.write else {}
            self.results.append({"task": task, "number": number, "tokens": len(prompt.context), **told, "facts": facts})
            prompts_done.add((task, number))
            self.report(Progress(len(prompts_done), total, task, perf_counter() - start))
        self.report(Phase("recording which tokens are evicted"))
        for document in draw_documents(self.config, self.tokenizer):
            if (document.text, document.number) not in documents_done:
                self._check()
                self.results.append(drops_of(self.evaluator, document))

    def rows(self, run: str) -> list[Row]:
        """All rows that the lines come to."""
        lines = self.results.lines()
        report = EvalReport(self.config, [line for line in lines if "task" in line], run=run, about=self.about)
        compared = before_rows(report, self.before)
        return [*report.rows(), *compared, *kind_rows(report, [line for line in lines if "document" in line])]

    def _check_finite(self, task: str, measured: list[Measurements]) -> None:
        """Raise RunFailed for scores that are not finite, which no mean and no interval could hold."""
        for entry in measured:
            if not isfinite(entry.log_likelihood):
                cure = "check its weights" if self.config.host.dtype == "float32" else "use --set host.dtype=float32"
                raise RunFailed(f"the scores of {self.host} on {task} under {entry.variant} are not finite; {cure}")

    def _measure(self, prompt: Prompt, known: Mapping[Key, Measurements]) -> list[Measurements]:
        """What every policy did with a prompt; presses at the sizes that memx's policies had."""
        measured = self.evaluator.evaluate(prompt, known)
        return measured + measure_third_party(self.config, self.model, self.tokenizer, prompt, measured, known)

    def _head_shares(self, namms: Sequence[Namm], path: Path) -> HeadShares:
        """The table that all policies share: the config's, a NAMM's of this model, or one measured now or before.

        It is written to the run's folder. Its prompts are of the split train, which is not evaluated.
        """
        config = self.config
        text = self.model.config.get_text_config(decoder=True)
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        shape = [heads] * text.num_hidden_layers
        own = [shares for namm in namms if (shares := namm.rule.shares) is not None and shares.heads == shape]
        if path.exists():
            return read_shares(path)
        if config.head_shares is not None:
            shares = read_shares(Path(config.head_shares))
        elif self.reused is not None and (self.reused.folder / HEAD_SHARES).is_file():
            shares = read_shares(self.reused.folder / HEAD_SHARES)
        elif own:
            shares = own[0]
        else:
            contexts = self._training_contexts()
            self.report(Phase(f"measuring head shares on {len(contexts)} training prompts"))
            kept = {float(allowed(budget, config.length) / config.length) for budget in config.shares}
            budgets = sorted(kept - {1.0} or {0.5})
            shares = kvzip_shares(self.model, self.tokenizer, contexts, budgets, lambda done: self._check())
        write_shares(path, shares)
        return shares

    def _thresholds(self, namms: Sequence[Namm], path: Path) -> Thresholds:
        """The thresholds with which NAMMs keep each budget while they read; written to the run's folder."""
        contexts = [] if path.exists() else self._training_contexts()
        if contexts:
            self.report(Phase(f"calibrating thresholds on {len(contexts)} training prompts"))
        return online_thresholds(self.model, self.config, namms, contexts, path, self._check)

    def _training_contexts(self) -> list[torch.Tensor]:
        """Contexts of the split train, of the trained families, or of all if none is known."""
        config = self.config
        draws = Draws("train", config.share_prompts, config.length, config.seed, config.source)
        tasks = [task for task in config.tasks if task in config.trained] or config.tasks
        return [prompt.context for task in tasks for prompt in task_prompts(task, self.tokenizer, draws)]

    def _prompts(self) -> Iterator[tuple[str, int, Prompt]]:
        """Prompts of all families, taking turns, so that a stopped run has seen some of each."""
        config = self.config
        draws = Draws(config.split, config.prompts, config.length, config.seed, config.source, config.answer_tokens)
        try:
            made = {task: task_prompts(task, self.tokenizer, draws) for task in config.tasks}
        except DoesNotFit:
            check_fit(unfit(config.tasks, self.tokenizer, draws), config.length, "--length")
            raise
        for number in range(config.prompts):
            for task, prompts in made.items():
                prompt = prompts[number]
                yield task, number, question_first(prompt) if config.question == "before" else prompt

    def _check(self) -> None:
        if self.stop.asked:
            raise Interrupted("finished prompts are saved")


def load_source(source: NammSource) -> Namm:
    """Load a NAMM of an evaluation. Raises MemxError if it is not the one that the config was made with."""
    place = find_namm(source.folder)
    namm, described = read_files(place)
    settings = settings_checksum(parse_json((place / DESCRIPTION).read_bytes()))
    recorded = source.settings != ""  # older versions did not
    changed = recorded and (settings, namm.rule.budget) != (source.settings, source.budget)
    if described.sha256 != source.sha256 or changed:
        raise MemxError(
            f"the NAMM {source.folder} changed since this evaluation started",
            hint=f"run memx eval-namm {source.folder} to start a new evaluation",
        )
    return namm
