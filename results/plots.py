"""The pictures that `memx plot` draws: the name of each, what it shows, its options and the module that draws it.

A new picture is a module with `draw(request: PlotRequest) -> Drawn`, and an entry here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import MemxError

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
        made_by: The command whose results it shows.
        options: Fields of `PlotOptions` that it reads.
    """

    name: str
    about: str
    module: str
    group: str
    made_by: str
    options: tuple[str, ...] = ()


PICTURES = (
    Picture(
        "memory",
        "Accuracy and negative log-likelihood by memory size.",
        "memory_layers.slots",
        MEMORY,
        "memx train",
        ("published", "accuracy"),
    ),
    Picture(
        "baselines",
        "Memory models against dense models, by parameters and by compute.",
        "memory_layers.baselines_figure",
        MEMORY,
        "memx train rivals",
        ("tier",),
    ),
    Picture(
        "ablation",
        "Each variant of a preset, and its paired difference from one of them.",
        "memory_layers.ablation_figure",
        MEMORY,
        "memx train ablation",
        ("tier", "baseline"),
    ),
    Picture(
        "shares",
        "Scores by the share of sparse parameters that a kind of memory gets.",
        "memory_layers.shares_figure",
        MEMORY,
        "memx train shares",
        ("tier",),
    ),
    Picture(
        "kinds",
        "Variants side by side: facts, entities with long names, and text; for presets such as kinds.",
        "memory_layers.kinds_figure",
        MEMORY,
        "memx train kinds",
        ("tier", "baseline"),
    ),
    Picture("loss", "Training and evaluation curves by step.", "memory_layers.loss", MEMORY, "memx train"),
    Picture("usage", "Share of memory slots in use, by step.", "memory_layers.usage", MEMORY, "memx train"),
    Picture(
        "finetune",
        "Facts learned against loss on ordinary text, for runs with --init-from.",
        "memory_layers.finetuning.finetune_figure",
        MEMORY,
        "memx train --init-from MODEL",
    ),
    Picture(
        "continual",
        "Facts learned in parts against what is kept, for runs with finetune.parts.",
        "memory_layers.finetuning.continual_figure",
        MEMORY,
        "memx train --init-from MODEL",
    ),
    Picture(
        "qa",
        "Scores of NQ-open, TriviaQA and own questions by memory size, from memx eval.",
        "memory_layers.questions",
        MEMORY,
        "memx eval MODEL",
        ("published",),
    ),
    Picture(
        "namm",
        "Score against cache size for each policy, from memx eval-namm.",
        "namm.scores_figure",
        NAMM,
        "memx eval-namm RUN",
        ("metrics", "policies"),
    ),
    Picture(
        "before-after",
        "Likelihood at each cache size before and after training, from memx eval-namm --before.",
        "namm.before_after",
        NAMM,
        "memx eval-namm RUN --before RUN",
        ("policies",),
    ),
    Picture("layers", "Cache size of each layer, from memx eval-namm.", "namm.layers", NAMM, "memx eval-namm RUN"),
    Picture(
        "evicted",
        "Share evicted of each kind of token, from memx eval-namm.",
        "namm.evicted_tokens_figure",
        NAMM,
        "memx eval-namm RUN",
        ("budget",),
    ),
    Picture(
        "universal",
        "Score against cache size on decision transformers and video models, from memx eval-namm --host.",
        "universal.figure",
        NAMM,
        "memx eval-namm --host KIND:RUN",
    ),
    Picture(
        "forgotten",
        "Share kept of each kind of token on these hosts, by layer, from memx eval-namm --host.",
        "universal.kinds_figure",
        NAMM,
        "memx eval-namm --host KIND:RUN",
        ("budget",),
    ),
    Picture(
        "evolution",
        "Fitness and cache size by generation, from memx evolve-namm.",
        "namm.evolution",
        NAMM,
        "memx evolve-namm",
    ),
    Picture(
        "pareto",
        "Score against cache size of evolved NAMMs, from memx evolve-namm.",
        "namm.pareto_figure",
        NAMM,
        "memx evolve-namm",
    ),
    Picture(
        "ops",
        "Roofline and speed of each op against baselines, from memx bench ops.",
        "bench.ops_figures",
        BENCH,
        "memx bench ops --save FOLDER",
    ),
    Picture(
        "step",
        "Time and memory of a training step by table size, from memx bench step.",
        "bench.step",
        BENCH,
        "memx bench step --save FOLDER",
    ),
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
    (picture,) = (picture for picture in PICTURES if picture.name == now)
    for source in request.sources:
        if not source.exists():
            hint = f"give a run folder, a folder of runs or a file of rows; `{picture.made_by}` makes one"
            raise MemxError(f"nothing at {source}", hint=hint)
    request = replace(request, made_by=picture.made_by)
    return import_module(f".{picture.module}", __package__).draw(request)
