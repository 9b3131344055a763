"""Options of the subcommands of `memx bench`, one alias for each, so that a command fits a screen."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..completion import MODELS, POLICIES, complete_of, op_names
from ..options import ADVANCED, Allocation, Dtype, option

OUTPUT = "Output and comparison"
_BY_DEVICE = "bfloat16 on CUDA, float32 on a CPU"


class Compile(StrEnum):
    """The shapes of an op at which torch.compile of its definition is timed too."""

    all = "all"
    last = "last"
    none = "none"


class Measured(StrEnum):
    """What of eviction is measured."""

    prefill = "prefill"
    decode = "decode"
    generate = "generate"


class Mode(StrEnum):
    """When the candidates of a generation evict."""

    post_hoc = "post_hoc"
    online = "online"


# what is measured
Ops = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OP",
        help="Ops to measure; `memx bench list` lists them.",
        show_default="all",
        autocompletion=complete_of(op_names),
    ),
]
EvictionParts = Annotated[
    list[Measured] | None,
    typer.Argument(
        metavar="prefill|decode|generate",
        help="What to measure: reading a prompt, generating after it, or both in a new process.",
        show_default="prefill decode",
    ),
]
Shapes = Annotated[
    list[str] | None,
    option(
        metavar="small|large|KEY=N,...",
        help="Shapes: small, large, or sizes to change, e.g. N=2^20,D=512. Repeatable.",
        default="small on a CPU, large on CUDA",
    ),
]
ModelShape = Annotated[
    list[str] | None,
    option(
        "--shapes",
        metavar="small|large|KEY=N,...",
        help="Shape: small, large, or sizes to change, e.g. width=128. Repeatable.",
        default="small on a CPU, large on CUDA",
    ),
]
Sizes = Annotated[
    list[str] | None,
    option("--shapes", metavar="KEY=N,...", help="Sizes to change, e.g. tokens=512,width=256. Repeatable."),
]
Slots = Annotated[
    list[int] | None,
    option(metavar="SLOTS", help="Table size: a square number of slots. Repeatable.", default="by device"),
]
ModelsOf = Annotated[
    str | None,
    option(
        "--config",
        metavar="PRESET|FILE.yaml",
        help="Training config whose models are timed, each once.",
        default="a model of each kind",
    ),
]

# where and how
Device = Annotated[str, option(metavar="DEVICE", help="Device to measure on: auto, cpu, cuda or cuda:N.")]
OpDtype = Annotated[Dtype | None, option(help="Data type of the inputs.", default=_BY_DEVICE)]
ModelDtype = Annotated[Dtype | None, option(help="Data type of the model.", default=_BY_DEVICE, panel=ADVANCED)]
Threads = Annotated[int | None, option(min=1, metavar="N", help="Number of CPU threads.", default="all cores")]
Seconds = Annotated[float, option(min=0.01, metavar="SECONDS", help="Time spent on each pass of each implementation.")]
Steps = Annotated[int, option(min=1, metavar="N", help="Training steps to time.")]
Rounds = Annotated[int, option("--steps", min=1, metavar="N", help="Timed repetitions of each measurement.")]
CompileAt = Annotated[
    Compile, option(help="Shapes at which torch.compile of the reference is timed too.", panel=ADVANCED)
]
Tune = Annotated[
    bool,
    option("--tune", help="First search for the fastest launch settings on this GPU, and keep them.", panel=ADVANCED),
]
ThirdParty = Annotated[bool, option("--third-party", help="Also measure other packages' layers (extra peers).")]
Presses = Annotated[
    bool, option("--third-party", help="Also measure kvpress's equivalents of the policies (extra peers).")
]

# eviction
BenchModel = Annotated[
    str,
    option(
        "--model",
        metavar="MODEL",
        help="tiny-llama or llama-8b (random weights), smollm2, a folder or a hub name.",
        complete=complete_of(("tiny-llama", "llama-8b", *MODELS)),
    ),
]
Layers = Annotated[
    int | None,
    option(min=1, metavar="N", help="Number of layers of tiny-llama or llama-8b.", default="4 and 32", panel=ADVANCED),
]
Context = Annotated[
    list[int] | None,
    option(min=1, metavar="TOKENS", help="Prompt length in tokens. Repeatable.", default="2048 on a CPU, 8192 on CUDA"),
]
Batch = Annotated[list[int] | None, option(min=1, metavar="N", help="Batch size in prompts. Repeatable.", default="1")]
PromptsPerGeneration = Annotated[
    list[int] | None, option("--batch", min=1, metavar="N", help="Prompts per generation. Repeatable.", default="1")
]
Modes = Annotated[
    list[Mode] | None,
    option(
        "--mode",
        help="Evict once after the context (post_hoc) or while reading it (online). Repeatable.",
        default="both",
    ),
]
Population = Annotated[int, option(min=2, metavar="N", help="Candidates per generation.")]
Policy = Annotated[
    list[str] | None,
    option(
        metavar="POLICY",
        help="Policy to measure, or FILE.py:CLASS; the unmodified model is always included. Repeatable.",
        default="all",
        complete=complete_of(("namm", *POLICIES)),
    ),
]
SavedNamm = Annotated[
    list[str] | None,
    option(
        "--namm",
        metavar="NAMM",
        help="Saved NAMM to measure, with its own allocation: a folder, run, shipped or hub name. Repeatable.",
        default="universal, if no --policy is named",
    ),
]
Budget = Annotated[
    list[float] | None,
    option(
        metavar="SHARE|TOKENS",
        help="Cache budget: share of all tokens kept, or tokens per head. Repeatable.",
        default="0.5",
    ),
]
AllocationOption = Annotated[
    list[Allocation] | None,
    option(
        "--allocation",
        help="How heads share the budget; table is a made one, very unequal. Repeatable.",
        default="equal",
    ),
]
Interval = Annotated[int, option("--interval", metavar="TOKENS", help="Tokens between evictions, a multiple of 16.")]
NewTokens = Annotated[int, option(min=1, metavar="TOKENS", help="Tokens to generate after the prompt.")]

# output
Save = Annotated[
    Path | None,
    option(metavar="FOLDER", help="Save rows.jsonl and environment.json here, after each benchmark.", panel=OUTPUT),
]
Force = Annotated[bool, option("--force", help="Overwrite results that the --save folder contains.", panel=OUTPUT)]
Against = Annotated[
    Path | None,
    option(metavar="FOLDER|ROWS", help="Compare with saved results: a --save folder or its rows.jsonl.", panel=OUTPUT),
]
Json = Annotated[bool, option("--json", help="Print rows, or the comparison, as JSON on stdout.", panel=OUTPUT)]
