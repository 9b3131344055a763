"""The master folders of a campaign, made once by forks that run memx: the workspace, and the same with older runs."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from ..ranks import free_port
from .forks import Call, Ended, start

_OLDER = (
    "train small.yaml --runs finished",
    "train small.yaml --runs finished --set seed=1 --set training.steps=2",
    "prepare corpus --field body --out again --vocabulary 280 --shard-tokens 3000",
)
_PARALLEL = "train small.yaml --runs stopped --set training.steps=400 --set training.checkpoint_every=2"


def workspace(root: Path) -> Path:
    """The folder of files that commands read, made if it is not there."""
    master = root / "master"
    if master.exists():
        return master
    for name in ("first", "making", "parts"):
        shutil.rmtree(root / name, ignore_errors=True)

    def work() -> None:  # torch works there, so this process can still fork
        from memx.cli.main import run

        from .workspace import make

        small = ("steps=4", "checkpoint_every=2", "threads=1")
        given = [part for one in small for part in ("--set", f"training.{one}")]
        given += ["--set", "evaluation.final_questions=4", "--runs", str(root / "first")]
        assert run(["train", "tiny", *given]) == 0
        (made,) = [path for path in (root / "first").iterdir() if path.is_dir()]
        make(root / "making", made)

    _well(start(Call(()), root, root / "workspace", run=work, wall=1_200.0, cpu=600).wait())
    _stop_parallel(root / "making", root)
    compiled = Call(("bench", "kernels"), {"XDG_CACHE_HOME": str(root / "caches")})  # once for all slots
    _well(start(compiled, root, root / "kernels", wall=1_200.0, cpu=600).wait())
    (root / "making").rename(master)
    shutil.rmtree(root / "first")
    return master


def with_finished(root: Path, master: Path) -> Path:
    """The workspace with older finished runs and an older corpus, which commands replace."""
    place, making = root / "master-kills", root / "making-kills"
    if place.exists():
        return place
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(master, making, symlinks=True)
    for line in _OLDER:
        _well(start(Call(tuple(line.split())), making, root / "finished").wait())
    making.rename(place)
    return place


def _stop_parallel(folder: Path, root: Path) -> None:
    """A run of two processes that was killed after its second save, as `parallel`."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    words = tuple(_PARALLEL.split())
    calls = [Call(words, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    ranks = [start(call, folder, root / f"rank-{place}") for place, call in enumerate(calls)]
    end = time.monotonic() + 200.0
    while time.monotonic() < end and not list(folder.glob("stopped/*/state/step-*4")):
        time.sleep(0.02)
    for rank in ranks:
        rank.kill(signal.SIGKILL)
    said = [rank.wait().err for rank in ranks]
    (made,) = [path for path in (folder / "stopped").iterdir() if path.is_dir()]
    if not list(made.glob("state/step-*")):
        raise SystemExit("\n".join(said))
    shutil.rmtree(folder / "parallel", ignore_errors=True)
    made.rename(folder / "parallel")
    shutil.rmtree(folder / "stopped")


def _well(ended: Ended) -> None:
    """Raise SystemExit for a command that did not end well."""
    if ended.code:
        raise SystemExit(f"the workspace could not be made: {ended.out[-500:]}\n{ended.err[-2_000:]}")
