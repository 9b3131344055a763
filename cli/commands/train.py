"""`memx train`: train a model, or every point of a sweep, then evaluate it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..output.console import examples, note, print_json
from ..output.train_plan import plan_of
from ..parsing.spellings import Command
from .options import (
    MEMORY_LAYERS,
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
)
from .other_hosts.train import other_kind, train_other
from .train_options import (
    Columns,
    Corpus,
    DeviceOption,
    DryRun,
    Facts,
    InitFrom,
    Jobs,
    Match,
    Seed,
    Slots,
    Source,
    Steps,
    Template,
    Tokenizer,
    TrainWhat,
    Variants,
)

if TYPE_CHECKING:
    from ...experiments.config.training import TrainConfig
    from ...experiments.planning.mesh import Plan
    from ...experiments.runtime.options import Options

_EPILOG = examples(
    "memx train facts --dry-run",
    "memx train facts --facts my.csv --slots 4096",
    "memx train questions --facts trivia.csv --name trivia",
    "memx train --init-from smollm2 --facts my.csv --train memory",
    "torchrun --nproc-per-node 8 --no-python memx train 1.3b --corpus my-texts/",
)


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
    template: Template = None,
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
    from ...experiments.runtime.options import Options

    if config is not None and source is not None:
        raise MemxError("--config and the argument both name what to train", hint="give one of them")
    plan_asked = plan_of(dry_run, gpus, gpu, utilization, tokens)
    if facts and corpus:
        raise MemxError("--facts and --corpus exclude each other", hint="train on facts or on text")
    for option, value in (("--columns", columns), ("--template", template)):
        if value and corpus:
            raise MemxError(f"{option} is for --facts; a corpus has none", hint="set a source's field instead")
    check_resume(resume, force)
    preset = config or source or ("retrofit" if init_from else "facts")
    if other_kind(preset):
        refused = {"--facts": facts, "--corpus": corpus, "--columns": columns, "--tokenizer": tokenizer}
        refused |= {"--template": template}
        refused |= {"--init-from": init_from, "--slots": slots, "--train": train_what, "--variant": variants}
        refused |= {"--template": template, "--match": match, "--gpus": gpus, "--gpu": gpu}
        refused |= {"--utilization": utilization, "--tokens": tokens}
        flags = {"training.steps": steps, "name": name, "training.device": device}
        given, where = given_values(flags, assignments), Options(runs, resume, force, jobs)
        return train_other(preset, given, seed or [], where, refused=refused, dry_run=dry_run, json=json)
    flags = {"training.steps": steps, "data.facts": facts, "name": name}
    flags |= one_or_sweep("memory.slots", slots) | one_or_sweep("seed", seed)
    flags |= {"training.device": device, "match.by": match, "finetune.source": init_from, "finetune.train": train_what}
    flags |= {"corpus.sources": corpus, "corpus.tokenizer": tokenizer}
    flags |= {"data.columns": columns and parse_columns(columns), "data.template": template}
    given = given_values(flags, assignments)
    resolved = load_config(preset, given, variants)
    if tokenizer is not None and not any(point.corpus.sources for point in points(resolved)):
        raise MemxError("--tokenizer needs --corpus: facts train their own tokenizer", hint="leave out --tokenizer")
    from ...experiments.distributed.process_group import launched

    if any(point.finetune.source is not None for point in points(resolved)):
        from ...experiments.models.start import without_fixed  # brings torch

        resolved, notes = without_fixed(resolved, dict(given))
        for line in notes if launched().is_first else ():
            note(f"note: {line}")
    if dry_run:
        return _dry_run(resolved, Options(runs, resume), json, plan_asked) if launched().is_first else None
    _train(resolved, Options(runs, resume, force, jobs), json)


def _train(config: TrainConfig, options: Options, json: bool) -> None:
    from ...experiments.config.points import plan
    from ...experiments.distributed.process_group import launched
    from ...experiments.training.sweep import train_points
    from ..output.progress import ProgressDisplay
    from ..output.train_summary import plot_command, print_training

    build = None
    if any(point.config.eviction.active for point in plan(config)):
        from ...experiments.cache_aware.build import build_trainer as build
    points, rank = plan(config), launched().rank
    with ProgressDisplay([point.name for point in points], quiet=json, rank=rank, clock=True) as display:
        rows = train_points(points, options, display.report_of, build)
    if rank:
        return
    if json:
        print_json([row.model_dump() for found in rows.values() for row in found])
        return
    print_training(rows, options.runs)
    note(f"runs are in {options.runs}; next: {plot_command(rows, options.runs)}")


def _dry_run(config: TrainConfig, options: Options, json: bool, plan_asked: Plan | None) -> None:
    from ...experiments.config.points import plan
    from ...experiments.planning.existing_files import check_files
    from ...experiments.planning.sweep_cost import costs_of
    from ...experiments.training.lengthen import starts_of
    from ..output.train_plan import print_plans
    from ..output.train_summary import print_costs

    points = plan(config)
    check_files(points)
    starts = starts_of(points, options.runs) if options.resume else []
    costs = costs_of(points, options.runs, plan_asked)
    if json:
        print_json([cost.as_json() for cost in costs])
        return
    print_costs(costs)
    for line in dict.fromkeys([*(line for cost in costs for line in cost.notes), *starts]):
        note(line)
    if plan_asked is not None:
        print_plans(costs)
