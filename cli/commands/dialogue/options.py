"""Options that `memx ask` and `memx chat` share: the model, how it answers, and what evicts from its cache."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..completion import MODELS, POLICIES, complete_of, namm_names
from ..options import ADVANCED, EVICTION, Dtype, option

__all__ = ["Budget", "DtypeOption", "Form", "Interval", "Model", "Namm", "Policy", "Sample", "Seed", "Temperature"]

SAMPLED = 0.7  # the temperature of --sample


class Form(StrEnum):
    """How a question is put to a model."""

    auto = "auto"
    plain = "plain"
    question = "question"
    chat = "chat"


Model = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER|NAME",
        help="A run of memx train, a checkpoint folder, smollm2, gemma3-270m or a hub name.",
        autocompletion=complete_of(MODELS),
    ),
]
Sample = Annotated[bool, option("--sample", help=f"Sample the answer, at temperature {SAMPLED} unless set.")]
Temperature = Annotated[
    float | None, option(metavar="T", help="Temperature for sampling; implies --sample.", default="greedy")
]
Seed = Annotated[int, option(min=0, max=2**31 - 1, metavar="N", help="Random seed for sampling.", panel=ADVANCED)]
Policy = Annotated[
    str | None,
    option(
        metavar="POLICY|FILE.py:CLASS",
        help="Evict tokens from the cache with this policy, e.g. snapkv; see memx policies list.",
        default="keep all tokens",
        panel=EVICTION,
        complete=complete_of(POLICIES),
    ),
]
Namm = Annotated[
    Path | None,
    option(
        metavar="FOLDER|NAME",
        help=f"Saved NAMM that evicts: {', '.join([*namm_names(), 'a folder, a run or a hub name'])}.",
        panel=EVICTION,
        complete=complete_of(namm_names),
    ),
]
Budget = Annotated[
    float | None,
    option(
        metavar="SHARE|TOKENS",
        help="Cache budget: share of all tokens that each eviction keeps, or tokens per head.",
        default="0.5, or the NAMM's",
        panel=EVICTION,
    ),
]
Interval = Annotated[
    int | None,
    option(
        "--interval",
        metavar="TOKENS",
        help="Tokens between evictions, a multiple of 16.",
        default="512, or the NAMM's",
        panel=EVICTION,
    ),
]
DtypeOption = Annotated[
    Dtype | None, option(help="Data type of the model.", default="bfloat16 on CUDA, float32 on a CPU", panel=ADVANCED)
]


def temperature_of(sample: bool, temperature: float | None) -> float | None:
    """The temperature of two options: that of sampling, or None for greedy answers.

    Args:
        sample: Whether --sample was given.
        temperature: What --temperature was given.
    """
    return SAMPLED if sample and temperature is None else temperature
