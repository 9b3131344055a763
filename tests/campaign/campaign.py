"""What `make campaign` runs: inputs and kills by their numbers, the failures as they come, and the totals."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .forks import warm
from .fuzz import Verdict, run_inputs
from .kills.scenarios import scenarios
from .kills.trials import Kills, Trial
from .masters import with_finished, workspace
from .totals import Results, as_text, groups, table, totals, write_docs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "internals" / "robustness.md"


def arguments() -> argparse.Namespace:
    """The options of the campaign."""
    parser = argparse.ArgumentParser(prog="tests/campaign", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many inputs to make")
    parser.add_argument("--kills", type=int, default=1_000, help="how many commands to stop")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--only", metavar="N|kN", help="number of the one input, or of the one kill, to repeat")
    parser.add_argument("--command", default="", help="the one command to try, such as train or 'plot memory'")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--start", type=int, default=0, help="first number")
    parser.add_argument("--jobs", type=int, default=1, help="how many commands run at once")
    parser.add_argument("--out", type=Path, default=Path("results/campaign"), help="folder for everything")
    parser.add_argument("--resume", action="store_true", help="continue: what has ended before is not run again")
    parser.add_argument("--totals", action="store_true", help="only print what has been found")
    parser.add_argument("--write-docs", action="store_true", help="write the totals to docs/internals/robustness.md")
    return parser.parse_args()


def main() -> int:
    """Run the campaign. Returns 1 if a rule was broken."""
    given = arguments()
    root = given.out.resolve()
    root.mkdir(parents=True, exist_ok=True)
    results = Results(root / "results.jsonl")
    if not given.resume and not given.totals and given.only is None:
        results.path.unlink(missing_ok=True)
    if not given.totals:
        run(given, root, results)
        if given.only is not None:
            return 0
    lines = results.read()
    return conclude(lines, root, given)


def run(given: argparse.Namespace, root: Path, results: Results) -> None:
    """Run inputs and kills that have not run yet."""
    warm()
    master = workspace(root)
    done = {(line["what"], line["number"]) for line in results.read()} if given.only is None else set()
    end = time.monotonic() + given.seconds
    only = given.only or ""
    if not only.startswith("k"):
        numbers = iter([int(only)]) if only else _numbers(given, "input", done, end)
        verdicts = run_inputs(numbers, given.seed, root, master, jobs=given.jobs, only=given.command)
        _keep(map(line_of, verdicts), results, given)
    if not only or only.startswith("k"):
        numbers = iter([int(only[1:])]) if only else _numbers(given, "kill", done, end)
        known = [one for one in scenarios() if one.command.startswith(given.command)]
        trials = Kills(root, with_finished(root, master), given.seed, known).trials(numbers)
        _keep(map(line_of_trial, trials), results, given)


def _keep(lines: Iterator[dict[str, Any]], results: Results, given: argparse.Namespace) -> None:
    """Keep a line for each, and print those that broke rules."""
    began, bad = time.monotonic(), 0
    for count, line in enumerate(lines, 1):
        if given.only is None:
            results.add(line)
        bad += bool(line["faults"])
        if line["faults"] or given.only:
            report(line)
        if count % 100 == 0:
            print(f"# {count} {line['what']}s in {time.monotonic() - began:.0f} s, {bad} broke a rule", flush=True)


def _numbers(given: argparse.Namespace, what: str, done: set, end: float) -> Iterator[int]:
    all_ = range(given.start, given.start + (given.inputs if what == "input" else given.kills))
    left = (number for number in all_ if (what, number) not in done)
    return itertools.takewhile(lambda number: time.monotonic() < end, left)


def line_of(verdict: Verdict) -> dict[str, Any]:
    """What is kept of an input that has run."""
    given, ended = verdict.input, verdict.ended
    line = {"what": "input", "number": given.number, "command": given.command, "faults": verdict.faults}
    line |= {"said": [], "cpu": round(ended.cpu, 3), "code": ended.code, "family": given.family, "met": given.met}
    if verdict.faults:
        files = {name: repr(content[-200:]) for name, content in given.files.items()}
        said = [text[:400] for text in ended.err.splitlines()[-6:]]
        line |= {"said": said, "line": given.line(), "damaged": given.damaged, "files": files}
    return line


def line_of_trial(trial: Trial) -> dict[str, Any]:
    """What is kept of a trial."""
    line = {"what": "kill", "number": trial.number, "command": trial.scenario.command, "faults": trial.faults}
    line |= {"said": [], "cpu": round(trial.cpu, 3), "kills": trial.kills}
    if trial.faults:
        line |= {"line": "\n   ".join(trial.story), "said": [text[:400] for text in trial.said]}
    return line


def report(line: dict[str, Any]) -> None:
    """Print an input or kill that broke rules."""
    kill = line["what"] == "kill"
    about = "kill" if kill else f"{line['family']}, {line['met']}: exit {line['code']}"
    print(f"\n#{'k' * kill}{line['number']} {about}, {line['cpu']} s of CPU")
    print(f"   {line.get('line', '')[:700]}")
    if line.get("damaged"):
        print(f"   damaged: {line['damaged']}")
    for name, content in line.get("files", {}).items():
        print(f"   {name} ends in {content}")
    for kind, what in line["faults"]:
        print(f"   {kind}: {what}")
    for text in line["said"]:
        print(f"   | {text[:300]}")
    print(end="", flush=True)


def conclude(lines: list[dict[str, Any]], root: Path, given: argparse.Namespace) -> int:
    """Print and write the totals. Returns 1 if a rule was broken."""
    rows = totals(lines)
    for count, line in groups(lines):
        print(f"\n{count} times:", end="")
        report(line)
    cells = table(rows)
    print("\n" + as_text(cells))
    (root / "totals.json").write_text(json.dumps(rows, indent=1) + "\n")
    if given.write_docs:
        write_docs(PAGE, cells, f"Seed {given.seed}.")
    return int(any(line["faults"] for line in lines))
