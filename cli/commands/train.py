"""`memx train`: train a model, or every point of a sweep, then evaluate it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..output.console import examples, note, print_json
from ..output.train_plan import plan_of
from .completion import MODELS, complete_of, complete_training_presets
from .options import (
    ADVANCED,
    DATA,
    MEMORY_LAYERS,
    MODEL,
    Assignments,
    Config,
    Force,
    Gpu,
    Gpus,
    Json,
    Name,
    Resume,
    Runs,
    Tokens,
    Utilization,
    check_resume,
    given_values,
    one_or_sweep,
    option,
)
from .spellings import Command

if TYPE_CHECKING:
    from ...experiments.config.training import TrainConfig
    from ...experiments.planning.mesh import Plan
    from ...experiments.runtime.options import Options

_EPILOG = examples(
    "memx train facts --dry-run",
    "memx train facts --facts my.csv --slots 4096",
    "memx train --init-from smollm2 --facts my.csv --train memory",
    "torchrun --nproc-per-node 8 --no-python memx train 1.3b --corpus my-texts/",
)
_PRESET = "the preset's"

# one alias for each option
Source = Annotated[
    str | None,
    typer.Argument(
        metavar="PRESET|FILE.yaml",
        help="Preset or config file to train; `memx presets` lists the presets.",
        show_default="facts, or retrofit with --init-from",
        autocompletion=complete_training_presets,
    ),
]
Facts = Annotated[
    list[str] | None,
    option(
        metavar="FILE|TABLE",
        help="Facts: a file (CSV, TSV, JSON, Parquet, Excel) or a built-in table. Repeatable.",
        default=_PRESET,
        complete=complete_of(("airports", "elements", "countries", "biographies")),
    ),
]
InitFrom = Annotated[
    str | None,
    option(
        metavar="MODEL",
        help="Start from a pretrained Llama-family model: smollm2, a folder or a hub name.",
        complete=complete_of(MODELS[:1]),
    ),
]
Slots = Annotated[
    list[int] | None,
    option(
        metavar="N",
        help="Memory slots, a square number; 0 trains the dense model. Repeat it to train one model each.",
        default=_PRESET,
    ),
]
Steps = Annotated[int | None, option(metavar="N", help="Training steps.", default=_PRESET)]
DryRun = Annotated[bool, option("--dry-run", help="Print sizes, costs and run folders; train nothing.")]
Corpus = Annotated[
    list[str] | None,
    option(
        metavar="PATH|DATASET",
        help="Text to train on instead of facts: files, a folder or a hub data set. Repeatable.",
        panel=DATA,
    ),
]
Columns = Annotated[
    str | None,
    option(
        metavar="subject=NAME,…",
        help="Columns of facts files with other names, e.g. subject=Name,object=Value.",
        default="subject, relation, object",
        panel=DATA,
    ),
]
Tokenizer = Annotated[
    str | None,
    option(
        metavar="NAME|FOLDER",
        help="Tokenizer for --corpus: a hub name or a folder.",
        default="trained on the corpus",
        panel=DATA,
    ),
]
TrainWhat = Annotated[
    str | None,
    option(
        "--train",
        metavar="all|memory|slots|lora",
        help="Which weights to train with --init-from.",
        default=_PRESET,
        panel=MODEL,
    ),
]
Variants = Annotated[
    list[str] | None,
    option(
        "--variant",
        metavar="NAME",
        help="Train only this variant of the preset. Repeatable.",
        default="all variants",
        panel=MODEL,
    ),
]
Match = Annotated[
    str | None,
    option(
        metavar="flops|parameters|none",
        help="Resize the models so that all have equal FLOPs or parameters.",
        default=_PRESET,
        panel=MODEL,
    ),
]
DeviceOption = Annotated[
    str | None, option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.", default="auto", panel=ADVANCED)
]
Seed = Annotated[
    list[int] | None,
    option(
        metavar="N",
        help="Random seed for weight initialization and data order. Repeat it to train one model each.",
        default="0",
        panel=ADVANCED,
    ),
]
Jobs = Annotated[
    int, option(min=1, metavar="N", help="Models of a sweep to train at once, one process each.", panel=ADVANCED)
]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("train", cls=Command, epilog=_EPILOG, rich_help_panel=MEMORY_LAYERS)(train)


def train(
    source: Source = None,
    facts: Facts = None,
    init_from: InitFrom = None,
    slots: Slots = None,
    steps: Steps = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    columns: Columns = None,
    corpus: Corpus = None,
    tokenizer: Tokenizer = None,
    train_what: TrainWhat = None,
    variants: Variants = None,
    match: Match = None,
    name: Name = None,
    runs: Runs = Path("results/runs"),
    force: Force = False,
    json: Json = False,
    gpus: Gpus = None,
    gpu: Gpu = None,
    utilization: Utilization = None,
    tokens: Tokens = None,
    assignments: Assignments = None,
    config: Config = None,
    device: DeviceOption = None,
    seed: Seed = None,
    jobs: Jobs = 1,
) -> None:
    """Train a Llama-style model with or without a memory layer, then evaluate it.

    Models learn facts and answer closed-book questions on them, or learn ordinary text with --corpus. With
    --init-from, a pretrained model gets a memory layer first. A preset with several variants or memory sizes trains one
    model each, in its own run folder. Run again with --resume to continue a stopped run; the result is the same.
    """
    from ...errors import MemxError
    from ...experiments.config.loading import load_config
    from ...experiments.config.points import points
    from ...experiments.config.scale import parse_columns

    if config is not None and source is not None:
        raise MemxError("--config and the argument both name what to train", hint="give one of them")
    plan_asked = plan_of(dry_run, gpus, gpu, utilization, tokens)
    if facts and corpus:
        raise MemxError("--facts and --corpus exclude each other", hint="train on facts or on text")
    if columns and corpus:
        raise MemxError("--columns is for --facts; a corpus has no such columns", hint="set a source's field instead")
    check_resume(resume, force)
    flags = {"training.steps": steps, "data.facts": facts, "name": name}
    flags |= one_or_sweep("memory.slots", slots) | one_or_sweep("seed", seed)
    flags |= {"training.device": device, "match.by": match, "finetune.source": init_from, "finetune.train": train_what}
    flags |= {"corpus.sources": corpus, "corpus.tokenizer": tokenizer}
    flags |= {"data.columns": columns and parse_columns(columns)}
    preset = config or source or ("retrofit" if init_from else "facts")
    given = given_values(flags, assignments)
    resolved = load_config(preset, given, variants)
    from ...experiments.distributed.process_group import launched
    from ...experiments.runtime.options import Options

    if any(point.finetune.source is not None for point in points(resolved)):
        from ...experiments.models.start import without_fixed  # brings torch

        resolved, notes = without_fixed(resolved, dict(given))
        for line in notes if launched().is_first else ():
            note(f"note: {line}")
    if dry_run:
        return _dry_run(resolved, runs, json, plan_asked) if launched().is_first else None
    _train(resolved, Options(runs, resume, force, jobs), json)


def _train(config: TrainConfig, options: Options, json: bool) -> None:
    from ...experiments.config.points import plan
    from ...experiments.distributed.process_group import launched
    from ...experiments.training.sweep import train_points
    from ..output.progress import ProgressDisplay
    from ..output.train_summary import plot_command, print_training

    points, rank = plan(config), launched().rank
    with ProgressDisplay([point.name for point in points], quiet=json, rank=rank, clock=True) as display:
        rows = train_points(points, options, display.report_of)
    if rank:
        return
    if json:
        print_json([row.model_dump() for found in rows.values() for row in found])
        return
    print_training(rows, options.runs)
    note(f"runs are in {options.runs}; next: {plot_command(rows, options.runs)}")


def _dry_run(config: TrainConfig, runs: Path, json: bool, plan_asked: Plan | None) -> None:
    from ...experiments.config.points import plan
    from ...experiments.planning.estimate import cost_of
    from ...experiments.planning.existing_files import check_files
    from ..output.train_plan import print_plans
    from ..output.train_summary import print_costs

    points = plan(config)
    check_files(points)
    costs = [cost_of(point, runs, plan_asked) for point in points]
    if json:
        print_json([cost.as_json() for cost in costs])
        return
    print_costs(costs)
    if plan_asked is not None:
        print_plans(costs)
