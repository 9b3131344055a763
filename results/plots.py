"""The pictures that `memx plot --what` draws: their names, their words in its help, and the module that draws each.

A new picture is a module with `draw(request: PlotRequest) -> Drawn`, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .selection import Drawn, PlotRequest


@dataclass(frozen=True)
class Picture:
    """A picture: its name, what it shows, and the module of `results` that draws it, imported when it is drawn."""

    name: str
    about: str
    module: str


PICTURES = (
    Picture("memory", "accuracy and NLL by memory size", "memory_layers.slots"),
    Picture("qa", "NQ-open and TriviaQA by memory size, from memx eval", "memory_layers.questions"),
    Picture("loss", "curves by step", "memory_layers.loss"),
    Picture("rivals", "memories against dense models, by size and by compute", "memory_layers.baselines_figure"),
    Picture("ablation", "variants and their differences", "memory_layers.ablation_figure"),
    Picture("usage", "slots used by step", "memory_layers.usage"),
    Picture("finetune", "facts learned against text forgotten", "memory_layers.finetune_figure"),
    Picture("step", "cost of a training step by table size, from memx bench", "bench.step"),
    Picture("bench", "ops against the device's ceilings and against rivals, from memx bench", "bench.ops_figures"),
    Picture("namm", "policies' scores by the cache they hold, from memx eval-namm", "namm.scores_figure"),
    Picture("layers", "cache by layer, from memx eval-namm", "namm.layers"),
    Picture("dropped", "kinds of token that go, from memx eval-namm", "namm.evicted_tokens_figure"),
    Picture("evolution", "memx evolve-namm by generation", "namm.evolution"),
    Picture("front", "the cache and the score of the answers of memx evolve-namm", "namm.pareto_figure"),
)


def pictures_help() -> str:
    """A sentence on each picture."""
    return " ".join(f"{picture.name}: {picture.about}." for picture in PICTURES)


def draw(name: str, request: PlotRequest) -> Drawn:
    """Draw the picture of that name.

    Args:
        name: One of `PICTURES`.
        request: What to draw from, where to, and the options of the picture.

    Returns:
        The files that were written, and the table of what the picture says, if it has one.

    Raises:
        MemxError: There is nothing to draw, or what there is does not belong on one picture.
    """
    (module,) = (picture.module for picture in PICTURES if picture.name == name)
    return import_module(f".{module}", __package__).draw(request)
