"""`memx evolve-namm`: evolve a NAMM with CMA-ES on a host, and say what it is worth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..output.console import examples, note, print_json
from .options import Assignments, Config, Force, Json, Name, Resume, Runs, check_resume, given_values

if TYPE_CHECKING:
    from ...experiments.config.evolution import EvolveConfig
    from ...experiments.runtime.options import Options

_EPILOG = examples(
    "memx evolve-namm namm-tiny",
    "memx evolve-namm --generations 20 --set tasks.length=512",
    "torchrun --nproc-per-node 8 --no-python memx evolve-namm namm-llama-3-8b --resume",
)
DEFAULT = "namm-smollm2"


# one alias for each option, so that the command itself fits a screen
Source = Annotated[
    str | None, typer.Argument(metavar="[PRESET|FILE.yaml]", help=f"What to evolve; {DEFAULT} if not said.")
]
Host = Annotated[str | None, typer.Option(help="smollm2, gemma3-270m, a folder or a hub name of a model.")]
Budget = Annotated[float | None, typer.Option(help="Keep the best, this share of all tokens, in place of a threshold.")]
Generations = Annotated[int | None, typer.Option(help="Generations of each stage.")]
Population = Annotated[int | None, typer.Option(help="Candidates of a generation.")]
Seed = Annotated[int | None, typer.Option(help="Draws prompts and candidates.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print sizes and costs; load and evolve nothing.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("evolve-namm", epilog=_EPILOG)(evolve_namm)


def evolve_namm(
    source: Source = None,
    config: Config = None,
    host: Host = None,
    budget: Budget = None,
    generations: Generations = None,
    population: Population = None,
    seed: Seed = None,
    name: Name = None,
    assignments: Assignments = None,
    runs: Runs = Path("results/runs"),
    dry_run: DryRun = False,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Evolve a NAMM, a small network that decides what a model's KV cache keeps, on long-context tasks.

    All candidates of a generation are judged in one batch, on contexts that are read once. The mean that validated best
    is written to RUN/namm, for memx evict --namm. A stopped run goes on with --resume, exactly. Under torchrun
    processes share out the prompts and batches of a generation, and find the same as one.
    """
    from ...errors import MemxError
    from ...experiments.config.base import run_name
    from ...experiments.config.loading import load_evolution_config
    from ...experiments.distributed.process_group import launched
    from ...experiments.runtime.options import Options
    from ...results.store.runs import RunStore

    if config is not None and source is not None:
        raise MemxError("--config and an argument both say what to evolve", hint="give one of them")
    check_resume(resume, force)
    flags = {"namm.budget": budget, "evolution.generations": generations, "evolution.population": population}
    flags |= {"seed": seed, "name": name, "namm.rule": None if budget is None else "budget"}
    resolved = load_evolution_config(config or source or DEFAULT, given_values(flags, assignments, host))
    world = launched()
    if dry_run:
        if world.is_first:
            _dry_run(resolved, runs, json)
        return
    if world.size == 1:  # before anything heavy is imported
        RunStore(runs).check_free(run_name(resolved), resume=resume, force=force)
    _evolve(resolved, Options(runs, resume, force), json, is_first=world.is_first)


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
    made = options.runs / run_name(config) / "namm"
    at = host_source(config.host, options.runs)
    note(f"the NAMM is in {made}; next: memx evict --file long.txt --host {at} --namm {made} --compare")
