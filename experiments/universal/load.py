"""`decision:RUN` or `video:RUN` -> the trained host, once torch is needed; before that, what its run folder says."""

from __future__ import annotations

from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MemxError, nearest, shown
from ...results.store.resuming import resume_hint
from ...results.store.runs import Run, run_config
from ..config.eviction.universal_eval import TrainedHost
from ..config.hosts.kinds import KINDS
from ..other_hosts.measured import PolicyHost

ONLINE = "online"
WEIGHTS = "checkpoint/model.safetensors"  # of the run of every such host


class HostRun(NamedTuple):
    """The run that trained a host: its kind, its folder and the checksum of its weights."""

    kind: str
    folder: Path
    sha256: str


def find_host_run(spec: str, runs: Path) -> HostRun:
    """Find the run that a host is named by. No torch.

    Args:
        spec: KIND:RUN, such as decision:decision-1a2b3c4d; RUN is a run's name or the path of its folder.
        runs: The folder of runs.

    Returns:
        The run.

    Raises:
        MemxError: It is no such spec, or there is no finished run of that kind.
    """
    kind, colon, name = spec.partition(":")
    if not colon or not name or kind not in KINDS:
        hint = nearest(kind, list(KINDS)) if kind not in KINDS else None
        raise MemxError(
            f"--host {shown(spec)} is not KIND:RUN", hint=hint or f"for example --host {next(iter(KINDS))}:RUN"
        )
    folder = Path(name) if (Path(name) / "config.yaml").is_file() else runs / name
    run = Run(folder)
    if not (folder / "config.yaml").is_file():
        near = nearest(name, [path.name for path in runs.glob("*") if path.is_dir()]) if runs.is_dir() else None
        raise MemxError(f"no run {shown(name)} in {runs}", hint=near or f"train one first: memx train {kind}")
    if run_config(run).get("trains") != kind:
        raise MemxError(f"{folder} is no run of memx train {kind}", hint=f"train one first: memx train {kind}")
    if run.status != "finished" or not (folder / WEIGHTS).is_file():
        raise MemxError(f"the run {folder} is not finished", hint=resume_hint(run))
    return HostRun(kind, folder, checksum(folder))


def checksum(folder: Path) -> str:
    """The checksum of the weights of a run."""
    with (folder / WEIGHTS).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def load_policy_host(host: TrainedHost, runs: Path, mode: str | None = None) -> PolicyHost:
    """Load the host of an evaluation.

    Args:
        host: Its section of the config.
        runs: The folder of runs.
        mode: When policies evict: at every interval ("online"), or once, after what is read ("post_hoc"). None: as
            the host's own evaluations do.

    Returns:
        The host, ready to be measured.

    Raises:
        MemxError: Its run is not there or has other weights than the config says, or it has no such mode.
    """
    found = find_host_run(f"{host.kind}:{host.run}", runs)
    if found.sha256 != host.sha256:
        raise MemxError(
            f"the weights of {found.folder} changed since this evaluation started",
            hint="start a new evaluation of it",
        )
    load: Any = import_module(f"...{KINDS[host.kind].folder}.host", __name__).load_host
    loaded = load(found.folder, host.device)
    if mode is not None:
        if mode not in getattr(loaded, "modes", (ONLINE,)):
            raise MemxError(f"mode {mode} means nothing for {host.kind} hosts", hint=f"set mode to {ONLINE}")
        loaded.mode = mode
    return loaded
