"""The pictures that `memx plot` draws: the name of each, what it shows, its options and the module that draws it.

A new picture is a module with `draw(request: PlotRequest) -> Drawn`, and an entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .selection import Drawn, PlotRequest

MEMORY, NAMM, BENCH = "Memory layers", "NAMM and eviction", "Benchmarks"


@dataclass(frozen=True)
class Picture:
    """A picture of `memx plot`.

    Attributes:
        name: The subcommand that draws it.
        about: One sentence on what it shows.
        module: The module of `results` that draws it, imported when it is drawn.
        group: The heading under which help lists it.
        options: Fields of `PlotOptions` that it reads.
    """

    name: str
    about: str
    module: str
    group: str
    options: tuple[str, ...] = ()


PICTURES = (
    Picture(
        "memory",
        "Accuracy and negative log-likelihood by memory size.",
        "memory_layers.slots",
        MEMORY,
        ("published", "accuracy"),
    ),
    Picture(
        "baselines",
        "Memory models against dense models, by parameters and by compute.",
        "memory_layers.baselines_figure",
        MEMORY,
        ("tier",),
    ),
    Picture(
        "ablation",
        "Each variant of a preset, and its paired difference from one of them.",
        "memory_layers.ablation_figure",
        MEMORY,
        ("tier", "baseline"),
    ),
    Picture("loss", "Training and evaluation curves by step.", "memory_layers.loss", MEMORY),
    Picture("usage", "Share of memory slots in use, by step.", "memory_layers.usage", MEMORY),
    Picture(
        "finetune",
        "Facts learned against loss on ordinary text, for runs with --init-from.",
        "memory_layers.finetune_figure",
        MEMORY,
    ),
    Picture(
        "qa",
        "NQ-open and TriviaQA scores by memory size, from memx eval.",
        "memory_layers.questions",
        MEMORY,
        ("published",),
    ),
    Picture(
        "namm",
        "Score against cache size for each policy, from memx eval-namm.",
        "namm.scores_figure",
        NAMM,
        ("metrics",),
    ),
    Picture("layers", "Cache size of each layer, from memx eval-namm.", "namm.layers", NAMM),
    Picture(
        "evicted",
        "Share evicted of each kind of token, from memx eval-namm.",
        "namm.evicted_tokens_figure",
        NAMM,
        ("budget",),
    ),
    Picture("evolution", "Fitness and cache size by generation, from memx evolve-namm.", "namm.evolution", NAMM),
    Picture("pareto", "Score against cache size of evolved NAMMs, from memx evolve-namm.", "namm.pareto_figure", NAMM),
    Picture("ops", "Roofline and speed of each op against baselines, from memx bench ops.", "bench.ops_figures", BENCH),
    Picture("step", "Time and memory of a training step by table size, from memx bench step.", "bench.step", BENCH),
)
OLD_NAMES = {"rivals": "baselines", "bench": "ops", "dropped": "evicted", "front": "pareto"}


def draw(name: str, request: PlotRequest) -> Drawn:
    """Draw the picture of that name.

    Args:
        name: One of `PICTURES`, or a name that one of them had.
        request: What to draw from, where to, and the options of the picture.

    Returns:
        The files that were written, and the table of what the picture shows, if it has one.

    Raises:
        MemxError: There is nothing to draw, or the rows do not belong in one picture.
    """
    now = OLD_NAMES.get(name, name)
    (module,) = (picture.module for picture in PICTURES if picture.name == now)
    return import_module(f".{module}", __package__).draw(request)
