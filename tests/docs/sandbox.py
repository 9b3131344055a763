"""A folder where one printed command runs: links to the workspace under the names that the command speaks of."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .shrink import Parsed
from .workspace import REFERENCE, Workspace

WRITTEN = ("--out", "--save", "--against")  # folders that a command makes; runner.py makes the last one
# names that a page gives to a folder without saying that it is a run
NAMED = {"HOST": "model", "MODEL": "model", "my-model": "model", "halfway": "run/checkpoint", "my-namm": "namm/namm",
         "fineweb": "prepared", "FOLDER": "bench", "RUN": "run", "NAMM": "namm", "new": "bench",
         "old": "bench"}  # fmt: skip
# what each picture of `memx plot` is drawn from
DRAWN = {"memory": "facts", "qa": "answers", "loss": "run", "baselines": "baselines", "ablation": "ablation",
         "usage": "run", "finetune": "finetune", "continual": "continual", "step": "step", "ops": "bench",
         "namm": "evaluation", "shares": "shares", "kinds": "kinds", "before-after": "before-after",
         "layers": "evaluation", "evicted": "evaluation", "evolution": "namm", "pareto": "namm",
         "universal": "universal", "forgotten": "universal"}  # fmt: skip
OF_COMMAND = {"eval-namm": "namm", "bench": "bench", "convert": "parallel"}


class Sandbox:
    """One folder, with the files of the workspace and the results of the repository."""

    def __init__(self, root: Path, workspace: Workspace) -> None:
        self.root, self.workspace = root, workspace
        self.piped = b""  # what the command before a | has written
        (root / "results" / "runs").mkdir(parents=True)
        (root / "results" / "reference").symlink_to(REFERENCE)
        for path in workspace.files.iterdir():
            (root / path.name).symlink_to(path)

    def link(self, name: str, kind: str) -> None:
        """Let a name be a run or a folder of the workspace."""
        path = self.root / name
        if not path.exists() and not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(self.workspace.kinds / kind)

    def provide(self, parsed: Parsed) -> Parsed:
        """Link what a command reads, take away what it writes, and put files in place of patterns."""
        kind = self._kind(parsed)
        for place in self._written(parsed):
            if (self.root / place).is_symlink():
                (self.root / place).unlink()
        for option, value in parsed.given:
            for name in _paths(option, value):
                self._provide(name, kind)
        if parsed.path and parsed.path[0] in ("show", "compare", "report"):
            for name in parsed.arguments or ["mine"]:
                if "/" not in name and name not in NAMED:
                    self._write_runs(name)
        if parsed.path and parsed.path[0] in ("plot", "runs"):
            for runs in parsed.arguments or parsed.values("--runs") or ["results/runs"]:
                if Path(runs).name == "runs":
                    self.link(f"{runs}/{kind}", kind)
            parsed = parsed._replace(given=[self._experiment(pair, kind) for pair in parsed.given])
        return parsed

    def expanded(self, line: str, words: list[str]) -> list[str]:
        """What a shell makes of patterns that are not in quotes."""
        found = []
        for word in words:
            quoted = f'"{word}"' in line or f"'{word}'" in line
            files = sorted(self.root.glob(word)) if "*" in word and not quoted else []
            found += [str(path.relative_to(self.root)) for path in files] or [word]
        return found

    def _write_runs(self, name: str) -> None:
        """A run of that name in capitals, such as RUN_A; of another name two runs of an experiment."""
        for number, place in enumerate([name] if name.isupper() else [f"{name}-1", f"{name}-2"]):
            folder = self.root / "results" / "runs" / place
            leave_out = shutil.ignore_patterns("checkpoint", "state", ".lock")
            shutil.copytree(self.workspace.kinds / "run", folder, ignore=leave_out)
            info = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps({**info, "experiment": name, "seed": number}))

    def _provide(self, name: str, kind: str) -> None:
        first = name.partition("/")[0]
        if first in NAMED:
            self.link(first, NAMED[first])
        elif match := re.match(r"((?:results/)?runs/)([^/]+)(/checkpoint|/namm)?", name):
            of_path = {"/checkpoint": "roomy-run", "/namm": "namm"}.get(match[3] or "", kind)
            self.link(match[1] + match[2].replace("*", "x"), of_path)

    def _kind(self, parsed: Parsed) -> str:
        """What the runs are that a command reads."""
        command = parsed.path[0] if parsed.path else ""
        return DRAWN.get(_picture(parsed), "facts") if command == "plot" else OF_COMMAND.get(command, "run")

    def _written(self, parsed: Parsed) -> list[str]:
        target = parsed.arguments[1:2] if parsed.path == ("config", "copy") else []
        return [*parsed.values(*WRITTEN), *target]

    def _experiment(self, pair: tuple[str | None, str | None], kind: str) -> tuple[str | None, str | None]:
        """--experiment with a name that the runs here have."""
        if pair[0] != "--experiment":
            return pair
        info = json.loads((self.workspace.kinds / kind / "run.json").read_text())
        return ("--experiment", info["experiment"] or kind)


def _picture(parsed: Parsed) -> str:
    """Which picture `memx plot` is asked for."""
    return parsed.path[1] if len(parsed.path) > 1 else "memory"


def _paths(option: str | None, value: str | None) -> Iterator[str]:
    """What of an argument may be a path: itself, and what follows NAME=."""
    if value and option not in (*WRITTEN, "--runs", "--name"):
        yield value
        if "=" in value:
            yield value.partition("=")[2].strip("[]")
