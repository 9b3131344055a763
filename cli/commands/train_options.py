"""The options of `memx train`: an alias for each, so that the command itself fits a screen."""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import MODELS, complete_of, complete_training_presets
from .options import ADVANCED, DATA, MODEL, option

_PRESET = "the preset's"

# one alias for each option
Source = Annotated[
    str | None,
    typer.Argument(
        metavar="PRESET|FILE.yaml",
        help="Preset or config file to train; `memx presets` lists the presets.",
        show_default="facts, or retrofit with --init-from",
        autocompletion=complete_training_presets,
    ),
]
Facts = Annotated[
    list[str] | None,
    option(
        metavar="FILE|TABLE",
        help="Facts: a file (CSV, TSV, JSON, Parquet, Excel) or a built-in table. Repeatable.",
        default=_PRESET,
        complete=complete_of(("airports", "elements", "countries", "biographies")),
    ),
]
InitFrom = Annotated[
    str | None,
    option(
        metavar="MODEL",
        help="Start from a pretrained Llama-family model: smollm2, a folder or a hub name.",
        complete=complete_of(MODELS[:1]),
    ),
]
Slots = Annotated[
    list[int] | None,
    option(
        metavar="N",
        help="Memory slots, a square number; 0 trains the dense model. Repeat it to train one model each.",
        default=_PRESET,
    ),
]
Steps = Annotated[int | None, option(metavar="N", help="Training steps.", default=_PRESET)]
DryRun = Annotated[bool, option("--dry-run", help="Print sizes, costs and run folders; train nothing.")]
Corpus = Annotated[
    list[str] | None,
    option(
        metavar="PATH|DATASET",
        help="Text to train on instead of facts: files, a folder or a hub data set. Repeatable.",
        panel=DATA,
    ),
]
Columns = Annotated[
    str | None,
    option(
        metavar="subject=NAME,…",
        help="Columns of facts files with other names: subject=Name,object=Value or question=Q,answer=A.",
        default="subject, relation, object, or question, answer",
        panel=DATA,
    ),
]
Template = Annotated[
    list[str] | None,
    option(
        "--template",
        metavar="TEXT",
        help="How complete questions are put, e.g. 'Q: {question}\\nA: {answer}'. Repeatable.",
        default="Question: {question}\\nAnswer: {answer}",
        panel=DATA,
    ),
]
Tokenizer = Annotated[
    str | None,
    option(
        metavar="NAME|FOLDER",
        help="Tokenizer for --corpus: a hub name or a folder.",
        default="trained on the corpus",
        panel=DATA,
    ),
]
TrainWhat = Annotated[
    str | None,
    option(
        "--train",
        metavar="all|memory|slots|lora",
        help="Which weights to train with --init-from.",
        default=_PRESET,
        panel=MODEL,
    ),
]
Variants = Annotated[
    list[str] | None,
    option(
        "--variant",
        metavar="NAME",
        help="Train only this variant of the preset. Repeatable.",
        default="all variants",
        panel=MODEL,
    ),
]
Match = Annotated[
    str | None,
    option(
        metavar="flops|parameters|none",
        help="Resize the models so that all have equal FLOPs or parameters.",
        default=_PRESET,
        panel=MODEL,
    ),
]
DeviceOption = Annotated[
    str | None, option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.", default="auto", panel=ADVANCED)
]
Seed = Annotated[
    list[int] | None,
    option(
        metavar="N",
        help="Random seed for weight initialization and data order. Repeat it to train one model each.",
        default="0",
        panel=ADVANCED,
    ),
]
Jobs = Annotated[
    int, option(min=1, metavar="N", help="Models of a sweep to train at once, one process each.", panel=ADVANCED)
]
