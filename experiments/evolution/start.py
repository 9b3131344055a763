"""What an evolution starts or resumes from: config, prompts and run folder -> a calibrated NAMM and a CMA-ES state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError
from ...namm.calibration import calibrate
from ...namm.evolution.files import RECORD, load_evolution, save_evolution
from ...namm.evolution.search import Evolution, State
from ...namm.policies.base import Rule
from ...namm.policies.features.spectrum import FEATURES, HOP
from ...namm.policies.files import load, save
from ...namm.policies.network import Namm
from ...namm.policies.scorer import BAM_PARAMETERS, count, layer_sizes
from ...results.store.runs import Run
from ..config.evolution import EvolveConfig, NammConfig
from ..eviction.tasks import Prompts
from ..runtime.events import Note, Phase, Report

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_namm(config: NammConfig, name: str = "namm") -> Namm:
    """The NAMM of a config with zero parameters: under a threshold of 0 the full cache, under a budget the newest."""
    rule = Rule(
        config.threshold,
        config.budget if config.rule == "budget" else None,
        config.grouping,
        config.allocation,
        first=config.first,
        newest=config.newest,
    )
    size = BAM_PARAMETERS if config.scorer == "bam" else count(layer_sizes((FEATURES, *config.hidden, 1)))
    kind: dict[str, Any] = dict(scorer=config.scorer, hidden=config.hidden, strict=config.strict)
    return Namm(torch.zeros(size), rule=rule, every=config.every, name=name, **kind)


def calibrated_namm(
    config: EvolveConfig, model: PreTrainedModel, host: str, prompts: Prompts, folder: Path, report: Report
) -> Namm:
    """The NAMM with the mean and variance of its features on this model: measured once a run, then read from folder."""
    if folder.is_dir():
        return load(folder)
    report(Phase("calibrating feature normalisation"))
    texts = [prompt.context for pool in prompts.train.values() for prompt in pool[: config.calibration]]
    shortest = min(len(text) for text in texts)
    every = min(config.namm.every, max(shortest // HOP, 1) * HOP)  # shorter contexts: once, at their end
    mean, variance = calibrate(model, texts, every=every)
    namm = replace(empty_namm(config.namm, config.name), mean=mean.cpu(), variance=variance.cpu())
    save(namm, folder, host=host)
    return namm


def first_state(config: EvolveConfig, run: Run, parameters: int, report: Report) -> State:
    """The state that was saved in the run folder, with metrics to match, or the first of a new evolution, saved."""
    folder = run.folder / "state"
    if (folder / RECORD).is_file():
        evolution = load_evolution(folder)
        _check_settings(evolution, config, parameters, folder)
        run.rewind_metrics(evolution.generation, len(evolution.validations))
        _fill_metrics(run, evolution)
        report(Note(f"resumed after generation {evolution.generation}"))
        return evolution.state()
    run.rewind_metrics(-1)
    settings = config.evolution
    evolution = Evolution(
        parameters,
        population=settings.population,
        sigma=settings.sigma,
        seed=config.seed,
        covariance=settings.covariance,
    )
    save_evolution(evolution, folder)
    return evolution.state()


def _check_settings(evolution: Evolution, config: EvolveConfig, parameters: int, folder: Path) -> None:
    """Raise MemxError naming the first setting of a saved evolution that is not the config's."""
    settings, own = config.evolution, evolution.settings
    wanted = {
        "parameters": (own.n, parameters),
        "population": (own.population, settings.population),
        "sigma": (own.sigma, settings.sigma),
        "covariance": (own.covariance, settings.covariance),
        "seed": (own.seed, config.seed),
    }
    for name, (there, here) in wanted.items():
        if there != here:
            raise MemxError(
                f"the state in {folder} is another evolution's: its {name} is {there}, not {here}",
                hint="copy the run's own state again, or use --force to start over",
            )


def _fill_metrics(run: Run, evolution: Evolution) -> None:
    """Write the lines that a kill cost in older versions of memx, which saved a state before its metrics."""
    lines = run.metrics()
    done = max((line["step"] for line in lines if "best" in line), default=0)
    for generation in evolution.history[done:]:
        figures = {name: getattr(generation, name) for name in ("best", "mean", "std", "sigma")}
        run.append_metrics(step=generation.number + 1, stage=generation.stage, **figures)
    known = sum("validation" in line for line in lines)
    for validation in evolution.validations[known:]:
        run.append_metrics(step=validation.generation, stage=validation.stage, validation=validation.fitness)
