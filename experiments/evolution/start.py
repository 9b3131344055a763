"""What an evolution begins or resumes with: config, prompts and run folder -> a first NAMM and a CMA-ES state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import MemxError
from ...namm.calibration import calibrate
from ...namm.evolution.files import RECORD, load_evolution, save_evolution
from ...namm.evolution.history import State, Vector
from ...namm.evolution.search import Evolution
from ...namm.policies.base import Rule
from ...namm.policies.features.registry import PUBLISHED
from ...namm.policies.features.spectrum import HOP
from ...namm.policies.head_table import HeadTable
from ...namm.policies.network import Namm
from ...namm.policies.shares import HeadShares
from ...namm.saved.card import AND
from ...namm.saved.files import load, save
from ...results.store.runs import Run
from ..config.eviction.evolution import EvolveConfig, NammConfig
from ..eviction.head_shares import kvzip_shares
from ..eviction.tasks import Prompts
from ..runtime.events import Note, Phase, Report
from ..runtime.signals import Interrupted, StopRequest
from .fit import explained, fit, fit_examples
from .hosts import BaseModel, HostPrompts, pooled

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def empty_namm(
    config: NammConfig,
    name: str = "namm",
    described: PretrainedConfig | None = None,
    shares: HeadShares | None = None,
) -> Namm:
    """The NAMM of a config with zero parameters: under a threshold of 0 the full cache, under a budget the newest.

    Args:
        config: The section of a config.
        name: Its name.
        described: The base model's config, for a NAMM with numbers for each of its heads.
        shares: The table of head shares, with the allocation table. None: heads have equal shares until it is measured.

    Raises:
        MemxError: A feature is unknown.
    """
    rule = Rule(
        config.threshold,
        config.budget if config.rule == "budget" else None,
        config.grouping,
        "equal" if config.allocation == "table" and shares is None else config.allocation,
        shares,
        first=config.first,
        newest=config.newest,
    )
    kind: dict[str, Any] = dict(scorer=config.scorer, hidden=config.hidden, strict=config.strict)
    table = None
    if config.head_bias or config.head_embedding:
        assert described is not None, "a head table is for one base model"
        sizes: Any = described
        heads = getattr(sizes, "num_key_value_heads", None) or sizes.num_attention_heads
        table = HeadTable(sizes.num_hidden_layers, heads, config.head_bias, config.head_embedding)
    return Namm(rule=rule, every=config.every, name=name, features=config.features, table=table, **kind)


def starting_namm(
    config: EvolveConfig,
    bases: Sequence[BaseModel],
    prompts: HostPrompts,
    folder: Path,
    report: Report,
    stop: StopRequest,
) -> Namm:
    """The NAMM that an evolution starts from: made once a run, then read from its folder.

    Its features are normalised on the base models, and its parameters are the initial ones: zeros, random, or fitted to
    KVzip's scores. Raises Interrupted, with nothing made, if a stop is asked for while KVzip's scores are computed.
    """
    if folder.is_dir():
        return load(folder)
    report(Phase("calibrating feature normalisation"))
    moments = []
    for base, own in zip(bases, prompts.hosts, strict=True):
        texts = _contexts(own, config.calibration)
        every = max(min(len(text) for text in texts) // HOP, 1) * HOP  # of the shortest: once, at its end
        if config.namm.features == PUBLISHED:
            every = min(config.namm.every, every)
        moments.append(calibrate(base.model, texts, every=every, features=config.namm.features))
    mean, variance = pooled(moments)
    described: Any = bases[0].model.config
    shares = None
    if config.namm.allocation == "table":
        shares = _head_shares(config, bases[0], prompts.hosts[0], report, stop)
    namm = empty_namm(config.namm, config.name, described.get_text_config(), shares)
    namm = replace(namm, mean=mean.cpu(), variance=variance.cpu())
    if config.evolution.start != "zeros":
        namm = replace(namm, parameters=random_parameters(namm, config.seed))
    if config.evolution.start == "fit":
        namm = replace(namm, parameters=_fitted(config, bases, namm, prompts, report, stop))
    save(namm, folder, host=joined_names(bases))
    return namm


def _head_shares(
    config: EvolveConfig, base: BaseModel, prompts: Prompts, report: Report, stop: StopRequest
) -> HeadShares:
    """The table of head shares, measured on the contexts that features are normalised on."""
    report(Phase("measuring head shares"))
    budgets = sorted({config.namm.budget, *config.fitness.budgets} - {1.0}) or [0.5]
    contexts = _contexts(prompts, config.calibration)
    return kvzip_shares(base.model, base.tokenizer, contexts, budgets, lambda done: _check(stop))


def random_parameters(namm: Namm, seed: int) -> torch.Tensor:
    """Random parameters [n] of a scorer, as torch draws those of linear layers; zeros for those of each head.

    Weights and biases of a layer of k inputs are uniform in [-1/sqrt(k), 1/sqrt(k)] (He et al. 2015, arXiv 1502.01852,
    with torch's constants).
    """
    draw = np.random.default_rng(seed)
    parts = [draw.uniform(-(inputs**-0.5), inputs**-0.5, (inputs + 1) * outputs) for inputs, outputs in namm.sizes]
    network = np.concatenate(parts)
    rest = np.zeros(len(namm.parameters) - len(network))
    return torch.from_numpy(np.concatenate([network, rest])).float()


def _fitted(
    config: EvolveConfig,
    bases: Sequence[BaseModel],
    namm: Namm,
    prompts: HostPrompts,
    report: Report,
    stop: StopRequest,
) -> torch.Tensor:
    """The parameters [n] fitted on the contexts of training prompts."""
    report(Phase("fitting the scorer"))
    examples, count = [], 0
    for base, own in zip(bases, prompts.hosts, strict=True):
        contexts = _contexts(own, config.fit.prompts)
        examples += fit_examples(base.model, base.tokenizer, namm, contexts, lambda: _check(stop))
        count += len(contexts)
    parameters = fit(namm, examples, namm.parameters, config.fit, config.seed)
    share = explained(namm, parameters, examples)
    report(Note(f"the fit explains {share:.0%} of the variance of KVzip's log scores on {count} contexts"))
    return parameters


def _check(stop: StopRequest) -> None:
    if stop.asked:
        raise Interrupted("stopped before the first generation; nothing is lost but the start of the evolution")


def _contexts(prompts: Prompts, count: int) -> list[torch.Tensor]:
    """The contexts of the first training prompts of each family."""
    return [prompt.context for pool in prompts.train.values() for prompt in pool[:count]]


def joined_names(bases: Sequence[BaseModel]) -> str:
    """What NAMM files and rows call several base models together."""
    return AND.join(base.name for base in bases)


def first_state(config: EvolveConfig, run: Run, start: Vector, report: Report) -> State:
    """The state that was saved in the run folder, with metrics to match, or the first of a new evolution, saved.

    start: the coordinates [d] of the initial parameters.
    """
    folder = run.folder / "state"
    if (folder / RECORD).is_file():
        evolution = load_evolution(folder)
        _check_settings(evolution, config, len(start), folder)
        run.rewind_metrics(evolution.generation, len(evolution.validations))
        _fill_metrics(run, evolution)
        report(Note(f"resumed after generation {evolution.generation}"))
        return evolution.state()
    run.rewind_metrics(-1)
    settings = config.evolution
    evolution = Evolution(
        len(start),
        mean=start,
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
