"""`memx evolve-namm --host KIND:RUN`: evolve a NAMM on a decision transformer or a video model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....errors import MemxError
from ...output.console import note, print_json

if TYPE_CHECKING:
    from ....experiments.runtime.options import Options

_NAMM = "universal"  # where evolution starts if no NAMM is named


def evolve_on_other_host(
    host: str | None,
    config: str | None,
    start: str | None,
    given: Sequence[tuple[str, Any]],
    options: Options,
    *,
    refused: Mapping[str, Any],
    dry_run: bool,
    json: bool,
) -> None:
    """Evolve on such a host, or say what that would be.

    Args:
        host: KIND:RUN; None: that of the config.
        config: The config file; None: the defaults.
        start: The NAMM to start from; None: the universal one.
        given: Config keys and values of the command line.
        options: Where runs are.
        refused: Options that mean nothing here, by spelling, with what was given.
        dry_run: Print only what would be done.
        json: Print as JSON.

    Raises:
        MemxError: An option means nothing here, or the host, the NAMM, a key or a value is wrong.
    """
    from ....experiments.config.base import run_name
    from ....experiments.config.loading import load_universal_evolve_config
    from ....experiments.universal.plan import evolution_plan, evolution_tree
    from ....results.store.runs import RunStore
    from ...output.host_summary import print_host_evaluation_plan, print_host_evolution

    for option, value in refused.items():
        if value not in (None, False, [], ()):
            raise MemxError(f"{option} means nothing with --host", hint="leave it out")
    tree: Any = config
    if config is None:
        assert host is not None
        tree = evolution_tree(host, start or _NAMM, options.runs)
    resolved = load_universal_evolve_config(tree, given)
    if dry_run:
        plan = evolution_plan(resolved, options.runs)
        print_json(plan) if json else print_host_evaluation_plan(plan)
        return
    name = run_name(resolved)
    RunStore(options.runs).check_free(name, resume=options.resume, force=options.force)
    from ....experiments.universal.evolve import evolve_on_host
    from ...output.progress import ProgressDisplay

    with ProgressDisplay([name], quiet=json) as display:
        rows = evolve_on_host(resolved, options, display.report)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_host_evolution(rows)
    run, where = options.runs / name, f"{resolved.host.kind}:{resolved.host.run}"
    note(f"the NAMM is in {run / 'namm'}; next: memx eval-namm {run} --host {where}")
