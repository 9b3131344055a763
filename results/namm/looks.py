"""How policies look in figures: a colour each, NAMMs strong, dashed in their colour with the same share in every head.

Presses of kvpress are dashed in the colour of the policy of memx that they are. Where heads share a budget by one
threshold lines are dotted, by a table of shares dash-dotted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..labels import host_label
from ..store.rows import Row
from ..style import CYCLE, NAMM_COLOURS, POLICY_COLOURS, POLICY_LABELS, POLICY_MARKERS
from .curves import Curve
from .rows import CEILING_PRESSES, NAMM, PER_HEAD, PRESSES, THRESHOLD, is_namm, split_allocation

_LINES = {
    "": "-",
    PER_HEAD: "--",
    " global": ":",
    " table": "-.",
    THRESHOLD: ":",
    " layer_max": (0, (5, 1, 1, 1, 1, 1)),
}
_MOST_NAMED = 2  # evaluations that a caption names


class Look(NamedTuple):
    """Colour of lines and of names, marker, kind of line; strong for NAMMs."""

    colour: str
    ink: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    strong: bool


def looks_of(drawn: Iterable[Curve]) -> dict[str, Look]:
    """The look of each policy of these curves."""
    policies = {curve.policy: curve.package for curve in drawn}
    namms = list(dict.fromkeys(split_allocation(policy)[0] for policy in policies if is_namm(policy)))
    others = [policy for policy in policies if _memx_policy(policy) not in POLICY_COLOURS and not is_namm(policy)]
    looks: dict[str, Look] = {}
    for policy, package in policies.items():
        named, suffix = split_allocation(policy)
        if is_namm(policy):
            colour = NAMM_COLOURS[namms.index(named) % len(NAMM_COLOURS)]
            looks[policy] = Look(colour, colour, "o", _LINES[suffix], True)
            continue
        name = _memx_policy(policy)
        colour = POLICY_COLOURS.get(name) or CYCLE[others.index(policy) % len(CYCLE)]
        ink = {"#999999": "0.4", "#E69F00": "#A87400", "#56B4E9": "#2C87BD"}.get(colour, colour)
        line = _LINES[suffix] if package == "memx" else "--"
        looks[policy] = Look(colour, ink, POLICY_MARKERS.get(name, "o"), line, False)
    return looks


def policy_label(policy: str, among: Iterable[str]) -> str:
    """A policy's name in a figure or table: NAMM if there is one, else with what tells it from the others."""
    named, suffix = split_allocation(policy)
    if is_namm(policy):
        if len({split_allocation(other)[0] for other in among if is_namm(other)}) == 1:
            named = NAMM
        run = named.removeprefix(NAMM).removeprefix(" ").removeprefix(f"{NAMM}-")  # runs are called namm-universal, say
        return " ".join(filter(None, (POLICY_LABELS[NAMM], run))) + suffix
    name = _memx_policy(policy)
    label = POLICY_LABELS.get(name, name)
    return label + suffix if name == named else f"{label} (kvpress)"


def evaluation_caption(rows: Sequence[Row]) -> str:
    """What was evaluated, and how."""
    first, labels = rows[0], rows[0].labels
    mode = {"post_hoc": "evicted once after prefill", "online": "evicted while reading and answering"}.get(labels.mode)
    asked = "question read before eviction" if labels.question == "before" else None
    length = f"{labels.length:,} tokens" if labels.length else None
    names = list(dict.fromkeys(row.experiment for row in rows))
    title = " + ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} evaluations"
    devices = ", ".join(sorted({row.device for row in rows if row.device}))
    others = sorted({row.labels.evolved_on for row in rows if is_namm(row.variant)} - {"", first.model})
    moved = f"NAMM evolved on {', '.join(map(host_label, others))}" if others else None
    models = list(dict.fromkeys(row.model for row in rows))
    model = host_label(first.model) if len(models) == 1 else f"{len(models)} models"
    return " · ".join(part for part in (title, model, moved, mode, asked, length, devices) if part)


def _memx_policy(policy: str) -> str:
    """The policy of memx that a press is; any other by its own name, without its allocation."""
    package, _, press = policy.partition(" ")
    return (PRESSES | CEILING_PRESSES).get(press, press) if package == "kvpress" else split_allocation(policy)[0]
