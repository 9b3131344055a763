"""`memx train` for models that read no text: decision transformers and video models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....errors import MemxError
from ...output.console import note, print_json

if TYPE_CHECKING:
    from ....experiments.config.hosts.kinds import HostPoint
    from ....experiments.runtime.options import Options


def other_kind(source: str) -> str | None:
    """The kind of model that a preset or file trains, other than a language model; None for a language model.

    Args:
        source: A preset's name or a YAML file's path.

    Raises:
        MemxError: There is no such source, or the kind is unknown.
    """
    from ....experiments.config.hosts.kinds import trained_kind
    from ....experiments.config.presets import read_tree

    return trained_kind(read_tree(source))


def train_other(
    source: str,
    given: Sequence[tuple[str, Any]],
    seeds: Sequence[int],
    options: Options,
    *,
    refused: Mapping[str, Any],
    dry_run: bool,
    json: bool,
) -> None:
    """Train such models, or say what that would be.

    Args:
        source: A preset's name or a YAML file's path.
        given: Config keys and values of the command line.
        seeds: Seeds, one run each; none for the config's own.
        options: Where runs go.
        refused: Options that mean nothing here, by spelling, with what was given.
        dry_run: Print only what would be done.
        json: Print as JSON.

    Raises:
        MemxError: An option means nothing here, or a key or value is wrong.
    """
    from ....experiments.config.hosts.kinds import host_points

    for option, value in refused.items():
        if value not in (None, False, [], ()):
            raise MemxError(f"{option} means nothing for {source}", hint=f"leave it out; see memx config show {source}")
    points = host_points(source, given, seeds)
    if dry_run:
        _dry_run(points, options, json)
    else:
        _train(points, options, json)


def _train(points: Sequence[HostPoint], options: Options, json: bool) -> None:
    from ....experiments.universal.train import train_hosts
    from ...output.host_summary import print_host_training
    from ...output.progress import ProgressDisplay

    with ProgressDisplay([point.name for point in points], quiet=json, clock=True) as display:
        rows = train_hosts(points, options, display.report_of)
    if json:
        print_json([row.model_dump() for found in rows.values() for row in found])
        return
    print_host_training(rows)
    first = points[0]
    note(f"runs are in {options.runs}; next: memx eval-namm --host {first.config.trains}:{first.name}")


def _dry_run(points: Sequence[HostPoint], options: Options, json: bool) -> None:
    from ....experiments.universal.train import cost_of
    from ...output.host_summary import print_host_costs

    costs = {point.name: cost_of(point, options) for point in points}
    if json:
        print_json([{"run": name, "folder": str(options.runs / name), **cost} for name, cost in costs.items()])
        return
    print_host_costs(costs, options.runs)
