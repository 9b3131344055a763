"""`memx eval-namm`: what evolved NAMMs are worth beside every other policy, at the same cache sizes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..output.console import examples, note, print_json
from .options import Assignments, Force, Json, Name, Resume, Runs, check_resume, given_values

if TYPE_CHECKING:
    from ...experiments.config.policy_eval import EvalConfig
    from ...experiments.runtime.options import Options

_EPILOG = examples(
    "memx eval-namm results/runs/namm-smollm2-1a2b3c4d",
    "memx eval-namm my-namm --host Qwen/Qwen3-0.6B --budget 0.5 --budget 0.25 --policy snapkv --policy h2o",
    "memx eval-namm results/runs/namm-smollm2-1a2b3c4d --mode online --write --dry-run",
)


# one alias for each option, so that the command itself fits a screen
Folders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[RUN]...", help="Runs of memx evolve-namm, folders with a saved NAMM, or a config.yaml."),
]
ConfigOption = Annotated[
    str | None, typer.Option("--config", "-c", help="The config.yaml of an evaluation, in place of runs.")
]
Host = Annotated[
    str | None,
    typer.Option(help="smollm2, gemma3-270m, a folder or a hub name of a model; the run's own if not said."),
]
Budget = Annotated[
    list[float] | None,
    typer.Option(help="Share of all tokens that is kept; may be repeated. 0.75, 0.5, 0.25 and 0.125 if not said."),
]
Policy = Annotated[list[str] | None, typer.Option(help="A rival; may be repeated. All of memx's if not said.")]
Peers = Annotated[bool, typer.Option("--peers", help="kvpress's presses too, where it is installed.")]
Task = Annotated[
    list[str] | None,
    typer.Option(help="A family of tasks; may be repeated. The run's own and all held-out ones if not said."),
]
Length = Annotated[int | None, typer.Option(help="The most tokens of a prompt; the run's if not said.")]
Prompts = Annotated[int | None, typer.Option(help="Prompts of each family.  [default: 16]")]
Split = Annotated[str | None, typer.Option(help="train, validation or test.  [default: test]")]
Mode = Annotated[str | None, typer.Option(help="post_hoc or online; the run's, or post_hoc, if not said.")]
Every = Annotated[
    int | None, typer.Option(help="Online: tokens between runs, a multiple of 16; the NAMM's own if not said.")
]
Write = Annotated[bool, typer.Option("--write", help="Greedy answers too, with the tasks' own scores.")]
Seed = Annotated[int | None, typer.Option(help="Draws the prompts.  [default: 0]")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; the machine's cores if not said.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be evaluated; load nothing.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("eval-namm", epilog=_EPILOG)(eval_namm)


def eval_namm(
    folders: Folders = None,
    config: ConfigOption = None,
    host: Host = None,
    budget: Budget = None,
    policy: Policy = None,
    peers: Peers = False,
    task: Task = None,
    length: Length = None,
    prompts: Prompts = None,
    split: Split = None,
    mode: Mode = None,
    every: Every = None,
    write: Write = False,
    seed: Seed = None,
    name: Name = None,
    threads: Threads = None,
    assignments: Assignments = None,
    runs: Runs = Path("results/runs"),
    dry_run: DryRun = False,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Evaluate evolved NAMMs beside the full cache and every other policy, at the same cache sizes.

    On the families of tasks that a NAMM was evolved for and on those kept for evaluation, by the likelihood of the
    right answer and by how often greedy decoding writes it. --host evaluates a NAMM, as it is, on another model. A
    stopped evaluation goes on with --resume.
    """
    from ...errors import MemxError
    from ...experiments.config.loading import load_eval_config
    from ...experiments.policy_eval.sources import eval_tree
    from ...experiments.runtime.options import Options

    if config is None and folders and folders[0].suffix in (".yaml", ".yml"):
        config, folders = str(folders[0]), folders[1:]
    if config is not None and folders:
        raise MemxError("--config and RUN both say what to evaluate", hint="give one of them")
    check_resume(resume, force)
    flags: dict[str, Any] = {"budgets": budget, "policies": policy, "tasks": task}
    flags |= {"length": length, "prompts": prompts, "split": split, "mode": mode, "every": every, "seed": seed}
    flags |= {"name": name, "peers": peers or None, "write": write or None, "host.threads": threads}
    given = given_values(flags, assignments, host)
    resolved = load_eval_config(config or eval_tree(folders or [], dict(given)), given)
    if dry_run:
        _dry_run(resolved, runs, json)
        return
    _evaluate(resolved, Options(runs, resume, force), json)


def _evaluate(config: EvalConfig, options: Options, json: bool) -> None:
    from ...experiments.config.base import run_name
    from ...results.store.runs import RunStore

    name = run_name(config)
    RunStore(options.runs).check_free(name, resume=options.resume, force=options.force)
    # imports torch, so only after what can be refused without it
    from ...experiments.policy_eval.run import eval_namm as run_evaluation
    from ..output.eval_namm_summary import print_evaluation
    from ..output.progress import ProgressDisplay

    with ProgressDisplay([name], quiet=json) as display:
        rows = run_evaluation(config, options, display.report)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_evaluation(rows)
    note(f"next: memx plot --what namm {options.runs / name}")


def _dry_run(config: EvalConfig, runs: Path, json: bool) -> None:
    from ...experiments.policy_eval.cost import evaluation_cost
    from ..output.eval_namm_summary import print_evaluation_cost

    cost = evaluation_cost(config, runs)
    print_json(asdict(cost)) if json else print_evaluation_cost(cost)
