"""The options of `memx eval-namm`, an alias each, so that the command itself fits a screen."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .completion import POLICIES, complete_of, namm_names
from .options import ADVANCED, DATA, Allocation, option

_RUN = "the run's"


class Mode(StrEnum):
    """When a policy evicts."""

    post_hoc = "post_hoc"
    online = "online"


class Question(StrEnum):
    """When the question is read."""

    after = "after"
    before = "before"


class Split(StrEnum):
    """Which prompts are evaluated."""

    train = "train"
    validation = "validation"
    test = "test"


Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN|FOLDER|NAME|FILE.yaml",
        help=f"Evolution runs, folders of saved NAMMs, {', '.join([*namm_names(), 'hub names, or a config.yaml'])}.",
        autocompletion=complete_of(namm_names),
    ),
]
Policy = Annotated[
    list[str] | None,
    option(
        metavar="POLICY",
        help="Policy to compare with, or FILE.py:CLASS; the full cache is always included. Repeatable.",
        default="all but kvzip",
        complete=complete_of((*POLICIES[1:], "kvzip")),
    ),
]
Budget = Annotated[
    list[float] | None,
    option(
        metavar="SHARE|TOKENS",
        help="Cache budget: share of all tokens kept, or tokens per head (512). Repeatable.",
        default="0.75, 0.5, 0.25 and 0.125",
    ),
]
AllocationOption = Annotated[
    list[Allocation] | None,
    option(
        "--allocation",
        help="How heads share a budget; each policy is evaluated with every allocation. Repeatable.",
        default="equal, and the NAMM's own",
    ),
]
Shares = Annotated[
    Path | None,
    option(
        metavar="FILE",
        help="Table of head shares (JSON), for --allocation table.",
        default="the NAMM's, or measured with KVzip's scores on training prompts",
        panel=ADVANCED,
    ),
]
Host = Annotated[
    str | None,
    option(
        "--host",
        metavar="KIND:RUN",
        help="Evaluate on a decision transformer or video model instead: decision:RUN or video:RUN.",
    ),
]
ThirdParty = Annotated[
    bool, option("--third-party", help="Also evaluate kvpress's policies (extra peers; post_hoc mode only).")
]
Generate = Annotated[
    bool, option("--generate", help="Also generate answers, and score them by each task's own metric.")
]
ModeOption = Annotated[
    Mode | None,
    option(
        help="Evict once after the context (post_hoc) or while reading it (online).", default="the run's, or post_hoc"
    ),
]
QuestionOption = Annotated[
    Question | None,
    option(
        "--question",
        help="Read the question after eviction, or before, with the context, so that policies see it.",
        default="after",
    ),
]
DryRun = Annotated[bool, option("--dry-run", help="Print tasks, prompts and costs; load nothing.")]
Task = Annotated[
    list[str] | None,
    option(
        metavar="TASK",
        help="Task family, ruler, or NAME of ruler/, longbench/, longbench-v2/, infinitebench/ or zeroscrolls/.",
        default="the run's and all held-out families",
        panel=DATA,
    ),
]
Length = Annotated[int | None, option(metavar="TOKENS", help="Maximum prompt length.", default=_RUN, panel=DATA)]
Prompts = Annotated[
    int | None,
    option(metavar="N", help="Prompts per task family; with --host, episodes or questions.", default="16", panel=DATA),
]
SplitOption = Annotated[Split | None, option("--split", help="Prompts to use.", default="test", panel=DATA)]
Interval = Annotated[
    int | None,
    option(
        "--interval",
        metavar="TOKENS",
        help="Mode online: tokens between evictions, a multiple of 16.",
        default="the NAMM's",
        panel=ADVANCED,
    ),
]
Reuse = Annotated[
    Path | None,
    option(
        metavar="RUN",
        help="Take measurements of the same prompts from this finished evaluation; measure only what it lacks.",
        default="none",
        panel=ADVANCED,
    ),
]
Before = Annotated[
    Path | None,
    option(
        metavar="RUN",
        help="Compare with this finished evaluation of the model before it was trained, on the same prompts.",
        default="none",
        panel=ADVANCED,
    ),
]
Seed = Annotated[int | None, option(metavar="N", help="Random seed for the prompts.", default="0", panel=ADVANCED)]
Threads = Annotated[int | None, option(metavar="N", help="Number of CPU threads.", default="all cores", panel=ADVANCED)]
