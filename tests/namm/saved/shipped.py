"""NAMMs that come with memx, made by a test."""

from pathlib import Path

import pytest
import torch
from memx.namm import NO_PASS, Card, Namm, Rule, save
from memx.namm.saved import places


def tiny_namm(seed: int = 0, **settings) -> Namm:
    """A NAMM of nine weights and a bias, which needs no pass over attention."""
    parameters = torch.randn(10, generator=torch.Generator().manual_seed(seed))
    known = dict(scorer="linear", features=NO_PASS, rule=Rule(budget=0.5), every=64)
    return Namm(parameters, **(known | settings))


def ship(monkeypatch: pytest.MonkeyPatch, folder: Path, **settings) -> Path:
    """Make memx ship the NAMMs `universal` (seed 0) and `smollm2` (seed 1), from a folder, with these settings."""
    for seed, name in enumerate(("universal", "smollm2")):
        card = Card(about=f"The NAMM {name}.\nIt is made for tests.")
        save(tiny_namm(seed, **settings), folder / name, host="smollm2", tasks=("needles", "facts"), card=card)
    monkeypatch.setattr(places, "SHIPPED", folder)
    return folder
