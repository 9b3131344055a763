"""`memx plot`: figures from rows, and the rows that were plotted beside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json, print_table

_EPILOG = examples(
    "memx plot",
    "memx plot results/reference/facts --out figures --published",
    "memx plot --what namm results/runs/EVALUATION --metrics relative_log_likelihood,exact",
)


class What(StrEnum):
    """The figures there are."""

    memory = "memory"
    qa = "qa"
    loss = "loss"
    rivals = "rivals"
    ablation = "ablation"
    usage = "usage"
    finetune = "finetune"
    step = "step"
    bench = "bench"
    namm = "namm"
    layers = "layers"
    dropped = "dropped"
    evolution = "evolution"
    front = "front"


class Tier(StrEnum):
    """The questions that a comparison may be about."""

    seen = "seen"
    rephrased = "rephrased"


_WHAT = (
    "memory: accuracy and NLL by memory size. qa: NQ-open and TriviaQA by memory size, from memx eval. loss: curves by "
    "step. rivals: memories against dense models, by size and by compute. ablation: variants and their differences. "
    "usage: slots used by step. finetune: facts learned against text forgotten. step: cost of a training step by table "
    "size; bench: ops against the device's ceilings and against rivals; both from memx bench. namm: policies' scores "
    "by the cache they hold; layers: cache by layer; dropped: kinds of token that go; all three from memx eval-namm. "
    "evolution: memx evolve-namm by generation; front: the cache and the score of its answers."
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("plot", epilog=_EPILOG)(plot)


def plot(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER|ROWS.jsonl]...", help="Run folders, folders of them, or files of rows."),
    ] = None,
    what: Annotated[What, typer.Option(help=_WHAT)] = What.memory,
    runs: Annotated[Path, typer.Option(help="Where runs are looked for if no source is given.")] = Path("results/runs"),
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("results/figures"),
    name: Annotated[str | None, typer.Option(help="File name without ending; what is drawn if not said.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Which experiment's rows; the last one if not said.")] = None,
    formats: Annotated[str, typer.Option(help="Comma-separated: png, svg, pdf.")] = "png,svg,pdf",
    published: Annotated[
        bool, typer.Option("--published", help="Overlay the curves of Memory Layers at Scale.")
    ] = False,
    accuracy: Annotated[str, typer.Option(help="Left panel of memory: exact_match or f1.")] = "exact_match",
    tier: Annotated[
        Tier, typer.Option(help="Questions of rivals and ablation: in a phrasing seen for the fact, or a new one.")
    ] = Tier.rephrased,
    baseline: Annotated[str | None, typer.Option(help="The variant an ablation compares with; the first one.")] = None,
    metrics: Annotated[
        str, typer.Option(help="Rows of panels of namm: relative_log_likelihood, exact, lost_nats, score, …")
    ] = "relative_log_likelihood,exact",
    budget: Annotated[
        float | None, typer.Option(help="Share of the cache that dropped is of; the NAMM's own size if not said.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the files, and the table of a comparison, as JSON.")
    ] = False,
) -> None:
    """Draw finished runs: memory sizes, rivals at equal cost, ablations, fine-tuning, curves by step, and NAMMs.

    Comparisons also print a table of what they say, with 95% intervals.
    """
    from ...results import plots
    from ...results.namm import plots as namm_plots

    order = plots.PlotRequest(sources or [runs], out, name or what.value, _formats(formats), experiment, note)
    table = None
    if what is What.memory:
        written = plots.plot_memory(order, published=published, accuracy=accuracy)
    elif what is What.qa:
        written, table = plots.plot_qa(order, published=published)
    elif what is What.loss:
        written = plots.plot_loss(order)
    elif what is What.usage:
        written = plots.plot_usage(order)
    elif what is What.rivals:
        written, table = plots.plot_rivals(order, tier.value)
    elif what is What.ablation:
        written, table = plots.plot_ablation(order, tier.value, baseline)
    elif what is What.finetune:
        written, table = plots.plot_finetune(order)
    elif what is What.bench:
        written = plots.plot_bench(order)
    elif what is What.namm:
        written, table = namm_plots.plot_namm(order, [part.strip() for part in metrics.split(",") if part.strip()])
    elif what is What.layers:
        written, table = namm_plots.plot_layers(order)
    elif what is What.dropped:
        written, table = namm_plots.plot_dropped(order, budget)
    elif what is What.evolution:
        written, table = namm_plots.plot_evolution(order)
    elif what is What.front:
        written, table = namm_plots.plot_front(order)
    else:
        written, table = plots.plot_step(order)
    files = [str(path) for path in written]
    if json:
        print_json(files if table is None else {"files": files, "table": table.facts})
        return
    if table is not None:
        print_table(table.title, table.columns, table.lines, left=table.left)
    for path in files:
        print(path)
    note(f"the picture is {files[0]}")


def _formats(text: str) -> list[str]:
    from ...errors import MemxError

    kinds = [kind.strip().lower() for kind in text.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in ("png", "svg", "pdf")]
    if unknown or not kinds:
        raise MemxError(f"--formats: no format {', '.join(unknown) or 'given'}", hint="use png, svg, pdf")
    return kinds
