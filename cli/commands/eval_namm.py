"""`memx eval-namm`: what evolved NAMMs are worth beside every other policy, at the same cache sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..output.console import examples, note, print_json
from .options import check_resume, given

_EPILOG = examples(
    "memx eval-namm results/runs/namm-smollm2-1a2b3c4d",
    "memx eval-namm my-namm --host Qwen/Qwen3-0.6B --budget 0.5 --budget 0.25 --policy snapkv --policy h2o",
    "memx eval-namm results/runs/namm-smollm2-1a2b3c4d --mode online --write --dry-run",
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("eval-namm", epilog=_EPILOG)(eval_namm)


def eval_namm(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...", help="Runs of memx evolve-namm, folders with a saved NAMM, or a config.yaml."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="The config.yaml of an evaluation, in place of runs.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="smollm2, gemma3-270m, a folder or a hub name of a model; the run's own if not said."),
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="Share of all tokens that is kept; may be repeated. 0.75, 0.5, 0.25 and 0.125 if not said."),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="A rival; may be repeated. All of memx's if not said.")
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="kvpress's presses too, where it is installed.")] = False,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A family of tasks; may be repeated. The run's own and all held-out ones if not said."),
    ] = None,
    length: Annotated[int | None, typer.Option(help="The most tokens of a prompt; the run's if not said.")] = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts of each family.  [default: 16]")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test.  [default: test]")] = None,
    mode: Annotated[str | None, typer.Option(help="post_hoc or online; the run's, or post_hoc, if not said.")] = None,
    every: Annotated[
        int | None, typer.Option(help="Online: tokens between runs, a multiple of 16; the NAMM's own if not said.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Greedy answers too, with the tasks' own scores.")] = False,
    seed: Annotated[int | None, typer.Option(help="Draws the prompts.  [default: 0]")] = None,
    name: Annotated[str | None, typer.Option(help="First part of the run folder's name.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; the machine's cores if not said.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the config; may be repeated."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all run folders.")] = Path("results/runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be evaluated; load nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run, keep a finished one.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start an existing run anew; what it held is lost.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON on stdout.")] = False,
) -> None:
    """Evaluate evolved NAMMs beside the full cache and every other policy, at the same cache sizes.

    On the families of tasks that a NAMM was evolved for and on those kept for evaluation, by the likelihood of the
    right answer and by how often greedy decoding writes it. --host evaluates a NAMM, as it is, on another model. A
    stopped evaluation goes on with --resume.
    """
    from ...errors import MemxError
    from ...experiments.config.base import run_name
    from ...experiments.config.loading import load_eval_config, parse_assignment
    from ...experiments.policy_eval.sources import eval_tree
    from ...results.store.runs import RunStore

    if config is None and folders and folders[0].suffix in (".yaml", ".yml"):
        config, folders = str(folders[0]), folders[1:]
    if config is not None and folders:
        raise MemxError("--config and RUN both say what to evaluate", hint="give one of them")
    check_resume(resume, force)
    flags: dict[str, Any] = {"host.name": host, "budgets": budget, "policies": policy, "tasks": task}
    flags |= {"length": length, "prompts": prompts, "split": split, "mode": mode, "every": every, "seed": seed}
    flags |= {"name": name, "peers": peers or None, "write": write or None, "host.threads": threads}
    chosen = given(flags)
    if host is not None:
        chosen += [("host.preset", None), ("host.shape", None)]
    assigned = [*chosen, *map(parse_assignment, assignments or [])]
    resolved = load_eval_config(config or eval_tree(folders or [], dict(assigned)), assigned)
    from ..output.eval_namm_summary import print_evaluation, print_evaluation_cost
    from ..output.progress import ProgressDisplay

    if dry_run:
        from ...experiments.policy_eval.cost import evaluation_cost

        cost = evaluation_cost(resolved, runs)
        print_json(cost) if json else print_evaluation_cost(cost)
        return
    RunStore(runs).check_free(run_name(resolved), resume=resume, force=force)  # before anything heavy is imported
    from ...experiments.policy_eval.run import eval_namm as run_evaluation
    from ...experiments.runtime.options import Options

    with ProgressDisplay([run_name(resolved)], quiet=json) as display:
        rows = run_evaluation(resolved, Options(runs, resume, force), display.report)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_evaluation(rows)
    note(f"next: memx plot --what namm {runs / run_name(resolved)}")
