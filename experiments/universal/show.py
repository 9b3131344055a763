"""`memx evict --host`: one episode or question of a host under a policy -> what its cache holds at the end, to read."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ...namm.policies.base import check_interval
from ...results.eviction.report import EvictionReport
from ..config.hosts.kinds import KINDS
from ..eviction.policy import EvictConfig, build_policy
from .load import find_host_run


def show_unit(config: EvictConfig, runs: Path, unit: int) -> EvictionReport:
    """Run one unit of a host under a policy.

    Args:
        config: The policy; its host is KIND:RUN. Without an interval, that of the host's own evaluations.
        runs: The folder of runs.
        unit: The number of the episode or question.

    Returns:
        What the cache holds.

    Raises:
        MemxError: There is no such host or policy, or its kind has no such page.
    """
    found = find_host_run(config.host, runs)
    folder = KINDS[found.kind].folder
    try:
        page: Any = import_module(f"...{folder}.page", __name__)
    except ModuleNotFoundError:
        raise MemxError(f"memx evict does not show a {found.kind} host", hint="use memx eval-namm --host") from None
    host = import_module(f"...{folder}.host", __name__).load_host(found.folder, config.device)
    policy = build_policy(config)
    if config.every is None and policy.every is not None:
        policy = build_policy(replace(config, every=host.every))
    if policy.every is None:
        raise MemxError("the policy full evicts nothing", hint="use another policy")
    check_interval(policy)
    return page.episode_report(host, policy, unit, compare=config.compare)
