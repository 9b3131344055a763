"""Stops commands at any moment, continues them, and compares what they leave with a straight run.

A trial is a number: the seed gives its command, its signal, and when it comes: before the n-th change to the disk, or
after a share of the time that the straight run takes. Most trials stop what continues the command too, up to 7 times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ..forks import Call, Ended, start
from ..inputs.draw import quoted
from ..rules import CACHES, EXIT, HANG, LEFT, TEMPORARY, TRACEBACK, WORDS
from ..slots import Slot, snapshot
from ..totals import LOST
from .aims import SIGNALS, aim
from .scenarios import Scenario, contents, differences


@dataclass
class Straight:
    """What a command does that nothing stops."""

    result: dict[str, Any]
    changes: int
    wall: float


@dataclass
class Trial:
    """A stopped command and what came of it."""

    number: int
    scenario: Scenario
    story: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    cpu: float = 0.0
    kills: int = 0


class Kills:
    """Trials in one slot.

    Args:
        root: A folder for the slot.
        master: The workspace.
        seed: Of the campaign.
        known: The commands.
        run: What runs as the program; None: memx.
    """

    def __init__(
        self, root: Path, master: Path, seed: int, known: list[Scenario], run: Callable[[], None] | None = None
    ) -> None:
        self.seed, self.root, self.known, self.run = seed, root, known, run
        self.straight: dict[Scenario, Straight] = {}
        self.slot = Slot(root / "slot-kills", master)

    def trials(self, numbers: Iterator[int]) -> Iterator[Trial]:
        """Run trials by their numbers."""
        for number in numbers:
            yield self.trial(number)

    def trial(self, number: int) -> Trial:
        """Stop one command, continue it until it ends well, and compare."""
        random = Random(f"kill/{self.seed}/{number}")
        scenario = self.known[number % len(self.known)]
        if scenario not in self.straight:
            self.straight[scenario] = self._run_straight(scenario)
        trial = Trial(number, scenario)
        others = self._others(scenario)
        words, stopped = scenario.words, False
        for _ in range(random.choice((1, 1, 2, 4, 8))):
            ended = self._stopped(words, random, trial)
            stopped = ended.code != 0
            if not stopped:
                break
            words = scenario.again[0]
        if stopped:
            self._continue(scenario, trial)
        self._compare(scenario, trial, others)
        self.slot.renew()
        return trial

    def _run(self, words: tuple[str, ...], trial: Trial | None = None, **more: Any) -> Ended:
        call = Call(words, self.slot.environment)
        ended = start(call, self.slot.work, self.slot.printed, run=self.run, **more).wait()
        if trial is not None:
            trial.cpu += ended.cpu
            trial.story.append("memx " + " ".join(map(quoted, words)))
            trial.said = ended.err.splitlines()[-5:]
        return ended

    def _run_straight(self, scenario: Scenario) -> Straight:
        counted = self.root / "counted"
        counted.unlink(missing_ok=True)
        ended = self._run(scenario.words, before=aim(-1, 0, counted))
        if ended.code:
            raise SystemExit(f"{' '.join(scenario.words)} exits {ended.code}: {ended.err[-500:]}")
        straight = Straight(contents(self.slot.work, scenario), counted.stat().st_size, ended.wall)
        self.slot.renew()
        return straight

    def _stopped(self, words: tuple[str, ...], random: Random, trial: Trial) -> Ended:
        """Run a command and stop it."""
        straight = self.straight[trial.scenario]
        name = random.choice(("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT"))
        if random.random() < 0.75:
            nth = random.randrange(straight.changes)
            ended = self._run(words, trial, before=aim(nth, SIGNALS[name]))
            trial.story[-1] += f"  # {name} before change {nth}"
        else:
            share = random.random()
            call = Call(words, self.slot.environment)
            running = start(call, self.slot.work, self.slot.printed, run=self.run)
            time.sleep(share * straight.wall)
            running.kill(SIGNALS[name])
            ended = running.wait()
            trial.cpu += ended.cpu
            trial.story.append(f"memx {' '.join(map(quoted, words))}  # {name} after {share:.3f} of its time")
        trial.story[-1] += f": exit {ended.code}"
        trial.kills += ended.code != 0
        trial.said = ended.err.splitlines()[-5:]
        refused = words == trial.scenario.again[0] and len(trial.scenario.again) > 1 and ended.code == 2
        if not refused:  # there may be nothing to resume; then it begins again
            self._judge_stop(name, ended, trial)
        return ended

    def _judge_stop(self, name: str, ended: Ended, trial: Trial) -> None:
        allowed = {"SIGKILL": (0, -9), "SIGTERM": (0, 130, -15), "SIGINT": (0, 130)}[name]
        if ended.hung:
            trial.faults.append((HANG, f"ran for {ended.wall:.0f} s after {name}"))
        elif ended.code not in allowed:
            trial.faults.append((EXIT, f"exit {ended.code} after {name}"))
        if "Traceback" in ended.err:
            trial.faults.append((TRACEBACK, f"a traceback after {name}"))
        elif ended.code == 130 and not any(line.startswith("interrupted") for line in ended.err.splitlines()):
            trial.faults.append((WORDS, "exit 130, and nothing says that it was interrupted"))

    def _continue(self, scenario: Scenario, trial: Trial) -> None:
        """Run what continues a command until that ends well."""
        for words in scenario.again:
            ended = self._run(words, trial)
            trial.story[-1] += f": exit {ended.code}"
            if ended.code == 0:
                return
            if ended.code != 2 or "Traceback" in ended.err:
                break
        trial.faults.append((LOST, f"cannot be continued: exit {ended.code}"))

    def _others(self, scenario: Scenario) -> dict[str, tuple[int, ...]]:
        """All that is not the command's own."""
        own = (self.slot.work / scenario.out).relative_to(self.slot.home).as_posix()
        state = snapshot(self.slot.home)
        ours = (own + "/", *CACHES)
        return {path: value for path, value in state.items() if path != own and not path.startswith(ours)}

    def _compare(self, scenario: Scenario, trial: Trial, others: dict[str, tuple[int, ...]]) -> None:
        if not any(kind == LOST for kind, _ in trial.faults):
            now = contents(self.slot.work, scenario)
            found = list(differences(self.straight[scenario].result, now))
            temporary = [one for one in found if TEMPORARY.search(one.partition(" ")[0])]
            if real := [one for one in found if one not in temporary]:
                trial.faults.append((LOST, "; ".join(real[:3])))
        state = snapshot(self.slot.home)
        left = [path for path in state if TEMPORARY.search(path) and not path.startswith(CACHES)]
        if left:
            trial.faults.append((LEFT, f"a temporary file is left: {left[0]}"))
        now_others = self._others(scenario)
        changed = [path for path in others if now_others.get(path) != others[path]]
        changed += [path for path in now_others if path not in others and not path.endswith(".lock")]
        changed = [path for path in changed if not TEMPORARY.search(path)]
        if changed:
            trial.faults.append((LOST, f"something else is different: {changed[0]}"))
