"""`memx eval-namm`: evolved NAMMs against other eviction policies, at the same cache sizes."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..output.console import examples, note, print_json
from ..parsing.spellings import Command
from .completion import POLICIES, complete_of, namm_names
from .options import (
    ADVANCED,
    DATA,
    NAMM_AND_EVICTION,
    Allocation,
    Assignments,
    Config,
    Force,
    Json,
    Name,
    PretrainedModel,
    ProtectFirst,
    ProtectNewest,
    Resume,
    Runs,
    check_resume,
    given_values,
    option,
)

if TYPE_CHECKING:
    from ...experiments.config.eviction.policy_eval import EvalConfig
    from ...experiments.runtime.options import Options

_EPILOG = examples(
    "memx eval-namm results/runs/RUN",
    "memx eval-namm results/runs/RUN --task facts --task prose_next --prompts 8",
    "memx eval-namm results/runs/RUN --model gemma3-270m --policy snapkv",
    "memx eval-namm results/runs/RUN --allocation equal --allocation table",
    "memx eval-namm results/runs/RUN --mode online --generate --dry-run",
)
_RUN = "the run's"


class Mode(StrEnum):
    """When a policy evicts."""

    post_hoc = "post_hoc"
    online = "online"


class Question(StrEnum):
    """When the question is read."""

    after = "after"
    before = "before"


class Split(StrEnum):
    """Which prompts are evaluated."""

    train = "train"
    validation = "validation"
    test = "test"


# one alias for each option, so that the command itself fits a screen
Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN|FOLDER|NAME|FILE.yaml",
        help=f"Evolution runs, folders of saved NAMMs, {', '.join([*namm_names(), 'hub names, or a config.yaml'])}.",
        autocompletion=complete_of(namm_names),
    ),
]
Policy = Annotated[
    list[str] | None,
    option(
        metavar="POLICY",
        help="Policy to compare with; the full cache is always included. Repeatable.",
        default="all but kvzip",
        complete=complete_of((*POLICIES[1:], "kvzip")),
    ),
]
Budget = Annotated[
    list[float] | None,
    option(
        metavar="SHARE", help="Cache budget: share of all tokens kept. Repeatable.", default="0.75, 0.5, 0.25 and 0.125"
    ),
]
AllocationOption = Annotated[
    list[Allocation] | None,
    option(
        "--allocation",
        help="How heads share a budget; each policy is evaluated with every allocation. Repeatable.",
        default="equal, and the NAMM's own",
    ),
]
Shares = Annotated[
    Path | None,
    option(
        metavar="FILE",
        help="Table of head shares (JSON), for --allocation table.",
        default="the NAMM's, or measured with KVzip's scores on training prompts",
        panel=ADVANCED,
    ),
]
ThirdParty = Annotated[
    bool, option("--third-party", help="Also evaluate kvpress's policies (extra peers; post_hoc mode only).")
]
Generate = Annotated[
    bool, option("--generate", help="Also generate answers, and score them by each task's own metric.")
]
ModeOption = Annotated[
    Mode | None,
    option(
        help="Evict once after the context (post_hoc) or while reading it (online).", default="the run's, or post_hoc"
    ),
]
QuestionOption = Annotated[
    Question | None,
    option(
        "--question",
        help="Read the question after eviction, or before, with the context, so that policies see it.",
        default="after",
    ),
]
DryRun = Annotated[bool, option("--dry-run", help="Print tasks, prompts and costs; load nothing.")]
Task = Annotated[
    list[str] | None,
    option(metavar="TASK", help="Task family. Repeatable.", default="the run's and all held-out families", panel=DATA),
]
Length = Annotated[int | None, option(metavar="TOKENS", help="Maximum prompt length.", default=_RUN, panel=DATA)]
Prompts = Annotated[int | None, option(metavar="N", help="Prompts per task family.", default="16", panel=DATA)]
SplitOption = Annotated[Split | None, option("--split", help="Prompts to use.", default="test", panel=DATA)]
Interval = Annotated[
    int | None,
    option(
        "--interval",
        metavar="TOKENS",
        help="Mode online: tokens between evictions, a multiple of 16.",
        default="the NAMM's",
        panel=ADVANCED,
    ),
]
Reuse = Annotated[
    Path | None,
    option(
        metavar="RUN",
        help="Take measurements of the same prompts from this finished evaluation; measure only what it lacks.",
        default="none",
        panel=ADVANCED,
    ),
]
Seed = Annotated[int | None, option(metavar="N", help="Random seed for the prompts.", default="0", panel=ADVANCED)]
Threads = Annotated[int | None, option(metavar="N", help="Number of CPU threads.", default="all cores", panel=ADVANCED)]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("eval-namm", cls=Command, epilog=_EPILOG, rich_help_panel=NAMM_AND_EVICTION)(eval_namm)


def eval_namm(
    folders: Folders = None,
    model: PretrainedModel = None,
    policy: Policy = None,
    budget: Budget = None,
    allocation: AllocationOption = None,
    protect_first: ProtectFirst = None,
    protect_newest: ProtectNewest = None,
    third_party: ThirdParty = False,
    generate: Generate = False,
    mode: ModeOption = None,
    question: QuestionOption = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    task: Task = None,
    length: Length = None,
    prompts: Prompts = None,
    split: SplitOption = None,
    name: Name = None,
    runs: Runs = Path("results/runs"),
    force: Force = False,
    json: Json = False,
    interval: Interval = None,
    shares: Shares = None,
    reuse: Reuse = None,
    seed: Seed = None,
    threads: Threads = None,
    assignments: Assignments = None,
    config: Config = None,
) -> None:
    """Compare evolved NAMMs with the full cache and other eviction policies, at equal cache sizes.

    Task families that the NAMM was evolved on are evaluated, and held-out ones. Scores are the likelihood of the
    correct answer and how often greedy decoding gives it. With --model, a NAMM is evaluated unchanged on another base
    model. Run again with --resume to continue a stopped evaluation.
    """
    from ...errors import MemxError
    from ...experiments.config.loading import load_eval_config
    from ...experiments.policy_eval.sources import eval_tree
    from ...experiments.runtime.options import Options

    if config is None and folders and folders[0].suffix in (".yaml", ".yml"):
        config, folders = str(folders[0]), folders[1:]
    if config is not None and folders:
        raise MemxError("--config and RUN both name what to evaluate", hint="give one of them")
    check_resume(resume, force)
    flags: dict[str, Any] = {"budgets": budget, "policies": policy, "tasks": task}
    flags |= {"length": length, "prompts": prompts, "split": split and split.value, "mode": mode and mode.value}
    flags |= {
        "question": question and question.value,
        "every": interval,
        "seed": seed,
        "name": name,
        "host.threads": threads,
    }
    flags |= {"allocations": allocation and [one.value for one in allocation], "head_shares": shares and str(shares)}
    flags |= {"reuse": reuse and str(reuse), "protect_first": protect_first, "protect_newest": protect_newest}
    flags |= {"peers": third_party or None, "write": generate or None}
    given = given_values(flags, assignments, model)
    resolved = load_eval_config(config or eval_tree(folders or [], dict(given)), given)
    chosen = config is not None or "tasks" in dict(given)
    if dry_run:
        _dry_run(resolved, runs, json, chosen=chosen)
        return
    _evaluate(resolved, Options(runs, resume, force), json, chosen=chosen)


def _evaluate(config: EvalConfig, options: Options, json: bool, *, chosen: bool) -> None:
    from ...experiments.config.base import run_name
    from ...results.store.runs import RunStore

    RunStore(options.runs).check_free(run_name(config), resume=options.resume, force=options.force)
    # imports torch, so only after what can be refused without it
    config = _fitting(config, options.runs, json, chosen=chosen)
    name = run_name(config)
    RunStore(options.runs).check_free(name, resume=options.resume, force=options.force)
    from ...experiments.policy_eval.run import eval_namm as run_evaluation
    from ..output.eval_namm_summary import print_evaluation
    from ..output.progress import ProgressDisplay

    with ProgressDisplay([name], quiet=json) as display:
        rows = run_evaluation(config, options, display.report)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_evaluation(rows)
    note(f"next: memx plot namm {options.runs / name}")


def _fitting(config: EvalConfig, runs: Path, json: bool, *, chosen: bool) -> EvalConfig:
    """The evaluation with the families that fit in its length."""
    from ...experiments.policy_eval.fitting import fitting

    return fitting(config, runs, (lambda text: None) if json else note, chosen=chosen)


def _dry_run(config: EvalConfig, runs: Path, json: bool, *, chosen: bool) -> None:
    from ...experiments.policy_eval.cost import evaluation_cost
    from ..output.eval_namm_summary import print_evaluation_cost

    config = _fitting(config, runs, json, chosen=chosen)
    cost = evaluation_cost(config, runs)
    print_json(asdict(cost)) if json else print_evaluation_cost(cost)
