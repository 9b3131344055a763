"""`memx eval`: what models know by the field's own questions: NQ-open, TriviaQA and the tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..output.console import examples, note, print_json
from .options import Device, Force, Json, Resume, Runs, check_resume

if TYPE_CHECKING:
    from ...experiments.config.question_answering import QaConfig

_EPILOG = examples(
    "memx eval results/runs/my-run --file nq=NQ-open.dev.jsonl --train nq=NQ-open.train.jsonl --task nq",
    "memx eval meta-llama/Llama-3.1-8B --device cuda --dtype bfloat16 --batch 64",
    "memx eval results/runs/my-run --harness piqa,openbookqa,hellaswag,mmlu",
)


# one alias for each option, so that the command itself fits a screen
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Runs of memx train, folders of checkpoints, smollm2, or hub names."),
]
Task = Annotated[
    list[str] | None,
    typer.Option(help="nq or tqa; may be repeated. Both if not said, none if --harness is and this is not."),
]
File = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PATH", help="File of questions as published, or a folder of it; else the hub."),
]
Train = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PATH", help="Training questions, for examples; looked for in --file's folder."),
]
Shots = Annotated[
    int | None, typer.Option(min=0, help="Examples before each question; 5 if not said, of lm-eval the task's own.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Questions of each set, drawn by the seed; all.")]
Batch = Annotated[int, typer.Option(min=1, help="Questions at once.")]
AnswerTokens = Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws examples.")]
Dtype = Annotated[Literal["float32", "bfloat16"], typer.Option(help="float32 or bfloat16.")]
Harness = Annotated[
    str | None, typer.Option(metavar="TASK,TASK", help="Tasks of lm-eval, by its own rules (extra eval).")
]
HarnessTasks = Annotated[
    Path | None, typer.Option(help="Folder of more tasks for lm-eval, YAML files.", metavar="FOLDER")
]
NameOption = Annotated[str | None, typer.Option(help="First part of the run folder's name; eval-MODEL.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be asked; load no weights.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("eval", epilog=_EPILOG)(evaluate)


def evaluate(
    models: Models,
    task: Task = None,
    file: File = None,
    train: Train = None,
    shots: Shots = None,
    limit: Limit = None,
    batch: Batch = 32,
    answer_tokens: AnswerTokens = 32,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    harness: Harness = None,
    harness_tasks: HarnessTasks = None,
    name: NameOption = None,
    runs: Runs = Path("results/runs"),
    dry_run: DryRun = False,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Ask models the questions that the field reports: closed-book NQ-open and TriviaQA, few-shot, and lm-eval's tasks.

    Exact match and F1 of greedy answers, and the NLL of the gold ones, each with its interval; every answer is kept
    in the run folder. A stopped evaluation goes on with --resume.
    """
    from ...experiments.qa.sources import eval_configs

    check_resume(resume, force)
    configs = eval_configs(
        models,
        runs,
        tasks=task,
        questions=file or [],
        examples=train or [],
        harness=harness,
        harness_folder=harness_tasks,
        shots=shots,
        name=name,
        settings={
            "limit": limit,
            "answer_tokens": answer_tokens,
            "seed": seed,
            "device": device,
            "dtype": dtype,
        },
    )
    if dry_run:
        _dry_run(configs, runs, json)
        return
    _run(configs, runs, batch, resume, force, json)


def _run(configs: list[QaConfig], runs: Path, batch: int, resume: bool, force: bool, json: bool) -> None:
    from ...results.store.runs import RunStore
    from ..output.eval_summary import print_questions
    from ..output.progress import ProgressDisplay

    for config in configs:  # before anything heavy is imported
        RunStore(runs).check_free(config.folder, resume=resume, force=force)
    from ...experiments.qa.run import eval_model
    from ...experiments.runtime.options import Options

    found = []
    for config in configs:
        with ProgressDisplay([config.folder], quiet=json) as display:
            found.append(eval_model(config, Options(runs, resume, force), display.report, batch=batch))
    if json:
        print_json([row.model_dump() for rows in found for row in rows])
        return
    print_questions([row for rows in found for row in rows])
    for config in configs:
        note(f"answers are in {runs / config.folder}")
    if any(config.tasks for config in configs):
        note(f"next: memx plot --what qa {' '.join(str(runs / config.folder) for config in configs)} --published")


def _dry_run(configs: list[QaConfig], runs: Path, json: bool) -> None:
    from ...experiments.qa.cost import eval_cost
    from ..output.eval_summary import print_plan

    costs = [eval_cost(config, runs) for config in configs]
    print_json(costs) if json else print_plan(costs)
