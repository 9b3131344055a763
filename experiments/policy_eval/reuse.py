"""Measurements of an earlier evaluation of the same prompts: taken over, or compared with those of a trained model.

So NAMMs can be added to an evaluation without measuring the other policies again, and a trained model is compared with
what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np

from ...errors import MemxError
from ...results.namm.rows import FULL, THRESHOLD, split_allocation
from ...results.store.json_lines import JsonLines
from ...results.store.rows import Row
from ...results.store.run_info import read_config
from ...results.store.runs import Run
from ..config.eviction.policy_eval import EvalConfig
from ..config.loading import load_eval_config
from ..config.presets import command_of
from ..eviction.head_shares import HEAD_SHARES, read_shares
from ..eviction.measurements import CacheSize, Measurements
from .rows import EvalReport, Key, Sets

_RESULTS = "prompts.jsonl"
# what decides the prompts, and what a policy does with them
_ALIKE = ("length", "split", "source", "mode", "question", "seed")


@dataclass(frozen=True)
class Reused:
    """What an earlier evaluation measured.

    Attributes:
        folder: Its run folder.
        lines: By family and number of the prompt, its tokens and its measurements.
        keys: The policies and sizes that were measured on all prompts.
    """

    folder: Path
    lines: Mapping[tuple[str, int], tuple[int, Mapping[Key, Measurements]]]
    keys: frozenset[Key]

    def of(self, task: str, number: int, tokens: int) -> Mapping[Key, Measurements]:
        """The measurements of one prompt. Raises MemxError if it was another prompt.

        Args:
            task: The family.
            number: The prompt's number in it.
            tokens: The tokens of its context.
        """
        before, known = self.lines[task, number]
        if before != tokens:
            raise MemxError(
                f"prompt {number + 1} of {task} has {tokens:,} tokens here, and {before:,} in {self.folder}",
                hint="that evaluation was made with another tokenizer or version of memx; leave out --reuse",
            )
        return {key: known[key] for key in self.keys}


def read_reused(config: EvalConfig) -> Reused | None:
    """Read what an evaluation takes over.

    Args:
        config: The evaluation.

    Returns:
        The measurements, those of NAMMs under the labels that they have now; None if the config names no evaluation.

    Raises:
        MemxError: The folder is no finished evaluation, or one of other prompts, another model or other settings.
    """
    if config.reuse is None:
        return None
    folder = Path(config.reuse)
    earlier = _config(folder)
    _check_alike(config, earlier, folder)
    labels = _labels(config, earlier)
    lines: dict[tuple[str, int], tuple[int, Mapping[Key, Measurements]]] = {}
    for line in JsonLines(folder / _RESULTS).lines():
        if line.get("task") in config.tasks and line["number"] < config.prompts:
            known = [_named_now(Measurements.from_line(fact), labels) for fact in line["facts"]]
            by_key = {Key(one.variant, one.at): one for one in known if one is not None and one.at.size == "budget"}
            lines[line["task"], line["number"]] = line["tokens"], by_key
    for task in config.tasks:
        for number in range(config.prompts):
            if (task, number) not in lines:
                raise MemxError(
                    f"{folder / _RESULTS} has no line for prompt {number + 1} of {task}",
                    hint="copy the run folder again, or leave out --reuse",
                )
    keys = reduce(frozenset.intersection, (frozenset(known) for _, known in lines.values()))
    return Reused(folder, lines, keys)


def _config(folder: Path) -> EvalConfig:
    """The config of a finished evaluation."""
    hint = "give the run folder of a finished memx eval-namm"
    if not (folder / "config.yaml").is_file() or not (folder / _RESULTS).is_file():
        raise MemxError(f"{folder} is not a run of memx eval-namm", hint=hint)
    if command_of(read_config(folder)) != "eval-namm":
        raise MemxError(f"{folder} is not a run of memx eval-namm", hint=hint)
    if (status := Run(folder).status) != "finished":
        raise MemxError(f"the evaluation {folder} is {status}, not finished", hint=hint)
    return load_eval_config(str(folder / "config.yaml"))


def _check_alike(config: EvalConfig, earlier: EvalConfig, folder: Path) -> None:
    """Raise MemxError naming what makes the measurements of an evaluation useless for another."""
    hint = "evaluate with the same settings, or leave out --reuse"
    names = ("name", "preset", "dtype", "rope")
    pairs = [(f"host.{name}", getattr(config.host, name), getattr(earlier.host, name)) for name in names]
    pairs += [(name, getattr(config, name), getattr(earlier, name)) for name in _ALIKE]
    pairs += [(name, getattr(config, name), _protected(earlier, name)) for name in ("protect_first", "protect_newest")]
    pairs += [("answer_tokens", config.answer_tokens, earlier.answer_tokens)] if config.write else []
    pairs += [("every", config.every, earlier.every)] if config.mode == "online" else []
    for name, here, there in pairs:
        if here != there:
            raise MemxError(f"{folder} has {name} {there}, and this evaluation {here}", hint=hint)
    if missing := [task for task in config.tasks if task not in earlier.tasks]:
        raise MemxError(f"{folder} has no prompts of {', '.join(missing)}", hint=hint)
    for name in {*config.policies} & {*earlier.policies}:
        if config.policy_sources.get(name) != earlier.policy_sources.get(name):
            raise MemxError(f"the file of policy {name} has changed since {folder}", hint="leave out --reuse")
    if config.prompts > earlier.prompts:
        raise MemxError(
            f"{folder} has {earlier.prompts} prompts per family, and this evaluation {config.prompts}",
            hint=f"use --prompts {earlier.prompts}, or leave out --reuse",
        )
    measured = folder / HEAD_SHARES
    both = "table" in config.all_allocations and measured.is_file()
    if both and config.head_shares is not None and read_shares(Path(config.head_shares)) != read_shares(measured):
        raise MemxError(f"{folder} has another table of head shares", hint="leave out --shares, or --reuse")
    if config.write and not earlier.write:
        raise MemxError(f"{folder} has no generated answers", hint="leave out --generate or --reuse")


def _protected(earlier: EvalConfig, name: str) -> int | None:
    """How many tokens an earlier evaluation protected; older versions wrote 0 for "as a NAMM says"."""
    old = all(not namm.settings for namm in earlier.namms)
    told: int | None = getattr(earlier, name)
    return told or None if old else told


def _labels(config: EvalConfig, earlier: EvalConfig) -> dict[str, str | None]:
    """From the label that each NAMM had to the one that it has now; None if it is not evaluated.

    Neither is it taken over where an older version did not record which of several NAMMs with the same numbers it was.
    """
    found: dict[str, str | None] = {}
    for before in earlier.namms:
        alike = [namm for namm in config.namms if namm.sha256 == before.sha256]
        # with a threshold the line `namm` is another one
        alike = [namm for namm in alike if (namm.budget is None) == (before.budget is None)]
        same = [namm.label for namm in alike if before.settings in ("", namm.settings)]
        found[before.label] = same[0] if len(same) == 1 else None
    return found


def _named_now(measured: Measurements, labels: Mapping[str, str | None]) -> Measurements | None:
    """A measurement under the name that its policy has now; None for a NAMM that is not evaluated, or its threshold."""
    named, suffix = split_allocation(measured.variant)
    if named not in labels:
        return measured
    label = labels[named]
    # a threshold for reading is calibrated anew
    return None if label is None or suffix == THRESHOLD else replace(measured, variant=label + suffix)


@dataclass(frozen=True)
class Before:
    """What a model did before it was trained.

    Attributes:
        folder: The run folder of that evaluation.
        tokens: The tokens of each prompt's context, by family and number.
        sets: The figures.
    """

    folder: Path
    tokens: Mapping[tuple[str, int], int]
    sets: Sets

    def check(self, task: str, number: int, tokens: int) -> None:
        """Raise MemxError if a prompt, of so many tokens in its context, was another one there."""
        if (then := self.tokens.get((task, number))) != tokens:
            raise MemxError(
                f"prompt {number + 1} of {task} has {tokens:,} tokens here, and {then or 'none'} in {self.folder}",
                hint="that evaluation was made with another tokenizer or version of memx; leave out --before",
            )


def read_before(config: EvalConfig) -> Before | None:
    """Read what the model did before it was trained.

    Args:
        config: The evaluation of the trained model.

    Returns:
        What it measured on the same prompts; None if the config names no evaluation to compare with.

    Raises:
        MemxError: The folder is no finished evaluation, or one of other prompts or settings.
    """
    if config.before is None:
        return None
    folder, hint = Path(config.before), "evaluate both models with the same settings"
    earlier = _config(folder)
    pairs = [(name, getattr(config, name), getattr(earlier, name)) for name in _ALIKE]
    pairs += [(name, getattr(config, name), _protected(earlier, name)) for name in ("protect_first", "protect_newest")]
    pairs += [("every", config.every, earlier.every)] if config.mode == "online" else []
    for name, here, there in pairs:
        if here != there:
            raise MemxError(f"{folder} has {name} {there}, and this evaluation {here}", hint=hint)
    labels, lines = _labels(config, earlier), []
    for line in JsonLines(folder / _RESULTS).lines():
        if line.get("task") in config.tasks and line["number"] < config.prompts:
            known = [_named_now(Measurements.from_line(fact), labels) for fact in line["facts"]]
            lines.append({**line, "facts": [one.line() for one in known if one is not None]})
    tokens = {(line["task"], line["number"]): line["tokens"] for line in lines}
    if missing := [task for task in config.tasks if any((task, n) not in tokens for n in range(config.prompts))]:
        count = f"{config.prompts} prompts" if config.prompts > 1 else "the prompt"
        raise MemxError(f"{folder} does not have {count} of {', '.join(missing)}", hint=hint)
    return Before(folder, tokens, Sets.of(config.model_copy(update={"write": False}), lines))


def before_rows(report: EvalReport, before: Before | None) -> Iterator[Row]:
    """The rows on what training changed, of every policy and size that both evaluations have, paired by prompt.

    Likelihoods are relative to the full cache of the model before, at most 1.
    """
    if before is None:
        return
    known = before.sets.figures
    full = known[Key(FULL, CacheSize(None))]["log_likelihood"]
    for key in [key for key in report.sets.figures if key in known]:
        own, was = report.sets.figures[key], known[key]
        now, then = (np.minimum(np.exp(one["log_likelihood"] - full), 1) for one in (own, was))
        share = np.minimum(np.exp(own["log_likelihood"] - report.full["log_likelihood"]), 1)  # of its own full cache
        figures = {
            "relative_to_before": now,
            "relative_before": then,
            "relative_over_before": now - then,
            "relative_log_likelihood_over_before": share - then,
            "log_likelihood_over_before": own["log_likelihood"] - was["log_likelihood"],
            "exact_over_before": 100 * (own["exact"] - was["exact"]),
        }
        for dataset, families in report.sets.datasets.items():
            for metric, values in figures.items():
                yield report.row(key, dataset, metric, report.bootstrap.mean(values, families))
