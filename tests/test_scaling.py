"""docs/guides/scaling.md: every figure of its tables is what the command above the table says now."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from memx.experiments.config.loading import load_config, parse_assignment
from memx.experiments.config.points import plan
from memx.experiments.planning.cost import RunCost
from memx.experiments.planning.estimate import cost_of
from memx.experiments.planning.gpus import GPUS
from memx.experiments.planning.mesh import Plan, parse_count

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guides" / "scaling.md"
HELD = {
    "weights, gradients, AdamW": ("weights", "gradients", "optimizer"),
    "table and its Adam": ("table", "table optimizer", "table gradient"),
    "reads of a step": ("step's reads", "grouping"),
    "backward pass": ("activations", "copies", "gathered", "exchange", "fetched rows"),
    "total": ("total",),
    "host memory": ("host",),
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """The command above each table, its columns and its rows; words of the command in capitals are columns."""
    for command, header, body in re.findall(
        r"^    (memx train [^\n]*--dry-run[^\n]*)\n\n(\|[^\n]*)\n\|[-:|]+\n((?:\|[^\n]*\n?)+)", text, flags=re.MULTILINE
    ):
        yield command, cells(header), [cells(line) for line in body.splitlines()]


def command_of(template: str, row: dict[str, str]) -> str:
    """The command of one row; of any GPU if it names none, for what does not depend on it."""
    given = {"GPU": "h100", **{name: cell.strip("`") for name, cell in row.items() if name.isupper()}}
    changes = " ".join(f"--set {one}" for one in given.get("SET", "").split())
    template = template.replace("--set SET", changes)
    return re.sub(r"\b[A-Z]{3,}\b", lambda word: given[word[0]], template)


@cache
def planned(command: str) -> RunCost:
    """What a command prints of its one run."""
    _, _, name, *flags = shlex.split(command)
    flags.remove("--dry-run")
    given = list(zip(flags[::2], flags[1::2], strict=True))
    sets = [parse_assignment(value) for flag, value in given if flag == "--set"]
    variants = [value for flag, value in given if flag == "--variant"]
    asked = {flag: value for flag, value in given if flag not in ("--set", "--variant")}
    assert asked.keys() <= {"--gpus", "--gpu", "--tokens"}, command
    (point,) = plan(load_config(name, sets, variants or None))
    tokens = parse_count(asked["--tokens"]) if "--tokens" in asked else None
    where = Plan(int(asked.get("--gpus", 1)), GPUS[asked.get("--gpu", "h100")], tokens=tokens)
    return cost_of(point, Path("runs"), where)


def expected(template: str, column: str, row: dict[str, str]) -> str:
    """What a cell must say."""
    if column.startswith("hours on "):
        row = {**row, "GPU": column.removeprefix("hours on ").lower()}
    cost = planned(command_of(template, row))
    found = cost.plan
    if column.startswith("hours"):
        return hours(found.hours)
    if column in HELD:
        held = sum(found.bytes.get(name, 0) for name in HELD[column])
        return f"{held / 1e9:,.1f}" if held else ""
    if column == "saved state":
        return f"{found.saved / 1e12:.2f} TB"
    if column == "checkpoint":
        return f"{cost.weights_bytes / 1e12:.2f} TB"
    if column == "steps":
        return f"{found.steps:,}"
    return f"{found.seconds[column]:.2f}" if column in found.seconds else ""


def hours(number: float | None) -> str:
    return "does not fit" if number is None else f"{number:,.1f}" if number < 100 else f"{number:,.0f}"


def test_the_page_has_its_tables():
    found = list(tables(PAGE.read_text("utf-8")))
    assert len(found) >= 6 and all(rows for _, _, rows in found)
    presets = {re.split(r"\s+", command)[2] for command, _, _ in found}
    assert {"1.3b-64m-1t", "8b-16m-1t", "8b-64m-1t"} <= presets


@pytest.mark.parametrize("place", range(len(list(tables(PAGE.read_text("utf-8"))))))
def test_the_page_says_what_the_command_says(place):
    template, columns, rows = list(tables(PAGE.read_text("utf-8")))[place]
    for cells_of_row in rows:
        row = dict(zip(columns, cells_of_row, strict=True))
        for column, cell in row.items():
            if not column.isupper():  # those in capitals are what the command is given
                assert cell == expected(template, column, row), (command_of(template, row), column)


def test_the_page_counts_parameters_as_the_command_does():
    cost = planned("memx train 1.3b-64m-1t --dry-run --gpus 64")
    total, active = (f"{count / 1e9:.1f}B" for count in (cost.parameters_total, cost.parameters_active))
    assert f"{total} parameters, of which a token uses {active}" in PAGE.read_text("utf-8")


def test_the_page_names_what_there_is():
    """Presets, keys of the config and files that it speaks of."""
    text = PAGE.read_text("utf-8")
    tree = load_config("1.3b-64m-1t").model_dump()
    for section, key in set(re.findall(r"`?\b(training|parallel|corpus|memory|data|evaluation)\.([a-z_]+)", text)):
        assert key in tree[section], f"{section}.{key}"
    for name in set(re.findall(r"memx train ([a-z0-9.-]+)", text)) - {"my.yaml"}:
        load_config(name)
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (PAGE.parent / link).exists(), link
