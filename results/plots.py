"""From folders and files of rows to written figures: what `memx plot` does."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import MemxError
from .files import make_folder, write_atomically
from .rows import Row, read_rows, write_rows
from .store import Run, RunStore
from .summary import TIERS, check_alike, choose_experiment, choose_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


T = TypeVar("T", Row, Run)


def plot_memory(
    sources: Sequence[Path],
    out: Path,
    name: str,
    formats: Sequence[str],
    experiment: str | None = None,
    *,
    published: bool = False,
    accuracy: str = "exact_match",
    tell: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Draw accuracy and NLL against memory size; returns the files, pictures first, the plotted rows last.

    Runs and files that are named one by one are drawn together; of a folder of runs, one experiment is.
    """
    from .memory_figure import PANELS, memory_figure

    if accuracy not in PANELS or accuracy == "nll":
        raise MemxError(f"--accuracy: no metric {accuracy!r}", hint="use exact_match or f1")
    wanted = {*PANELS, "chance_exact_match"}
    rows = [row for row in collect_rows(sources) if row.dataset in TIERS and row.metric in wanted]
    if experiment is not None or not _named(sources):
        rows = _tell_left_out(rows, choose_experiment(rows, experiment), tell)
    check_alike(rows)
    written = save_figure(memory_figure(rows, published=published, accuracy=accuracy), out, name, formats)
    beside = out / f"{name}.rows.jsonl"
    write_rows(beside, rows)
    return [*written, beside]


def plot_loss(
    sources: Sequence[Path],
    out: Path,
    name: str,
    formats: Sequence[str],
    experiment: str | None = None,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Draw the loss curves of runs; returns the files. Which runs: as `plot_memory`."""
    from .loss_figure import loss_figure

    runs = collect_runs(sources)
    if experiment is not None or not _named(sources):
        chosen = choose_name([run.experiment for run in runs], experiment)
        runs = _tell_left_out(runs, [run for run in runs if run.experiment == chosen], tell)
    return save_figure(loss_figure(runs), out, name, formats)


def _named(sources: Sequence[Path]) -> bool:
    """Whether every source is a run or a file, rather than a folder of runs."""
    return all(source.is_file() or (source / "run.json").is_file() for source in sources)


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
    return list({(row.run, row.dataset, row.metric): row for row in rows}.values())


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
