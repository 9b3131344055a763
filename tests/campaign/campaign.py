"""What `make campaign` runs: inputs and kills by their numbers in several processes, failures as they come, totals."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .forks import warm
from .fuzz import run_inputs
from .kills.scenarios import scenarios
from .kills.trials import Kills
from .masters import with_finished, workspace
from .reports import line_of, line_of_trial, report
from .totals import Results, as_text, groups, note, table, totals, write_docs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "internals" / "robustness.md"
Job = tuple[str, int]  # input or kill, and its number


def arguments() -> argparse.Namespace:
    """The options of the campaign."""
    parser = argparse.ArgumentParser(prog="tests/campaign", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many inputs to make")
    parser.add_argument("--trials", type=int, default=500, help="commands to stop and continue, each up to 8 times")
    parser.add_argument("--start", type=int, default=0, help="first number of both")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--only", metavar="N|kN", help="number of the one input, or of the one kill, to repeat")
    parser.add_argument("--command", default="", help="the one command to try, such as train or 'plot memory'")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this many seconds")
    parser.add_argument("--jobs", type=int, default=1, help="how many commands run at once")
    parser.add_argument("--out", type=Path, default=Path("results/campaign"), help="folder for everything")
    parser.add_argument("--resume", action="store_true", help="continue: what has ended before is not run again")
    parser.add_argument("--retry-failed", action="store_true", help="run again what broke a rule, and replace its line")
    parser.add_argument("--totals", action="store_true", help="only print what has been found")
    parser.add_argument("--write-docs", action="store_true", help="write the totals to docs/internals/robustness.md")
    return parser.parse_args()


def main() -> int:
    """Run the campaign. Returns 1 if a rule was broken."""
    given = arguments()
    root = given.out.resolve()
    root.mkdir(parents=True, exist_ok=True)
    results = Results(root / "results.jsonl")
    jobs = _jobs(given, results)
    if not (given.resume or given.retry_failed or given.totals or given.only):
        results.path.unlink(missing_ok=True)
    if jobs:
        run(jobs, given, root, results)
    if given.only is not None:
        return 0
    return conclude(results.read(), root, given)


def _jobs(given: argparse.Namespace, results: Results) -> list[Job]:
    """What is to run."""
    if given.totals:
        return []
    if given.only is not None:
        kill = given.only.startswith("k")
        return [("kill" if kill else "input", int(given.only.removeprefix("k")))]
    known = {(line["what"], line["number"]): line for line in results.read()}
    if given.retry_failed:
        return [job for job, line in known.items() if line["faults"]]
    ends = {"input": given.inputs, "kill": given.trials}
    found = [(what, number) for what, count in ends.items() for number in range(given.start, given.start + count)]
    return [job for job in found if not given.resume or job not in known]


def run(jobs: list[Job], given: argparse.Namespace, root: Path, results: Results) -> None:
    """Run inputs and kills in forks of this process, each with folders of its own."""
    warm()
    masters = workspace(root), with_finished(root, workspace(root))
    again = {(line["what"], line["number"]): line.get("again", 0) + 1 for line in results.read()}
    end = time.monotonic() + given.seconds
    children = []
    for place in range(min(given.jobs, len(jobs))):
        if not (child := os.fork()):
            code = 1
            try:
                _work(jobs[place :: given.jobs], given, root / f"job-{place}", masters, results, again, end)
                code = 0
            except KeyboardInterrupt:
                pass
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise SystemExit(f"the campaign was stopped (exit codes {codes}); continue it with --resume")


def _work(
    jobs: list[Job],
    given: argparse.Namespace,
    root: Path,
    masters: tuple[Path, Path],
    results: Results,
    again: dict[Job, int],
    end: float,
) -> None:
    """Run some of them, one after another, keep a line for each, and print those that broke rules."""

    def numbers(wanted: str) -> Iterator[int]:
        for what, number in jobs:
            if what == wanted and time.monotonic() < end:
                yield number

    root.mkdir(exist_ok=True)
    known = [one for one in scenarios() if one.command.startswith(given.command)]
    verdicts = run_inputs(numbers("input"), given.seed, root, masters[0], only=given.command)
    began, count = time.monotonic(), 0
    for line in map(line_of, verdicts):
        count += _keep(line, results, given, again)
        if count % 250 == 0:
            print(f"# {count} inputs in {time.monotonic() - began:.0f} s", flush=True)
    if not any(what == "kill" for what, _ in jobs):
        return
    began, count = time.monotonic(), 0
    for line in map(line_of_trial, Kills(root, masters[1], given.seed, known).trials(numbers("kill"))):
        count += _keep(line, results, given, again)
        if count % 50 == 0:
            print(f"# {count} trials in {time.monotonic() - began:.0f} s", flush=True)


def _keep(line: dict[str, Any], results: Results, given: argparse.Namespace, again: dict[Job, int]) -> int:
    times = again.get((line["what"], line["number"]), 0)
    if given.only is None:
        results.add(line | ({"again": times} if times else {}))
    if line["faults"] or given.only:
        report(line)
    return 1


def conclude(lines: list[dict[str, Any]], root: Path, given: argparse.Namespace) -> int:
    """Print and write the totals. Returns 1 if a rule was broken."""
    rows = totals(lines)
    for count, line in groups(lines):
        print(f"\n{count} times:", end="")
        report(line)
    cells = table(rows)
    print("\n" + as_text(cells) + "\n" + note(lines, given.seed))
    (root / "totals.json").write_text(json.dumps(rows, indent=1) + "\n")
    if given.write_docs:
        write_docs(PAGE, cells, note(lines, given.seed))
    return int(any(line["faults"] for line in lines))
