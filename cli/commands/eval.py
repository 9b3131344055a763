"""`memx eval`: questions for models: NQ-open, TriviaQA, one's own, and the tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..output.console import examples, note, print_json
from ..parsing.spellings import Command
from .completion import MODELS, POLICIES, complete_of, metric_names, namm_names
from .options import (
    ADVANCED,
    DATA,
    EVALUATE,
    EVICTION,
    RUN_FOLDER,
    Allocation,
    Device,
    Force,
    Json,
    Resume,
    Runs,
    allocation_option,
    check_resume,
    option,
)

if TYPE_CHECKING:
    from ...experiments.config.question_answering import QaConfig

_EPILOG = examples(
    "memx eval results/runs/RUN",
    "memx eval meta-llama/Llama-3.1-8B --device cuda --dtype bfloat16 --batch 64",
    "memx eval results/runs/RUN --task nq --file nq=nq_open",
    "memx eval results/runs/RUN --file mine=questions.jsonl --metric f1",
    "memx eval results/runs/RUN --harness piqa,openbookqa,hellaswag,mmlu",
    "memx eval smollm2 --harness piqa --policy snapkv --interval 64",
)


# one alias for each option, so that the command itself fits a screen
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="Models: run folders, checkpoint folders, smollm2 or hub names.",
        autocompletion=complete_of(MODELS[:1]),
    ),
]
Task = Annotated[
    list[str] | None,
    option(
        metavar="NAME",
        help="Question set: nq (NQ-open), tqa (TriviaQA) or the name of a --file. Repeatable.",
        default="own files, else nq and tqa, or none with --harness",
        complete=complete_of(("nq", "tqa")),
    ),
]
Shots = Annotated[
    int | None,
    option(
        min=0,
        max=10_000,
        metavar="N",
        help="Few-shot examples before each question.",
        default="5, of own files with --train; lm-eval's own for its tasks",
    ),
]
Limit = Annotated[
    int | None, option(min=1, metavar="N", help="Evaluate a random sample of N questions per set.", default="all")
]
Chat = Annotated[bool, option("--chat", help="Ask through the tokenizer's chat template, as instruct models expect.")]
DryRun = Annotated[bool, option("--dry-run", help="Print the questions and costs; load no weights.")]
File = Annotated[
    list[str] | None,
    option(
        metavar="NAME=PATH",
        help="Questions of nq, tqa or your own NAME: JSON, CSV, Parquet or a spreadsheet. Repeatable.",
        default="download from the hub",
        panel=DATA,
    ),
]
Train = Annotated[
    list[str] | None,
    option(
        metavar="NAME=PATH",
        help="Training questions to take examples from. Repeatable.",
        default="found next to --file",
        panel=DATA,
    ),
]
Metric = Annotated[
    list[str] | None,
    option(
        metavar="[NAME=]METRIC",
        help="Metric of own files, or of one of them: exact_match, f1, rouge and others. Repeatable.",
        default="exact_match and f1",
        panel=DATA,
        complete=complete_of(metric_names),
    ),
]
SkipBadRows = Annotated[
    bool, option("--skip-bad-rows", help="Skip rows that are no answered questions, with a note.", panel=DATA)
]
Harness = Annotated[
    str | None, option(metavar="TASK,...", help="Tasks of lm-eval, run by its own rules (extra eval).", panel=DATA)
]
HarnessTasks = Annotated[
    Path | None,
    option(metavar="FOLDER", help="Folder of your lm-eval tasks; the Python code that they name is run.", panel=DATA),
]
Policy = Annotated[
    list[str] | None,
    option(
        metavar="POLICY",
        help="Evict tokens by this policy, or FILE.py:CLASS; memx policies list shows all. Repeatable.",
        default="keep all tokens",
        panel=EVICTION,
        complete=complete_of(POLICIES),
    ),
]
Namm = Annotated[
    list[str] | None,
    option(
        metavar="FOLDER|NAME",
        help=f"Evict tokens by a NAMM: {', '.join([*namm_names(), 'a folder, run or hub name'])}. Repeatable.",
        panel=EVICTION,
        complete=complete_of(namm_names),
    ),
]
Budget = Annotated[
    list[float] | None,
    option(
        metavar="SHARE|TOKENS",
        help="Share of all tokens that each eviction keeps, or tokens per head. Repeatable.",
        default="0.5, or the NAMM's",
        panel=EVICTION,
    ),
]
Interval = Annotated[
    int | None,
    option(
        "--interval",
        metavar="TOKENS",
        help="Tokens between evictions, a multiple of 16.",
        default="512, or the NAMM's",
        panel=EVICTION,
    ),
]
AllocationOption = Annotated[Allocation | None, allocation_option(EVICTION)]
Shares = Annotated[
    Path | None,
    option(
        metavar="FILE",
        help="Table of head shares (JSON), for --allocation table.",
        default="the NAMM's",
        panel=EVICTION,
    ),
]
NameOption = Annotated[
    str | None,
    option(metavar="NAME", help="First part of the run folder's name.", default="eval-MODEL", panel=RUN_FOLDER),
]
Batch = Annotated[int, option(min=1, max=2**20, metavar="N", help="Batch size in questions.", panel=ADVANCED)]
Dtype = Annotated[Literal["float32", "bfloat16"], option(help="Data type of the model.", panel=ADVANCED)]
AnswerTokens = Annotated[
    int, option(min=1, max=10_000, metavar="N", help="Maximum tokens of an answer.", panel=ADVANCED)
]
Seed = Annotated[
    int, option(min=0, max=2**31 - 1, metavar="N", help="Random seed for examples and --limit.", panel=ADVANCED)
]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("eval", cls=Command, epilog=_EPILOG, rich_help_panel=EVALUATE)(evaluate)


def evaluate(
    models: Models,
    task: Task = None,
    shots: Shots = None,
    limit: Limit = None,
    chat: Chat = False,
    dry_run: DryRun = False,
    resume: Resume = False,
    file: File = None,
    train: Train = None,
    metric: Metric = None,
    skip_bad_rows: SkipBadRows = False,
    harness: Harness = None,
    harness_tasks: HarnessTasks = None,
    policy: Policy = None,
    namm: Namm = None,
    budget: Budget = None,
    interval: Interval = None,
    allocation: AllocationOption = None,
    shares: Shares = None,
    name: NameOption = None,
    runs: Runs = Path("results/runs"),
    force: Force = False,
    json: Json = False,
    batch: Batch = 32,
    device: Device = "auto",
    dtype: Dtype = "float32",
    answer_tokens: AnswerTokens = 32,
    seed: Seed = 0,
) -> None:
    """Evaluate models on questions: NQ-open, TriviaQA, your own files and lm-eval tasks.

    Scores are exact match and F1 of greedy answers, or the --metric of your own files, and the negative log-likelihood
    of the correct ones, with 95% intervals. Where your questions have a context, it is read first. Every answer is
    saved in the run folder. Run again with --resume to continue a stopped evaluation.
    """
    from ...experiments.qa.eviction import evictions
    from ...experiments.qa.sources import eval_configs

    check_resume(resume, force)
    heads = {"allocation": allocation and allocation.value, "shares": shares and str(shares.resolve())}
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
        metrics=metric or [],
        evictions=evictions(policy or [], namm or [], budget or [], every=interval, **heads),
        settings={
            "limit": limit,
            "skip_bad_rows": skip_bad_rows,
            "answer_tokens": answer_tokens,
            "seed": seed,
            "device": device,
            "dtype": dtype,
            "chat": chat,
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
    from ...experiments.config.question_answering import TASKS
    from ...experiments.qa.eviction import check_policies
    from ...experiments.qa.run import eval_model
    from ...experiments.runtime.options import Options

    check_policies(configs)
    evaluated = []
    for config in configs:
        with ProgressDisplay([config.folder], quiet=json) as display:
            evaluated.append(eval_model(config, Options(runs, resume, force), display.report, batch=batch))
    if json:
        print_json([row.model_dump() for rows in evaluated for row in rows])
        return
    trained = {config.folder: Path(config.run).name for config in configs if config.run}
    print_questions([row for rows in evaluated for row in rows], trained)
    for config in configs:
        note(f"answers are in {runs / config.folder}")
    one_each = len({config.model for config in configs}) == len(configs)  # the picture is of models, not of policies
    if one_each and (sets := {task.name for config in configs for task in config.tasks}):
        published = " --published" if sets & {*TASKS} else ""
        note(f"next: memx plot qa {' '.join(str(runs / config.folder) for config in configs)}{published}")


def _dry_run(configs: list[QaConfig], runs: Path, json: bool) -> None:
    from ...experiments.qa.cost import eval_cost
    from ..output.eval_summary import print_plan

    costs = [eval_cost(config, runs, note) for config in configs]
    print_json(costs) if json else print_plan(costs)
