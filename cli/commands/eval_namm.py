"""`memx eval-namm`: evolved NAMMs against other eviction policies, at the same cache sizes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..output.console import examples, note, print_json
from ..parsing.spellings import Command
from .eval_namm_options import (
    AllocationOption,
    Before,
    Budget,
    DryRun,
    Folders,
    Generate,
    Host,
    Interval,
    Length,
    ModeOption,
    Policy,
    Prompts,
    QuestionOption,
    Reuse,
    Seed,
    Shares,
    SplitOption,
    Task,
    ThirdParty,
    Threads,
)
from .options import (
    NAMM_AND_EVICTION,
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
)
from .other_hosts.evaluate import eval_on_host

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


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("eval-namm", cls=Command, epilog=_EPILOG, rich_help_panel=NAMM_AND_EVICTION)(eval_namm)


def eval_namm(
    folders: Folders = None,
    model: PretrainedModel = None,
    host: Host = None,
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
    before: Before = None,
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
    from ...experiments.config.loading import is_on_trained_host, load_eval_config
    from ...experiments.config.presets import read_tree
    from ...experiments.policy_eval.sources import eval_tree, with_policy_sources
    from ...experiments.runtime.options import Options

    if config is None and folders and folders[0].suffix in (".yaml", ".yml"):
        config, folders = str(folders[0]), folders[1:]
    if config is not None and folders:
        raise MemxError("--config and RUN both name what to evaluate", hint="give one of them")
    check_resume(resume, force)
    flags: dict[str, Any] = {"budgets": budget, "policies": policy, "every": interval, "seed": seed, "name": name}
    flags |= {"host.threads": threads, "allocations": allocation and [one.value for one in allocation]}
    flags |= {"protect_first": protect_first, "protect_newest": protect_newest}
    if host is not None or (config is not None and is_on_trained_host(read_tree(config))):
        refused = {"--model": model, "--third-party": third_party, "--generate": generate, "--question": question}
        refused |= {"--task": task, "--length": length, "--split": split, "--shares": shares, "--reuse": reuse}
        refused |= {"--before": before, "--mode": mode, "--config": host and config}
        given, where = given_values({**flags, "units": prompts}, assignments), Options(runs, resume, force)
        eval_on_host(host, config, folders or [], given, where, refused=refused, dry_run=dry_run, json=json)
        return
    flags |= {"tasks": task, "length": length, "prompts": prompts, "split": split and split.value}
    flags |= {"mode": mode and mode.value, "question": question and question.value}
    flags |= {"head_shares": shares and str(shares), "reuse": reuse and str(reuse)}
    flags |= {"before": before and str(before), "peers": third_party or None, "write": generate or None}
    given = given_values(flags, assignments, model)
    resolved = with_policy_sources(load_eval_config(config or eval_tree(folders or [], dict(given)), given))
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
    if (folders := options.runs / name / "leaderboard").is_dir():
        note(f"results in the layout of kvpress's leaderboard are in {folders}")
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
