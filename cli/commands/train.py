"""`memx train`: train a model, or every point of a sweep, and ask it what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json
from ..output.train_plan import plan_of
from .options import check_resume, given

_EPILOG = examples(
    "memx train facts --dry-run",
    "memx train --init-from smollm2 --facts my.csv --train memory",
    "torchrun --nproc-per-node 8 --no-python memx train 373m --variant memory+ --corpus my-texts/ --resume",
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("train", epilog=_EPILOG)(train)


def train(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[PRESET|FILE.yaml]", help="What to train; facts if not said, or retrofit with --init-from."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="A YAML config, in place of the argument.")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Memory slots, a square; 0 is the dense model.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draws initial weights and the order of documents.")] = None,
    facts: Annotated[
        list[str] | None,
        typer.Option(help="Tables or files of facts (.csv, .jsonl, .parquet); may be repeated."),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="Text to train on in place of facts: .txt, .jsonl or .parquet files, folders, prepared ones, or a hub "
            "data set; may be repeated."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Of a corpus: a hub name or a folder; one is trained if not said.")
    ] = None,
    variants: Annotated[
        list[str] | None, typer.Option("--variant", help="A variant of the preset alone; may be repeated.")
    ] = None,
    match: Annotated[str | None, typer.Option(help="Make all points cost the same: flops, parameters or none.")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Start from smollm2, a folder or a hub name of a Llama-family model.")
    ] = None,
    train_what: Annotated[
        str | None, typer.Option("--train", help="Of a pretrained model: all, memory, slots or lora.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="First part of the run folder's name.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the config; may be repeated."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all run folders.")] = Path("results/runs"),
    jobs: Annotated[int, typer.Option(min=1, help="Points of a sweep trained at once.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sizes, costs and folders; train nothing.")] = False,
    gpus: Annotated[int | None, typer.Option(min=1, help="Dry run: plan for so many GPUs.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Dry run: of which kind, h100, h200 or a100.")] = None,
    utilization: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Dry run: share of the peak FLOPs; 0.4 is assumed.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Dry run: plan for so many, as 1T or 100B.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with stopped runs, keep finished ones.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start existing runs anew; what they held is lost.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON on stdout.")] = False,
) -> None:
    """Train a Llama-style model on facts, dense or with a memory, PEER or MoE, and ask it closed-book questions.

    A preset may be a sweep, or have variants: each point gets a run folder of its own. With --init-from a pretrained
    model gets a memory and learns the facts. A stopped run goes on with --resume, exactly.
    """
    from ...errors import MemxError
    from ...experiments.config.loading import load_config, parse_assignment

    if config is not None and source is not None:
        raise MemxError("--config and an argument both say what to train", hint="give one of them")
    plan_asked = plan_of(dry_run, gpus, gpu, utilization, tokens)
    if facts and corpus:
        raise MemxError("--facts and --corpus exclude each other", hint="a corpus is trained on in place of facts")
    check_resume(resume, force)
    flags = {"memory.slots": slots, "training.steps": steps, "seed": seed, "data.facts": facts, "name": name}
    flags |= {"training.device": device, "match.by": match, "finetune.source": init_from, "finetune.train": train_what}
    flags |= {"corpus.sources": corpus, "corpus.tokenizer": tokenizer}
    chosen = given(flags)
    resolved = load_config(
        (source or ("retrofit" if init_from else "facts")) if config is None else config,
        [*chosen, *map(parse_assignment, assignments or [])],
        variants,
    )
    from ...experiments.distributed.process_group import launched

    if dry_run:
        if launched().is_first:
            _dry_run(resolved, runs, json, plan_asked)
        return
    from ...experiments.config.points import plan
    from ...experiments.runtime.options import Options
    from ...experiments.training.sweep import train_points
    from ..output.progress import ProgressDisplay
    from ..output.train_summary import print_training

    points, rank = plan(resolved), launched().rank
    with ProgressDisplay([point.name for point in points], quiet=json, rank=rank, clock=True) as display:
        rows = train_points(points, Options(runs, resume, force, jobs), display.report_of)
    if rank:
        return
    if json:
        print_json([row.model_dump() for found in rows.values() for row in found])
        return
    print_training(rows, runs)
    what = " --what loss" if resolved.corpus.sources else ""
    note(f"runs are in {runs}; next: memx plot{what} --runs {runs}")


def _dry_run(config, runs: Path, json: bool, plan_asked) -> None:
    from ...experiments.config.points import plan
    from ...experiments.planning.estimate import cost_of
    from ..output.train_plan import print_plans
    from ..output.train_summary import print_costs

    costs = [cost_of(point, runs, plan_asked) for point in plan(config)]
    if json:
        print_json([cost.as_json() for cost in costs])
        return
    print_costs(costs)
    if plan_asked is not None:
        print_plans(costs)
