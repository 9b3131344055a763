"""From folders and files of rows to written figures: what `memx plot` does."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import MemxError
from ..files import make_folder, write_atomically
from .store.rows import Row, read_rows, write_rows
from .store.runs import Run, RunStore
from .summary import TIERS, check_alike, choose_experiment, choose_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .labels import Table

T = TypeVar("T", Row, Run)


@dataclass(frozen=True)
class PlotRequest:
    """What to draw from and where to: runs, folders of runs or files of rows -> out/name.format.

    Sources that are named one by one are drawn together; of a folder of runs, one experiment is: the named one, or
    the last. tell gets a line for what is left out.
    """

    sources: Sequence[Path]
    out: Path
    name: str
    formats: Sequence[str] = ("png",)
    experiment: str | None = None
    tell: Callable[[str], None] = lambda text: None

    def rows(
        self,
        wanted: Callable[[Row], bool],
        prepare: Callable[[list[Row]], list[Row]] = list,
        *,
        check: Callable[[Sequence[Row]], object] = check_alike,
        missing: str = "there are no rows to show",
        hint: str = "",
    ) -> list[Row]:
        """The wanted rows of what is to be drawn, prepared and checked to be alike.

        Raises MemxError with that text and hint if there are none, with one that fits the rows if no hint is given.
        """
        everything = collect_rows(self.sources)
        rows = [row for row in everything if wanted(row)]
        if not rows:
            raise MemxError(missing, hint=hint or _hint(everything))
        if self.experiment is not None or not self.named:
            rows = _tell_left_out(rows, choose_experiment(rows, self.experiment), self.tell)
        rows = prepare(rows)
        check(rows)
        return rows

    @property
    def named(self) -> bool:
        """Whether every source is a run or a file, rather than a folder of runs."""
        return all(source.is_file() or (source / "run.json").is_file() for source in self.sources)

    def runs(self, wanted: Callable[[Run], bool] = lambda run: True) -> list[Run]:
        """The runs of what is to be drawn: of the wanted ones, if any is."""
        runs = collect_runs(self.sources)
        runs = [run for run in runs if wanted(run)] or runs
        if self.experiment is not None or not self.named:
            chosen = choose_name([run.experiment for run in runs], self.experiment)
            runs = _tell_left_out(runs, [run for run in runs if run.experiment == chosen], self.tell)
        return runs

    def write(self, figure: Figure, rows: Sequence[Row] | None = None) -> list[Path]:
        """Write the pictures, and the plotted rows beside them; returns the files in that order."""
        written = save_figure(figure, self.out, self.name, self.formats)
        if rows is None:
            return written
        beside = self.out / f"{self.name}.rows.jsonl"
        write_rows(beside, rows)
        return [*written, beside]


def plot_memory(order: PlotRequest, *, published: bool = False, accuracy: str = "exact_match") -> list[Path]:
    """Draw accuracy and NLL against memory size; returns the files, pictures first, the plotted rows last."""
    from .memory.slots import PANELS, memory_figure

    if accuracy not in PANELS or accuracy == "nll":
        raise MemxError(f"--accuracy: no metric {accuracy!r}", hint="use exact_match or f1")
    wanted = {*PANELS, "chance_exact_match"}
    rows = order.rows(lambda row: row.dataset in TIERS and row.metric in wanted)
    return order.write(memory_figure(rows, published=published, accuracy=accuracy), rows)


def plot_qa(order: PlotRequest, *, published: bool = False) -> tuple[list[Path], Table]:
    """Draw NQ-open and TriviaQA against memory size; returns the files and the table of all scores."""
    from .memory.questions import is_wanted, qa_figure, qa_table

    rows = order.rows(is_wanted, hint="`memx eval` makes rows of nq and tqa")
    return order.write(qa_figure(rows, published=published), rows), qa_table(rows)


def plot_loss(order: PlotRequest) -> list[Path]:
    """Draw the loss curves of runs; returns the files."""
    from .memory.loss import loss_figure

    return order.write(loss_figure(order.runs(_with_metric("loss"))))


def plot_usage(order: PlotRequest) -> list[Path]:
    """Draw how runs use the slots of their memory layers; returns the files."""
    from .memory.usage import usage_figure

    return order.write(usage_figure(order.runs(_with_metric("memory_use"))))


def plot_rivals(order: PlotRequest, tier: str = "rephrased") -> tuple[list[Path], Table]:
    """Draw kinds of memory against dense models; returns the files and what each kind is worth in dense compute.

    The rows written beside the pictures are those of all tiers; the pictures show one.
    """
    from .memory.baselines import METRICS, bases_of, rivals_table
    from .memory.baselines_figure import rivals_figure

    rows = order.rows(lambda row: row.dataset in TIERS and row.metric in METRICS)
    drawn = [row for row in rows if row.dataset == tier]
    bases = bases_of(drawn, tier)
    return order.write(rivals_figure(drawn, bases, tier), rows), rivals_table(bases, tier)


def plot_ablation(order: PlotRequest, tier: str = "rephrased", baseline: str | None = None) -> tuple[list[Path], Table]:
    """Draw variants and their differences to the baseline, or the first; returns the files and the table."""
    from .memory.ablation import METRICS, ablation_table, variants_of
    from .memory.ablation_figure import ablation_figure

    rows = order.rows(lambda row: row.dataset in TIERS and row.metric in METRICS)
    drawn = [row for row in rows if row.dataset == tier]
    variants = variants_of(drawn, tier, baseline)
    return order.write(ablation_figure(drawn, variants, tier), rows), ablation_table(variants, tier)


def plot_finetune(order: PlotRequest) -> tuple[list[Path], Table]:
    """Draw facts learned against text forgotten for each method; returns the files and the table."""
    from .memory.finetune import by_method, finetune_table, is_wanted, methods_of
    from .memory.finetune_figure import finetune_figure

    rows = order.rows(is_wanted, by_method)
    methods = methods_of(rows)
    return order.write(finetune_figure(rows, methods), rows), finetune_table(methods)


def plot_step(order: PlotRequest) -> tuple[list[Path], Table]:
    """Draw what a training step costs by table size; returns the files and the table."""
    from .bench.step import METRICS, step_figure, step_table

    rows = order.rows(lambda row: row.metric in METRICS and row.dataset.startswith("step "))
    return order.write(step_figure(rows), rows), step_table(rows)


def plot_bench(order: PlotRequest) -> list[Path]:
    """Draw the roofline and the bars of benchmarked ops; returns the files: roofline, bars, and the rows of both."""
    from .bench.bars import bars_figure
    from .bench.roofline import roofline_figure
    from .bench.rows import check_times, of_ops

    rows = order.rows(of_ops)
    check_times(rows, ", ".join(map(str, order.sources)))
    roofline, bars = roofline_figure(rows), bars_figure(rows)
    written = replace(order, name=f"{order.name}-roofline").write(roofline)
    written += replace(order, name=f"{order.name}-bars").write(bars)
    beside = order.out / f"{order.name}.rows.jsonl"
    write_rows(beside, rows)
    return [*written, beside]


def _with_metric(name: str) -> Callable[[Run], bool]:
    return lambda run: any(name in line for line in run.metrics())


def _hint(rows: Sequence[Row]) -> str:
    """Which figure the rows that are there belong to."""
    kinds = {row.kind for row in rows}
    if any(row.dataset in ("nq", "tqa") for row in rows):
        return "there are rows of `memx eval`: --what qa"
    if "eviction" in kinds:
        return "there are rows of `memx eval-namm`: --what namm, layers or dropped"
    if "namm" in kinds:
        return "there are rows of `memx evolve-namm`: --what evolution or front"
    return "`memx train` makes some; those of `memx bench`: --what bench"


def _tell_left_out(everything: list[T], kept: list[T], tell: Callable[[str], None]) -> list[T]:
    chosen = kept[0].experiment if kept else ""
    others = sorted({one.experiment for one in everything} - {chosen})
    if others:
        tell(f"drawn: {chosen}; left out: {', '.join(others)} (--experiment chooses)")
    return kept


def collect_rows(sources: Sequence[Path]) -> list[Row]:
    """The rows of files (`*rows.jsonl`) and of finished runs below folders, each once, the last started run last."""
    rows: list[Row] = []
    for source in sources:
        if source.is_file():
            rows += read_rows(source)
        elif files := [] if (source / "run.json").is_file() else sorted(source.glob("*rows.jsonl")):
            rows += [row for path in files for row in read_rows(path)]
        else:
            rows += [row for run in collect_runs([source]) for row in run.rows()]
    return list({_identity(row): row for row in rows}.values())


def _identity(row: Row) -> tuple[object, ...]:
    """What a row is about, and by which run."""
    beside = row.model_extra or {}
    names = (
        ("budget", "size", "mode", "length", "layer", "token_kind", "rival", "beside") if row.kind == "eviction" else ()
    )
    point = (row.run, row.model, row.kind, row.memory_slots, row.dataset, row.metric, row.variant)
    return (*point, row.seed, *(beside.get(name) for name in names))


def collect_runs(sources: Sequence[Path]) -> list[Run]:
    """The runs that folders are or hold, by the time they started. Raises MemxError for a source that is not there."""
    runs: list[Run] = []
    for source in sources:
        if not source.exists():
            raise MemxError(f"nothing at {source}", hint="`memx train` makes runs; --runs says where they are")
        runs += [Run(source)] if (source / "run.json").is_file() else RunStore(source).runs()
    return sorted(runs, key=lambda run: (str(run.info().get("started")), run.name))


def save_figure(figure: Figure, out: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure in each format, whole or not at all; the same figure gives the same bytes."""
    from matplotlib import pyplot

    make_folder(out)
    written = []
    for kind in formats:
        picture = io.BytesIO()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(picture, format=kind, dpi=160, metadata=metadata)
        path = out / f"{name}.{kind}"
        write_atomically(path, picture.getvalue())
        written.append(path)
    pyplot.close(figure)
    return written
