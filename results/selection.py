"""What is drawn, from folders and files of rows, and written figures: what the pictures of `memx plot` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import MemxError
from ..files import inside, make_folder, write_atomically
from .collecting import collect_rows, collect_runs
from .store.rows import Row, extra, write_rows
from .store.run_info import is_run
from .store.runs import Run
from .style import picture_of
from .summary import check_alike, choose_experiment, choose_name, without_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .labels import Table

T = TypeVar("T", Row, Run)


class Drawn(NamedTuple):
    """What a picture left: its files, pictures first and the plotted rows last, and its table if it has one."""

    files: list[Path]
    table: Table | None = None


@dataclass(frozen=True)
class PlotOptions:
    """Choices of `memx plot` that some pictures know: each field is the option of its name.

    published: overlay published curves. accuracy: the left panel of memory. tier: the questions of rivals and
    ablation. baseline: the variant that an ablation compares with; the first one. metrics: rows of panels of namm.
    policies: those that namm draws; all. budget: the size of the cache that dropped is of; the NAMM's own size.
    """

    published: bool = False
    accuracy: str = "exact_match"
    tier: str = "rephrased"
    baseline: str | None = None
    metrics: Sequence[str] = ("relative_log_likelihood", "exact")
    policies: Sequence[str] = ()
    budget: float | None = None


@dataclass(frozen=True)
class PlotRequest:
    """What to draw from and where to: runs, folders of runs or files of rows -> out/name.format.

    Sources that are named one by one are drawn together; of a folder of runs, one experiment is: the named one, or
    the last. log gets a line for what is left out. made_by: the command whose results the picture shows.
    """

    sources: Sequence[Path]
    out: Path
    name: str
    formats: Sequence[str] = ("png",)
    experiment: str | None = None
    log: Callable[[str], None] = lambda text: None
    options: PlotOptions = field(default_factory=PlotOptions)
    made_by: str = "memx train"

    def __post_init__(self) -> None:
        inside(self.out, self.name, "--name")

    def rows(
        self,
        wanted: Callable[[Row], bool],
        prepare: Callable[[list[Row]], list[Row]] = list,
        *,
        check: Callable[[Sequence[Row]], object] = check_alike,
        missing: str = "there are no rows to show",
        hint: str = "",
    ) -> list[Row]:
        """The wanted rows of what is to be drawn.

        Args:
            wanted: Which rows the picture is of.
            prepare: What becomes of the rows of the chosen experiment, such as names for their variants.
            check: Raises MemxError if the prepared rows cannot share a picture.
            missing: The message if no row is wanted.
            hint: Its hint; without one, it says which picture the rows that are there belong to.

        Returns:
            The prepared rows, in the order of runs.

        Raises:
            MemxError: There are no such rows, or they do not belong together.
        """
        everything = collect_rows(self.sources, self.log)
        rows = [row for row in everything if wanted(row)]
        if not rows:
            raise MemxError(missing, hint=hint or _hint(everything, self.made_by))
        if self.experiment is not None or not self.named:
            rows = self._log_left_out(rows, choose_experiment(rows, self.experiment))
        rows = prepare(rows)
        check(rows)
        return rows

    @property
    def named(self) -> bool:
        """Whether every source is a run or a file, rather than a folder of runs."""
        return all(source.is_file() or is_run(source) for source in self.sources)

    def runs(self, wanted: Callable[[Run], bool] = lambda run: True) -> list[Run]:
        """The runs of what is to be drawn: of the wanted ones, if any is."""
        runs = collect_runs(self.sources, self.log)
        if not runs and not self.named:
            raise MemxError("there are no runs to show", hint=f"`{self.made_by}` makes such runs")
        runs = [run for run in runs if wanted(run)] or runs
        if self.experiment is not None or not self.named:
            chosen = choose_name([run.experiment for run in runs], self.experiment)
            runs = self._log_left_out(runs, [run for run in runs if run.experiment == chosen])
        return runs

    def together(self, items: list[T], alike: Callable[[T], Any]) -> list[T]:
        """Rows or runs of the chosen experiment; without a choice what is named, or what is like the last.

        Args:
            items: Rows or runs, in the order of their start.
            alike: What has to be equal of two that are drawn together.

        Raises:
            MemxError: There is no experiment of the chosen name, with or without its seed and hash.
        """
        if self.experiment is not None:
            chosen = [one for one in items if self.experiment in (one.experiment, without_seed(one.experiment))]
            if not chosen:
                known = ", ".join(dict.fromkeys(one.experiment for one in items))
                raise MemxError(f"unknown experiment {self.experiment!r}", hint=f"choose from: {known}")
        elif self.named:
            return items
        else:
            chosen = [one for one in items if alike(one) == alike(items[-1])]
        return self._log_left_out(items, chosen)

    def _log_left_out(self, items: list[T], chosen: list[T]) -> list[T]:
        names = {one.experiment for one in chosen}
        if others := sorted({one.experiment for one in items} - names):
            self.log(f"drawn: {', '.join(sorted(names))}; not drawn: {', '.join(others)} (choose with --experiment)")
        return chosen

    def write(self, figure: Figure, rows: Sequence[Row] | None = None) -> list[Path]:
        """Write the pictures, and the plotted rows beside them; returns the files in that order."""
        written = save_figure(figure, self.out, self.name, self.formats)
        if rows is None:
            return written
        return [*written, self.write_rows(rows)]

    def write_rows(self, rows: Sequence[Row]) -> Path:
        """Write the plotted rows; returns the file."""
        path = self.out / f"{self.name}.rows.jsonl"
        write_rows(path, rows)
        return path


def with_metric(name: str) -> Callable[[Run], bool]:
    """A test of whether a run's metrics have a name, for `PlotRequest.runs`."""
    return lambda run: any(name in line for line in run.metrics())


def _hint(rows: Sequence[Row], made_by: str) -> str:
    """Which figure the rows that are there belong to, or which command makes the rows of this one."""
    kinds = {row.kind for row in rows}
    if any(row.dataset in ("nq", "tqa") or extra(row, "asked_with_seed") is not None for row in rows):
        return "there are rows of `memx eval`: use `memx plot qa`"
    if "eviction" in kinds:
        return "there are rows of `memx eval-namm`: use `memx plot namm`, layers or evicted"
    if "namm" in kinds:
        return "there are rows of `memx evolve-namm`: use `memx plot evolution` or pareto"
    made = f"`{made_by}` makes them"
    if any(row.experiment.startswith("bench") for row in rows) and "bench" not in made_by:
        return f"{made}; for rows of `memx bench`, use `memx plot ops` or step"
    return made


def save_figure(figure: Figure, out: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure in each format, whole or not at all; the same figure gives the same bytes."""
    from matplotlib import pyplot

    make_folder(out)
    written = []
    for kind in formats:
        path = out / f"{name}.{kind}"
        write_atomically(path, picture_of(figure, kind))
        written.append(path)
    pyplot.close(figure)
    return written
