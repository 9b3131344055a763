"""What `make campaign` runs: inputs and kills by their numbers, the failures as they come, and the totals."""

from __future__ import annotations

import argparse
import itertools
import shutil
import time
from pathlib import Path

from .forks import Call, start, warm
from .fuzz import Verdict, run_inputs


def arguments() -> argparse.Namespace:
    """The options of the campaign."""
    parser = argparse.ArgumentParser(prog="tests/campaign", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many inputs to make")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--only", type=int, help="number of the one input to repeat; its folder stays")
    parser.add_argument("--command", default="", help="the one command to try, such as train or 'plot memory'")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--start", type=int, default=0, help="first number")
    parser.add_argument("--jobs", type=int, default=1, help="how many commands run at once")
    parser.add_argument("--out", type=Path, default=Path("results/campaign"), help="folder for everything")
    return parser.parse_args()


def main() -> int:
    """Run the campaign. Returns 1 if a rule was broken."""
    given = arguments()
    root = given.out.resolve()
    root.mkdir(parents=True, exist_ok=True)
    warm()
    master = root / "master"
    if not master.exists():
        make_workspace(root)
    numbers = range(given.start, given.start + given.inputs) if given.only is None else [given.only]
    end = time.monotonic() + given.seconds
    chosen = itertools.takewhile(lambda number: time.monotonic() < end, numbers)
    bad, count, cpu, began = 0, 0, 0.0, time.monotonic()
    for verdict in run_inputs(iter(chosen), given.seed, root, master, jobs=given.jobs, only=given.command):
        count += 1
        cpu += verdict.ended.cpu
        if verdict.faults or given.only is not None:
            bad += 1
            report(verdict)
        if count % 200 == 0:
            print(
                f"# {count} inputs, {bad} bad, {cpu / count:.2f} s each of CPU, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return int(bad > 0)


def report(verdict: Verdict) -> None:
    """Print an input that broke rules."""
    given, ended = verdict.input, verdict.ended
    print(
        f"\n#{given.number} {given.family} {given.met} {given.damaged}: exit {ended.code}, {ended.cpu:.1f} s: {given.line()[:600]}"
    )
    for kind, what in verdict.faults:
        print(f"   {kind}: {what}")
    for name, content in given.files.items():
        print(f"   {name}: …{content[-150:]!r}")
    for line in ended.err.splitlines()[-6:]:
        print(f"   | {line[:300]}")
    print(end="", flush=True)


def make_workspace(root: Path) -> None:
    """Make the workspace in a child, for torch works there."""

    def work() -> None:
        from memx.cli.main import run

        from .workspace import make

        runs = root / "first"
        small = ("steps=4", "checkpoint_every=2", "threads=1")
        given = [part for one in small for part in ("--set", f"training.{one}")]
        assert run(["train", "tiny", *given, "--set", "evaluation.final_questions=4", "--runs", str(runs)]) == 0
        (made,) = [path for path in runs.iterdir() if path.is_dir()]
        make(root / "making", made)
        (root / "making").rename(root / "master")
        shutil.rmtree(runs)

    ended = start(Call(()), root, root / "workspace", run=work).wait()
    if ended.code:
        raise SystemExit(f"the workspace could not be made: {ended.out[-500:]}\n{ended.err[-2_000:]}")
