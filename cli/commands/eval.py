"""`memx eval`: what models know by the field's own questions: NQ-open, TriviaQA and the tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..output.console import examples, note, print_json
from .options import check_resume

if TYPE_CHECKING:
    from ...experiments.config.question_answering import QaConfig

_EPILOG = examples(
    "memx eval results/runs/my-run --file nq=NQ-open.dev.jsonl --train nq=NQ-open.train.jsonl --task nq",
    "memx eval meta-llama/Llama-3.1-8B --device cuda --dtype bfloat16 --batch 64",
    "memx eval results/runs/my-run --harness piqa,openbookqa,hellaswag,mmlu",
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("eval", epilog=_EPILOG)(evaluate)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Runs of memx train, folders of checkpoints, smollm2, or hub names."),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(help="nq or tqa; may be repeated. Both if not said, none if --harness is and this is not."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="File of questions as published, or a folder of it; else the hub."),
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Training questions, for examples; looked for in --file's folder."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples before each question; 5 if not said, of lm-eval the task's own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each set, drawn by the seed; all.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 32,
    answer_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Draws examples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="float32 or bfloat16.")] = "float32",
    harness: Annotated[
        str | None, typer.Option(metavar="TASK,TASK", help="Tasks of lm-eval, by its own rules (extra eval).")
    ] = None,
    harness_tasks: Annotated[
        Path | None, typer.Option(help="Folder of more tasks for lm-eval, YAML files.", metavar="FOLDER")
    ] = None,
    name: Annotated[str | None, typer.Option(help="First part of the run folder's name; eval-MODEL.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all run folders.")] = Path("results/runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked; load no weights.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run, keep a finished one.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start an existing run anew; what it held is lost.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON on stdout.")] = False,
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
        asked=file or [],
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
