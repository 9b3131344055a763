"""What a user calls a run -> its folder: a path, a folder's name, its beginning, or nothing for the last one."""

from __future__ import annotations

from pathlib import Path

from ...errors import MemxError, closest
from ...results.store.run_info import is_run
from ...results.store.runs import Run, RunStore
from ...results.summary import without_seed

_LISTED = 5  # names in a hint


def find_run(given: str | None, runs: Path) -> Run:
    """Find one run.

    Args:
        given: A run folder, the name of one, or the beginning of a name that only one run has. None: the last started.
        runs: The folder of runs.

    Raises:
        MemxError: There is none, or there are several.
    """
    if given is not None and (is_run(Path(given)) or is_benchmark(Path(given))):
        return Run(Path(given))
    if given is not None and len(Path(given).parts) > 1:
        what = "is not a run folder: it has no run.json" if Path(given).exists() else "is not there"
        raise MemxError(f"{given} {what}", hint="`memx runs` lists the runs; give a folder or a name")
    known = [run for run in RunStore(runs).runs() if run.folder.is_dir()] if runs.exists() else []
    if not known:
        raise MemxError(f"no runs in {runs}", hint="memx train, eval, evolve-namm and eval-namm write them")
    if given is None:
        return max(known, key=_started)
    named = [run for run in known if run.name == given] or [run for run in known if run.name.startswith(given)]
    if not named:
        near = closest(given, [run.name for run in known]) or closest(
            given, [without_seed(_experiment(run)) for run in known]
        )
        hint = f"did you mean {near!r}?" if near else "`memx runs` lists the runs"
        raise MemxError(f"no run {given!r} in {runs}", hint=hint)
    if len(named) > 1:
        names = [run.name for run in named]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise MemxError(f"{len(names)} runs begin with {given!r}", hint=f"give one: {', '.join(names[:_LISTED])}{more}")
    return named[0]


def is_benchmark(path: Path) -> bool:
    """Whether a folder is one that `memx bench --save` wrote.

    Args:
        path: Any path.
    """
    return (path / "rows.jsonl").is_file() and (path / "environment.json").is_file()


def find_runs(given: list[str], runs: Path) -> list[Run]:
    """Find several runs, each once; of a folder of runs, all of them.

    Args:
        given: As `find_run` takes them, or folders of runs, or the names of experiments: all of their runs.
        runs: The folder of runs.

    Raises:
        MemxError: One is not there.
    """
    found: list[Run] = []
    for one in given:
        path = Path(one)
        if path.is_dir() and not is_run(path) and (inside := RunStore(path).runs()):
            found += inside
        else:
            found += _of_experiment(one, runs) or [find_run(one, runs)]
    return list({run.folder.resolve(): run for run in found}.values())


def latest_experiment(runs: Path) -> list[Run]:
    """The runs of the experiment that the last started run belongs to.

    Args:
        runs: The folder of runs.

    Raises:
        MemxError: There are no runs.
    """
    last = find_run(None, runs)
    return [run for run in RunStore(runs).runs() if _experiment(run) == _experiment(last)] or [last]


def _of_experiment(name: str, runs: Path) -> list[Run]:
    """The runs of an experiment of that name, with or without its hash; none if a run has the name."""
    known = RunStore(runs).runs() if runs.is_dir() and not is_run(Path(name)) else []
    if any(run.name == name for run in known):
        return []
    return [run for run in known if name in (_experiment(run), without_seed(_experiment(run)))]


def _experiment(run: Run) -> str:
    try:
        return run.experiment
    except MemxError:  # damaged: what it belongs to is not known
        return ""


def _started(run: Run) -> tuple[str, str]:
    try:
        return str(run.info().get("started") or ""), run.name
    except MemxError:
        return "", run.name
