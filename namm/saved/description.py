"""What namm.json says: which network the numbers are of, what it reads, and how its scores become a choice.

Format 1 is of versions of memx whose NAMMs all read the published features; it is read as it was meant.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from ...errors import MemxError, plain_reason
from ...json_text import BadJson, parse_json
from ...version import __version__
from ..policies.base import Rule
from ..policies.features import attention, expected, feature
from ..policies.features.registry import PUBLISHED, FeatureSet
from ..policies.features.spectrum import AGES, DECAY, HOP, N_FFT, OLD_EPS, SMALLEST_DEVIATION
from ..policies.head_table import HeadTable
from ..policies.keep import Allocation, Grouping
from ..policies.network import Namm
from ..policies.scorer import Activation, Scorer, count, network_sizes
from ..policies.shares import HeadShares
from .places import DESCRIPTION, TENSORS

FORMAT = 2  # raise it when a NAMM of before would be read wrongly
# what the numbers of a NAMM mean; one made with others would load and decide nonsense
_SPECTRUM: dict[str, Any] = {
    "n_fft": N_FFT,
    "hop": HOP,
    "window": "hann periodic",
    "decay": DECAY,
    "age base": 50_000,
    "ages": AGES,
    "smallest deviation": SMALLEST_DEVIATION,
    "parameters": "of each layer: weight (in x out), bias",
}
CONSTANTS: dict[int, dict[str, Any]] = {
    1: _SPECTRUM | {"features": "age, spectrum"},
    2: _SPECTRUM
    | {
        "gelu": "by the error function",
        "recent queries": attention.RECENT,
        "future positions": expected.FUTURE,
        "first tokens": feature.SINKS,
        "added to attention": attention.SMALL,
        "added to expected attention": expected.SMALL,
    },
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class _Rule(_Strict):
    threshold: float
    budget: float | None
    grouping: Grouping
    allocation: Allocation = "equal"
    shares: dict[str, Any] | None = None
    first: NonNegativeInt = 0
    newest: NonNegativeInt = 0


class _Table(_Strict):
    layers: PositiveInt
    heads: PositiveInt
    bias: bool
    embedding: NonNegativeInt


class Description(_Strict):
    """The content of namm.json."""

    format: int
    memx: str
    name: str
    features: tuple[str, ...] = PUBLISHED
    scorer: Scorer
    hidden: tuple[PositiveInt, ...]
    activation: Activation = "relu"
    strict: bool
    table: _Table | None = None
    rule: _Rule
    every: PositiveInt
    constants: dict[str, Any]
    host: str | None
    tasks: tuple[str, ...]
    sha256: str


# what a description of each format must say; pydantic's defaults are for what the older one does not
_KEYS = {
    1: set(Description.model_fields) - {"features", "activation", "table"},
    2: set(Description.model_fields),
}


def describe(namm: Namm, host: str | None, tasks: Sequence[str], sha256: str) -> str:
    """The text of namm.json; `understand` checks what is in it."""
    rule, table = namm.rule, namm.table
    described = Description.model_construct(
        format=FORMAT,
        memx=__version__,
        name=namm.name,
        features=tuple(namm.features),
        scorer=namm.scorer,
        hidden=tuple(namm.hidden),
        activation=namm.activation,
        strict=namm.strict,
        table=table and _Table.model_construct(**vars(table)),
        rule=_Rule.model_construct(
            threshold=rule.threshold,
            budget=rule.budget,
            grouping=rule.grouping,
            allocation=rule.allocation,
            shares=rule.shares and rule.shares.tree(),
            first=rule.first,
            newest=rule.newest,
        ),
        every=namm.every,
        constants=_with_eps(CONSTANTS[FORMAT]) if namm.eps == OLD_EPS else CONSTANTS[FORMAT],
        host=host,
        tasks=tuple(tasks),
        sha256=sha256,
    )
    return described.model_dump_json(indent=2, warnings=False) + "\n"


def understand(text: str) -> Description:
    """What namm.json says. Raises ValueError with one line if it is damaged or means something else than here."""
    try:
        content = parse_json(text)
    except BadJson as error:
        raise ValueError(f"{DESCRIPTION}: {error.reason}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{DESCRIPTION} does not describe a NAMM")
    version = content["format"]
    if version not in (1, 2) or isinstance(version, bool | float):
        raise ValueError(f"its format version is {version}, this memx ({__version__}) reads 1 and 2")
    _check_constants(content.get("constants"), CONSTANTS[version])
    try:
        described = Description.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{DESCRIPTION}: {'.'.join(map(str, first['loc']))}: {plain_reason(first)}") from None
    for name in sorted(_KEYS[version] ^ content.keys()):
        wrong = "is missing" if name in _KEYS[version] else f"is not a known key of format {version}"
        raise ValueError(f"{DESCRIPTION}: {name}: {wrong}")
    if described.rule.threshold != described.rule.threshold:
        raise ValueError(f"{DESCRIPTION}: the threshold is not a number")
    return described


def namm_of(described: Description, tensors: dict[str, Tensor]) -> Namm:
    """The NAMM of a description and its tensors. Raises ValueError with one line on what is wrong."""
    try:
        features = FeatureSet(described.features)
        table = described.table and HeadTable(**dict(described.table))
        inputs = features.inputs + (table.embedding if table else 0)
        wanted = count(network_sizes(described.scorer, inputs, described.hidden)) + (table.count if table else 0)
        standardised = int(features.standardised.sum())
        for name, length in (("parameters", wanted), ("mean", standardised), ("variance", standardised)):
            _check_vector(name, tensors.get(name), length)
        if (tensors["variance"] < 0).any():
            raise ValueError("a variance is negative")
        rule = dict(described.rule)
        shares = rule.pop("shares")
        return Namm(
            parameters=tensors["parameters"],
            mean=tensors["mean"],
            variance=tensors["variance"],
            rule=Rule(**rule, shares=None if shares is None else HeadShares.from_tree(shares)),
            every=described.every,
            scorer=described.scorer,
            hidden=described.hidden,
            strict=described.strict,
            name=described.name,
            eps=0.0 if "smallest deviation" in described.constants else OLD_EPS,
            features=described.features,
            activation=described.activation,
            table=table,
        )
    except MemxError as error:
        raise ValueError(error.message) from None


def _with_eps(constants: dict[str, Any]) -> dict[str, Any]:
    """Constants of an older memx, which added a constant to the variance and knew no smallest deviation."""
    return {name: value for name, value in constants.items() if name != "smallest deviation"} | {"eps": OLD_EPS}


def _check_constants(constants: Any, known: dict[str, Any]) -> None:
    """Raise ValueError unless the constants of a file are those of this memx."""
    if not isinstance(constants, dict):
        raise ValueError(f"{DESCRIPTION} has no constants")
    if "smallest deviation" not in constants:
        known, constants = _with_eps(known), {"eps": OLD_EPS, **constants}
    for name in sorted({*constants, *known}):
        theirs, ours = (json.dumps(given[name]) if name in given else "nothing" for given in (constants, known))
        if theirs != ours:
            raise ValueError(f"its constant {name!r} is {theirs}, this memx uses {ours}")


def _check_vector(name: str, vector: Tensor | None, length: int) -> None:
    if vector is None:
        raise ValueError(f"{TENSORS} contains no {name}")
    if vector.shape != (length,):
        raise ValueError(f"{name} has shape {list(vector.shape)}, not [{length}]")
    if vector.dtype != torch.float32:
        raise ValueError(f"{name} is {vector.dtype}, not float32")
    if not vector.isfinite().all():
        raise ValueError(f"{name} contains values that are not finite")
