"""`memx train`: train a model, or every point of a sweep, and ask it what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..output.console import examples, note, print_json
from ..output.train_plan import plan_of
from .options import Assignments, Config, Json, Name, Runs, check_resume, given_values

if TYPE_CHECKING:
    from ...experiments.config.training import TrainConfig
    from ...experiments.planning.mesh import Plan
    from ...experiments.runtime.options import Options

_EPILOG = examples(
    "memx train facts --dry-run",
    "memx train --init-from smollm2 --facts my.csv --train memory",
    "torchrun --nproc-per-node 8 --no-python memx train 373m --variant memory+ --corpus my-texts/ --resume",
)


# one alias for each option, so that the command itself fits a screen
Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[PRESET|FILE.yaml]", help="What to train; facts if not said, or retrofit with --init-from."
    ),
]
Slots = Annotated[int | None, typer.Option(help="Memory slots, a square; 0 is the dense model.")]
Steps = Annotated[int | None, typer.Option(help="Training steps.")]
Seed = Annotated[int | None, typer.Option(help="Draws initial weights and the order of documents.")]
Facts = Annotated[
    list[str] | None,
    typer.Option(help="Tables or files of facts (.csv, .jsonl, .parquet); may be repeated."),
]
Corpus = Annotated[
    list[str] | None,
    typer.Option(
        help="Text to train on in place of facts: .txt, .jsonl or .parquet files, folders, prepared ones, or a hub "
        "data set; may be repeated."
    ),
]
Tokenizer = Annotated[str | None, typer.Option(help="Of a corpus: a hub name or a folder; one is trained if not said.")]
Variants = Annotated[
    list[str] | None, typer.Option("--variant", help="A variant of the preset alone; may be repeated.")
]
Match = Annotated[str | None, typer.Option(help="Make all points cost the same: flops, parameters or none.")]
InitFrom = Annotated[
    str | None, typer.Option(help="Start from smollm2, a folder or a hub name of a Llama-family model.")
]
TrainWhat = Annotated[str | None, typer.Option("--train", help="Of a pretrained model: all, memory, slots or lora.")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Jobs = Annotated[int, typer.Option(min=1, help="Points of a sweep trained at once.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print sizes, costs and folders; train nothing.")]
Gpus = Annotated[int | None, typer.Option(min=1, help="Dry run: plan for so many GPUs.")]
Gpu = Annotated[str | None, typer.Option(help="Dry run: of which kind, h100, h200 or a100.")]
Utilization = Annotated[
    float | None, typer.Option(min=0.01, max=1.0, help="Dry run: share of the peak FLOPs; 0.4 is assumed.")
]
Tokens = Annotated[str | None, typer.Option(help="Dry run: plan for so many, as 1T or 100B.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with stopped runs, keep finished ones.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Start existing runs anew; what they held is lost.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("train", epilog=_EPILOG)(train)


def train(
    source: Source = None,
    config: Config = None,
    slots: Slots = None,
    steps: Steps = None,
    seed: Seed = None,
    facts: Facts = None,
    corpus: Corpus = None,
    tokenizer: Tokenizer = None,
    variants: Variants = None,
    match: Match = None,
    init_from: InitFrom = None,
    train_what: TrainWhat = None,
    name: Name = None,
    device: DeviceOption = None,
    assignments: Assignments = None,
    runs: Runs = Path("results/runs"),
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    gpus: Gpus = None,
    gpu: Gpu = None,
    utilization: Utilization = None,
    tokens: Tokens = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
    json: Json = False,
) -> None:
    """Train a Llama-style model on facts, dense or with a memory, PEER or MoE, and ask it closed-book questions.

    A preset may be a sweep, or have variants: each point gets a run folder of its own. With --init-from a pretrained
    model gets a memory and learns the facts. A stopped run goes on with --resume, exactly.
    """
    from ...errors import MemxError
    from ...experiments.config.loading import load_config

    if config is not None and source is not None:
        raise MemxError("--config and an argument both say what to train", hint="give one of them")
    plan_asked = plan_of(dry_run, gpus, gpu, utilization, tokens)
    if facts and corpus:
        raise MemxError("--facts and --corpus exclude each other", hint="a corpus is trained on in place of facts")
    check_resume(resume, force)
    flags = {"memory.slots": slots, "training.steps": steps, "seed": seed, "data.facts": facts, "name": name}
    flags |= {"training.device": device, "match.by": match, "finetune.source": init_from, "finetune.train": train_what}
    flags |= {"corpus.sources": corpus, "corpus.tokenizer": tokenizer}
    default = "retrofit" if init_from else "facts"
    resolved = load_config(config or source or default, given_values(flags, assignments), variants)
    from ...experiments.distributed.process_group import launched
    from ...experiments.runtime.options import Options

    if dry_run:
        if launched().is_first:
            _dry_run(resolved, runs, json, plan_asked)
        return
    _train(resolved, Options(runs, resume, force, jobs), json)


def _train(config: TrainConfig, options: Options, json: bool) -> None:
    from ...experiments.config.points import plan
    from ...experiments.distributed.process_group import launched
    from ...experiments.training.sweep import train_points
    from ..output.progress import ProgressDisplay
    from ..output.train_summary import print_training

    points, rank = plan(config), launched().rank
    with ProgressDisplay([point.name for point in points], quiet=json, rank=rank, clock=True) as display:
        rows = train_points(points, options, display.report_of)
    if rank:
        return
    if json:
        print_json([row.model_dump() for found in rows.values() for row in found])
        return
    print_training(rows, options.runs)
    what = " --what loss" if config.corpus.sources else ""
    note(f"runs are in {options.runs}; next: memx plot{what} --runs {options.runs}")


def _dry_run(config: TrainConfig, runs: Path, json: bool, plan_asked: Plan | None) -> None:
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
