"""Panels of help, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import MemxError
from .completion import MODELS, complete_of

# groups of commands in `memx --help`
MEMORY_LAYERS = "Memory layers"
NAMM_AND_EVICTION = "NAMM and eviction"
EVALUATE = "Evaluate and compare"
UTILITIES = "Utilities"

# groups of options in the help of a command, after the common ones
DATA = "Data"
MODEL = "Model"
RUN_FOLDER = "Run folder and output"
PLANNING = "Planning (with --dry-run)"
EVICTION = "Eviction"
ADVANCED = "Advanced"


class Allocation(StrEnum):
    """How the heads of a model share a cache budget."""

    equal = "equal"
    global_ = "global"
    table = "table"
    layer_max = "layer_max"


class Dtype(StrEnum):
    """Data types of ops and models."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


def option(
    *names: str,
    help: str,
    metavar: str | None = None,
    default: str | None = None,
    panel: str | None = None,
    complete: Callable[[str], Any] | None = None,
    **settings: Any,
) -> Any:
    """An option of a command.

    Args:
        names: Its spellings; from the name of the parameter if there are none.
        help: One sentence on what it does.
        metavar: What it takes, in capitals; the type of the parameter if it is None.
        default: What help shows as the default, where the parameter's own default is None.
        panel: The group of options that help lists it in; the first group if it is None.
        complete: From the text so far to the values that a shell offers.
        settings: Other settings of `typer.Option`.
    """
    return typer.Option(
        *names, help=help, metavar=metavar, show_default=default or True, rich_help_panel=panel,
        autocompletion=complete, **settings,
    )  # fmt: skip


def allocation_option(panel: str | None = None) -> Any:
    """The option `--allocation` of commands with one policy at a time.

    Args:
        panel: The group of options that help lists it in; the first group if it is None.
    """
    return option(
        "--allocation",
        help="How heads share the budget: equally, by one threshold (global) or a table of head shares.",
        default="equal, or the NAMM's",
        panel=panel,
    )


# aliases for parameters of commands; the last four plan a run on GPUs
Assignments = Annotated[
    list[str] | None,
    option(
        "--set", metavar="KEY=VALUE", help="Set any config key, e.g. training.batch=64. Repeatable.", panel=ADVANCED
    ),
]
Config = Annotated[
    str | None,
    option("--config", "-c", metavar="FILE.yaml", help="Config file, instead of the argument.", panel=ADVANCED),
]
ProtectFirst = Annotated[
    int | None,
    option(
        min=0,
        metavar="TOKENS",
        help="Always keep this many first tokens, within the budget.",
        default="the NAMM's, or 0",
    ),
]
ProtectNewest = Annotated[
    int | None,
    option(
        min=0,
        metavar="TOKENS",
        help="Always keep this many newest tokens, within the budget.",
        default="the NAMM's, or 0",
    ),
]
Device = Annotated[str, option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.", panel=ADVANCED)]
Force = Annotated[bool, option("--force", help="Delete an existing run and start over.", panel=RUN_FOLDER)]
Json = Annotated[bool, option("--json", help="Print rows as JSON on stdout.", panel=RUN_FOLDER)]
Name = Annotated[
    str | None,
    option(metavar="NAME", help="First part of the run folder's name.", default="the config's name", panel=RUN_FOLDER),
]
PretrainedModel = Annotated[
    str | None,
    option(
        "--model",
        metavar="MODEL",
        help="Base model: smollm2, gemma3-270m, a folder or a hub name.",
        default="the run's or preset's model",
        complete=complete_of(MODELS),
    ),
]
Resume = Annotated[bool, option("--resume", help="Continue a stopped run; keep a finished one.")]
Runs = Annotated[Path, option(metavar="FOLDER", help="Folder that contains the run folders.", panel=RUN_FOLDER)]
Gpus = Annotated[int | None, option(min=1, metavar="N", help="Number of GPUs to plan for.", panel=PLANNING)]
Gpu = Annotated[
    str | None, option(metavar="h100|h200|a100", help="Type of GPU to plan for.", default="h100", panel=PLANNING)
]
Utilization = Annotated[
    float | None,
    option(
        min=0.01, max=1.0, metavar="SHARE", help="Assumed share of the GPU's peak FLOPs.", default="0.4", panel=PLANNING
    ),
]
Tokens = Annotated[
    str | None,
    option(
        metavar="COUNT",
        help="Number of training tokens to plan for, e.g. 1T or 100B.",
        default="those of --steps",
        panel=PLANNING,
    ),
]


def check_resume(resume: bool, force: bool) -> None:
    """Raise MemxError if a run is both to continue and to start over.

    Args:
        resume: Whether --resume was given.
        force: Whether --force was given.
    """
    if resume and force:
        raise MemxError("--resume and --force exclude each other", hint="use one of them")


def one_or_sweep(key: str, values: Sequence[Any] | None) -> dict[str, Any]:
    """The setting of an option that trains one model for each of its values.

    Args:
        key: The config key of the option.
        values: What was given; None or empty if it was not.

    Returns:
        The key with its value, or the key of a sweep with all of them.
    """
    return {} if not values else {key: values[0]} if len(values) == 1 else {f"sweep.{key}": list(values)}


def given_values(
    flags: Mapping[str, Any], assignments: Iterable[str] | None, model: str | None = None
) -> list[tuple[str, Any]]:
    """Config keys with the values of those flags that were given, then those of --set.

    Args:
        flags: Config key, as `training.steps`, to the value of its flag; None or an empty list if it was not given.
        assignments: What --set was given, KEY=VALUE each.
        model: A base model by name, in place of one that a preset trains.

    Raises:
        MemxError: An assignment is not KEY=VALUE.
    """
    from ...experiments.config.loading import parse_assignment

    given = [(key, value) for key, value in flags.items() if value is not None and value != []]
    said = [*map(parse_assignment, assignments or [])]
    if model is not None:
        given += [("host.name", model), ("host.preset", None)]
        # the shape of a preset is that of its own model
        given += [("host.shape", None)] * all(key != "host.shape" for key, _ in said)
    return [*given, *said]
