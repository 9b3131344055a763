"""An input or a kill that has ended -> the line that is kept of it, and what is printed if it broke a rule."""

from __future__ import annotations

from typing import Any

from .fuzz import Verdict
from .kills.trials import Trial


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
