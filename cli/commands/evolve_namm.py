"""`memx evolve-namm`: evolve a NAMM with CMA-ES on a base model, and evaluate it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..output.console import examples, note, print_json
from ..parsing.spellings import Command
from .completion import MODELS, complete_evolution_presets, complete_of
from .options import (
    ADVANCED,
    NAMM_AND_EVICTION,
    Assignments,
    Config,
    Force,
    Json,
    Name,
    Resume,
    Runs,
    check_resume,
    given_values,
    option,
)
from .other_hosts.evolve import evolve_on_other_host

if TYPE_CHECKING:
    from ...experiments.config.eviction.evolution import EvolveConfig
    from ...experiments.runtime.options import Options

_EPILOG = examples(
    "memx evolve-namm namm-tiny",
    "memx evolve-namm --dry-run",
    "memx evolve-namm namm-tiny --generations 4 --population 8",
    "torchrun --nproc-per-node 8 --no-python memx evolve-namm namm-llama-3-8b",
)
DEFAULT = "namm-universal"
_PRESET = "the preset's"


# one alias for each option, so that the command itself fits a screen
Source = Annotated[
    str | None,
    typer.Argument(
        metavar="PRESET|FILE.yaml",
        help="Preset or config file to evolve; `memx presets` lists the presets.",
        show_default=DEFAULT,
        autocompletion=complete_evolution_presets,
    ),
]
Models = Annotated[
    list[str] | None,
    option(
        "--model",
        metavar="MODEL",
        help="Base model: smollm2, gemma3-270m, a folder or a hub name. Repeat it to evolve one NAMM on several.",
        default="the preset's model",
        complete=complete_of(MODELS),
    ),
]
Budget = Annotated[
    float | None,
    option(
        metavar="SHARE",
        help="Fixed cache budget: share of all tokens kept, instead of a score threshold or several budgets.",
        default=_PRESET,
    ),
]
Generations = Annotated[int | None, option(metavar="N", help="Generations of each stage.", default=_PRESET)]
Population = Annotated[int | None, option(metavar="N", help="Candidates per generation.", default=_PRESET)]
DryRun = Annotated[bool, option("--dry-run", help="Print sizes and costs; load and evolve nothing.")]
Host = Annotated[
    str | None,
    option(
        "--host",
        metavar="KIND:RUN",
        help="Evolve on decision:RUN or video:RUN, from the NAMM that the argument names.",
        default="the preset's model",
        panel=ADVANCED,
    ),
]
Seed = Annotated[
    int | None, option(metavar="N", help="Random seed for prompts and candidates.", default="0", panel=ADVANCED)
]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("evolve-namm", cls=Command, epilog=_EPILOG, rich_help_panel=NAMM_AND_EVICTION)(evolve_namm)


def evolve_namm(
    source: Source = None,
    models: Models = None,
    generations: Generations = None,
    population: Population = None,
    budget: Budget = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    name: Name = None,
    runs: Runs = Path("results/runs"),
    force: Force = False,
    json: Json = False,
    assignments: Assignments = None,
    config: Config = None,
    seed: Seed = None,
    host: Host = None,
) -> None:
    """Evolve a NAMM: a small network that decides which tokens the KV cache keeps.

    CMA-ES evolves it on long-context tasks with known answers. All candidates of a generation are evaluated in one
    batch. The parameters with the best validation score are written to RUN/namm, for memx evict --namm. Run again with
    --resume to continue a stopped run; the result is the same. Under torchrun, the processes share the work.
    """
    from ...errors import MemxError
    from ...experiments.config.base import run_name
    from ...experiments.config.loading import is_on_trained_host
    from ...experiments.config.presets import read_tree
    from ...experiments.distributed.process_group import launched
    from ...experiments.runtime.options import Options
    from ...results.store.runs import RunStore

    if config is not None and source is not None:
        raise MemxError("--config and the argument both name what to evolve", hint="give one of them")
    check_resume(resume, force)
    file = config or (source if source and source.endswith((".yaml", ".yml")) else None)
    if host is not None or (file is not None and is_on_trained_host(read_tree(file))):
        own = {"budgets": None if budget is None else (budget,), "generations": generations, "population": population}
        given = given_values(own | {"seed": seed, "name": name}, assignments)
        refused, where = {"--model": models, "a config": host and file}, Options(runs, resume, force)
        evolve_on_other_host(host, file, source, given, where, refused=refused, dry_run=dry_run, json=json)
        return
    flags: dict[str, Any] = {
        "namm.budget": budget,
        "evolution.generations": generations,
        "evolution.population": population,
    }
    flags |= {"seed": seed, "name": name, "namm.rule": None if budget is None else "budget"}
    flags |= {"fitness.budgets": None if budget is None else ()}  # that one alone
    resolved = _resolved(config or source or DEFAULT, flags, assignments, models or [])
    world = launched()
    if dry_run:
        if world.is_first:
            _dry_run(resolved, runs, json)
        return
    if world.size == 1:  # before anything heavy is imported
        RunStore(runs).check_free(run_name(resolved), resume=resume, force=force)
    _evolve(resolved, Options(runs, resume, force), json, is_first=world.is_first)


def _resolved(source: str, flags: dict[str, Any], assignments: list[str] | None, models: list[str]) -> EvolveConfig:
    """The config of an evolution; models stand in place of all that the source names.

    They have the device, dtype and threads of the first one. Rotary scaling is of one model, and not passed on.
    """
    from ...errors import MemxError
    from ...experiments.config.loading import load_evolution_config

    first, *others = models or [None]
    named = any(one.startswith("more_hosts") for one in assignments or [])
    if others and named:
        raise MemxError("--model is given several times, and more_hosts is set too", hint="use one of them")
    if models and not named:
        flags = {**flags, "more_hosts": ()}
    resolved = load_evolution_config(source, given_values(flags, assignments, first))
    if not others:
        return resolved
    host = resolved.host.model_dump(mode="json", include={"device", "dtype", "threads"})
    flags = {**flags, "more_hosts": tuple({**host, "name": other} for other in others)}
    return load_evolution_config(source, given_values(flags, assignments, first))


def _dry_run(config: EvolveConfig, runs: Path, json: bool) -> None:
    from ...experiments.evolution.cost import evolution_cost
    from ..output.evolve_summary import print_evolution_cost

    cost = evolution_cost(config, runs)
    print_json(asdict(cost)) if json else print_evolution_cost(cost)


def _evolve(config: EvolveConfig, options: Options, json: bool, *, is_first: bool) -> None:
    from ...experiments.config.base import run_name
    from ...experiments.eviction.base_model import host_source
    from ...experiments.evolution.run import evolve_namm as run_evolution
    from ..output.evolve_summary import print_evolution
    from ..output.progress import ProgressDisplay

    with ProgressDisplay([run_name(config)], quiet=json or not is_first) as display:
        rows = run_evolution(config, options, display.report)
    if not is_first:
        return
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_evolution(rows)
    run = options.runs / run_name(config)
    model = host_source(config.host, options.runs)
    next_command = f"memx evict --file prompt.txt --model {model} --namm {run / 'namm'}"
    if config.host.preset is not None:  # a small model that memx trained: few prompts of a user's own fit its context
        next_command = f"memx eval-namm {run} " + " ".join(f"--task {task}" for task in config.tasks.train)
    note(f"the NAMM is in {run / 'namm'}; next: {next_command}")
