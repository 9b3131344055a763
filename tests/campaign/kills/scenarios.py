"""Commands that are stopped and continued, with what continues each, and what is compared at the end."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# command -> what continues it: words that are added, tried in this order until one ends well
_LINES = """
train small.yaml --runs out -> --resume
train small.yaml --runs out --set sweep={memory.slots:[0,64]} --set training.steps=3 -> --resume
train small.yaml --runs out --corpus prepared --set data.sequence=32 -> --resume
train small.yaml --runs out --init-from model --set training.steps=4 -> --resume
train small.yaml --runs finished --force -> --resume without --force |
prepare my-texts --out out --vocabulary 300 --shard-tokens 500 -> --resume
prepare corpus --field body --out out --vocabulary 300 --shard-tokens 2000 -> --resume
prepare my-texts --out again --vocabulary 300 --shard-tokens 500 --force -> --resume without --force |
evolve-namm small-namm.yaml --runs out -> --resume
eval run --task nq --file nq=questions.jsonl --limit 4 --answer-tokens 1 --shots 0 --batch 1 --runs out -> --resume
eval-namm namm --policy recency --budget 0.5 --task key_values --prompts 2 --length 220 --runs out -> --resume
evict --file prompt.txt --model model --namm namm/namm --new-tokens 2 --out out -> | --force
convert parallel --out out -> | --force
plot memory facts --formats png,svg --out out ->
plot evolution namm --formats png --out out ->
plot ops bench --formats png --out out ->
bench ops product_topk --seconds 0.01 --shapes B=2,n=8,k=2 --compile none --threads 1 --save out -> | --force
config copy tiny out.yaml -> | --force
"""
# what differs between two runs of one command: times, and what the machine was doing
_OF_THE_TIME = {
    "seconds", "started", "ended", "command", "peak_bytes", "commit", "tokens_per_second", "date", "time", "hostname",
    "rate", "prefill_seconds", "token_seconds",
}  # fmt: skip
_MEASURED = {"value", "stderr", "low", "high", "n"}  # of a benchmark's rows


@dataclass(frozen=True)
class Scenario:
    """A command, the commands that continue it in the order in which they are tried, and what it writes."""

    words: tuple[str, ...]
    again: tuple[tuple[str, ...], ...]

    @property
    def command(self) -> str:
        """The words that name it."""
        return " ".join(self.words[:2]) if self.words[0] in ("plot", "bench", "config") else self.words[0]

    @property
    def out(self) -> str:
        """The file or folder that it writes, in the folder where it runs."""
        for option in ("--out", "--save", "--runs"):
            if option in self.words:
                return self.words[self.words.index(option) + 1]
        return self.words[-1]


def scenarios() -> list[Scenario]:
    """All of them."""
    found = []
    for line in _LINES.strip().splitlines():
        first, _, rest = line.partition("->")
        words = tuple(shlex.split(first))
        again = []
        for one in rest.split("|"):
            added, _, without = one.partition("without")
            left = [word for word in words if word not in without.split()]
            again.append((*left, *added.split()))
        found.append(Scenario(words, tuple(again)))
    return found


def contents(work: Path, scenario: Scenario) -> dict[str, Any]:
    """What a command wrote, by relative path: bytes, and of JSON all that does not depend on the time."""
    place, measures = work / scenario.out, scenario.words[0] == "bench"
    left_out = _OF_THE_TIME | (_MEASURED if measures else set())
    files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
    return {
        str(path.relative_to(place)): _content(path, left_out, floats=not measures)
        for path in files
        if path.is_file() and not path.name.endswith(".lock")
    }


def _content(path: Path, left_out: set[str], *, floats: bool) -> Any:
    data = path.read_bytes()
    if path.suffix == ".html":
        return re.sub(rb"\d[\d.]* m?s\b", b"", data)
    if path.suffix not in (".json", ".jsonl"):
        return data
    lines = data.decode().splitlines() if path.suffix == ".jsonl" else [data.decode()]
    try:
        return [_without(json.loads(line), left_out, floats) for line in lines]
    except ValueError:
        return data


def _without(tree: Any, left_out: set[str], floats: bool) -> Any:
    if isinstance(tree, dict):
        if "second" in str(tree.get("metric")):  # a row that says how fast it was
            left_out = left_out | _MEASURED
        return {key: _without(value, left_out, floats) for key, value in tree.items() if key not in left_out}
    if isinstance(tree, list):
        return [_without(one, left_out, floats) for one in tree]
    return tree if floats or not isinstance(tree, float) else "measured"


def differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """In words, where two results differ."""
    for path in sorted(first.keys() | second.keys()):
        if path not in second:
            yield f"{path} is missing"
        elif path not in first:
            yield f"{path} is there, which a straight run does not write"
        elif first[path] != second[path]:
            yield f"{path} differs{_where(first[path], second[path])}"


def _where(first: Any, second: Any) -> str:
    if not isinstance(first, list) or not isinstance(second, list):
        return ""
    if len(first) != len(second):
        return f": {len(first)} lines, not {len(second)}"
    for number, (one, other) in enumerate(zip(first, second, strict=True), 1):
        if one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
                changed = ", ".join(f"{key}: {one.get(key)!r}, then {other.get(key)!r}" for key in keys)
                return f" in line {number}: {changed[:300]}"
            return f" in line {number}"
    return ""
