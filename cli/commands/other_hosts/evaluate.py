"""`memx eval-namm --host KIND:RUN`: NAMMs and their rivals on a decision transformer or a video model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import MemxError
from ...output.console import note, print_json

if TYPE_CHECKING:
    from ....experiments.runtime.options import Options

_NAMM = Path("universal")  # what is evaluated if no NAMM is named


def eval_on_host(
    host: str | None,
    config: str | None,
    folders: Sequence[Path],
    given: Sequence[tuple[str, Any]],
    options: Options,
    *,
    refused: Mapping[str, Any],
    dry_run: bool,
    json: bool,
) -> None:
    """Evaluate on such a host, or say what that would be.

    Args:
        host: KIND:RUN; None: that of the config.
        config: The config file; None: the defaults.
        folders: NAMMs.
        given: Config keys and values of the command line.
        options: Where runs are.
        refused: Options that mean nothing here, by spelling, with what was given.
        dry_run: Print only what would be done.
        json: Print as JSON.

    Raises:
        MemxError: An option means nothing here, or the host, a NAMM, a key or a value is wrong.
    """
    from ....experiments.config.loading import load_universal_eval_config
    from ....experiments.policy_eval.sources import with_policy_sources
    from ....experiments.universal.plan import check_free, evaluation_plan, evaluation_tree

    for option, value in refused.items():
        if value not in (None, False, [], ()):
            raise MemxError(f"{option} means nothing with --host", hint="leave it out")
    tree: Any = config
    if config is None:
        assert host is not None
        tree = evaluation_tree(host, folders or [_NAMM], options.runs)
    resolved = with_policy_sources(load_universal_eval_config(tree, given))
    if dry_run:
        from ...output.host_summary import print_host_evaluation_plan

        plan = evaluation_plan(resolved, options.runs)
        print_json(plan) if json else print_host_evaluation_plan(plan)
        return
    name = check_free(resolved, options)
    from ....experiments.universal.run import evaluate_on_host
    from ...output.host_summary import print_host_evaluation
    from ...output.progress import ProgressDisplay

    with ProgressDisplay([name], quiet=json) as display:
        rows = evaluate_on_host(resolved, options, display.report)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_host_evaluation(rows)
    note(f"next: memx plot universal {options.runs / name}")
