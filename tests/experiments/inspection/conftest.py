"""Four small finished runs: two seeds of a dense and of a memory model."""

import pytest
from memx.cli.main import run
from memx.experiments.distributed.process_group import without_torchrun

SETTINGS = ("training.threads=1", "training.log_every=2", "training.steps=6", "data.limit=60", "model.layers=2")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder of runs, written by `memx train`."""
    folder = tmp_path_factory.mktemp("inspected") / "runs"
    sets = [part for one in SETTINGS for part in ("--set", one)]
    sizes = ["--slots", "0", "--slots", "1024", "--seed", "0", "--seed", "1"]
    given = ["train", "tiny", "--name", "looked", *sizes, *sets, "--runs", str(folder)]
    with without_torchrun(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["memx", *given])  # which run.json keeps
        assert run(given) == 0
    return folder
