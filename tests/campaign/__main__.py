"""The campaign: `python tests/campaign`. Options are in `arguments`; results go to the folder of --out."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def begin() -> None:
    """Name the packages as pytest does, without the repository on the path, and be quiet and of one thread."""
    tests = types.ModuleType("tests")
    tests.__path__ = [str(TESTS)]
    sys.modules["tests"] = tests
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    place = tempfile.mkdtemp(prefix="memx-campaign-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (Path(place) / "memx").symlink_to(TESTS.parent)  # the code that stands beside these tests, for children too
    sys.path.insert(0, place)
    os.environ["PYTHONPATH"] = place
    for name in ("COLUMNS", "RANK", "WORLD_SIZE", "LOCAL_RANK", "FORCE_COLOR", "NO_COLOR"):
        os.environ.pop(name, None)


if __name__ == "__main__":
    begin()
    from tests.campaign.campaign import main

    sys.exit(main())
