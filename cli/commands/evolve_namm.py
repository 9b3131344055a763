"""`memx evolve-namm`: evolve a NAMM with CMA-ES on a host, and say what it is worth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json
from .options import check_resume, given

_EPILOG = examples(
    "memx evolve-namm namm-tiny",
    "memx evolve-namm --generations 20 --set tasks.length=512",
    "torchrun --nproc-per-node 8 --no-python memx evolve-namm namm-llama-3-8b --resume",
)
DEFAULT = "namm-smollm2"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("evolve-namm", epilog=_EPILOG)(evolve_namm)


def evolve_namm(
    source: Annotated[
        str | None, typer.Argument(metavar="[PRESET|FILE.yaml]", help=f"What to evolve; {DEFAULT} if not said.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="A YAML config, in place of the argument.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="smollm2, gemma3-270m, a folder or a hub name of a model.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Keep the best, this share of all tokens, in place of a threshold.")
    ] = None,
    generations: Annotated[int | None, typer.Option(help="Generations of each stage.")] = None,
    population: Annotated[int | None, typer.Option(help="Candidates of a generation.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draws prompts and candidates.")] = None,
    name: Annotated[str | None, typer.Option(help="First part of the run folder's name.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the config; may be repeated."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all run folders.")] = Path("results/runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sizes and costs; load and evolve nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run, keep a finished one.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start an existing run anew; what it held is lost.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON on stdout.")] = False,
) -> None:
    """Evolve a NAMM, a small network that decides what a model's KV cache keeps, on long-context tasks.

    All candidates of a generation are judged in one batch, on contexts that are read once. The mean that validated best
    is written to RUN/namm, for memx evict --namm. A stopped run goes on with --resume, exactly. Under torchrun
    processes share out the prompts and batches of a generation, and find the same as one.
    """
    from ...errors import MemxError
    from ...experiments.config.base import run_name
    from ...experiments.config.loading import load_evolution_config, parse_assignment
    from ...experiments.distributed.process_group import launched
    from ...results.store.runs import RunStore

    if config is not None and source is not None:
        raise MemxError("--config and an argument both say what to evolve", hint="give one of them")
    check_resume(resume, force)
    flags = {"namm.budget": budget, "evolution.generations": generations, "evolution.population": population}
    flags |= {"seed": seed, "name": name, "host.name": host}
    chosen = given(flags)
    chosen += [("namm.rule", "budget")] * (budget is not None)
    if host is not None:
        chosen += [("host.preset", None), ("host.shape", None)]
    assigned = [*chosen, *map(parse_assignment, assignments or [])]
    resolved = load_evolution_config(config or source or DEFAULT, assigned)
    from ..output.evolve_summary import print_evolution, print_evolution_cost
    from ..output.progress import ProgressDisplay

    world = launched()
    if dry_run:
        if not world.is_first:
            return
        from ...experiments.evolution.cost import evolution_cost

        cost = evolution_cost(resolved, runs)
        print_json(asdict(cost)) if json else print_evolution_cost(cost)
        return
    if world.size == 1:  # before anything heavy is imported
        RunStore(runs).check_free(run_name(resolved), resume=resume, force=force)
    from ...experiments.eviction.base_model import host_source
    from ...experiments.evolution.run import evolve_namm as run_evolution
    from ...experiments.runtime.options import Options

    with ProgressDisplay([run_name(resolved)], quiet=json or not world.is_first) as display:
        rows = run_evolution(resolved, Options(runs, resume, force), display.report)
    if not world.is_first:
        return
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_evolution(rows)
    made = runs / run_name(resolved) / "namm"
    at = host_source(resolved.host, runs)
    note(f"the NAMM is in {made}; next: memx evict --file long.txt --host {at} --namm {made} --compare")
