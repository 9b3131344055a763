"""The campaign: `python tests/campaign`. Options are in `arguments`; results go to the folder of --out."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def begin() -> None:
    """Name the packages as pytest does, without the repository on the path, and be quiet and of one thread."""
    tests = types.ModuleType("tests")
    tests.__path__ = [str(TESTS)]
    sys.modules["tests"] = tests
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in ("COLUMNS", "RANK", "WORLD_SIZE", "LOCAL_RANK", "FORCE_COLOR", "NO_COLOR"):
        os.environ.pop(name, None)


if __name__ == "__main__":
    begin()
    from tests.campaign.campaign import main

    sys.exit(main())
