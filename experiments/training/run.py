"""One training run: config and run folder -> checkpoint, metrics and rows.

The run saves its state on the way; started again with the same folder it goes on from the last one and ends
bit-identical, on the same CPU and number of threads, to a run that was never stopped. On CUDA it goes on from the same
state, but some of torch's backward passes add in no fixed order there.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import MemxError
from ...results.store.rows import Row
from ...results.store.runs import Run
from ..checkpoints.states import saved_states
from ..config.base import to_yaml
from ..config.training import TrainConfig
from ..data.facts.files import is_facts_file
from ..data.facts.load import facts_digest
from ..data.facts.questions import FactSplit, build_split
from ..data.facts.relations import counts, save_relations
from ..distributed.process_group import World
from ..runtime.devices import peak_bytes
from ..runtime.events import Note, Report
from ..runtime.lifecycle import recorded_run
from ..runtime.signals import StopRequest
from ..runtime.threads import restored_threads, run_threads
from .build import build_trainer
from .divergence import check_not_diverged
from .lengthen import remove_state
from .loop import Trainer


def train(
    config: TrainConfig,
    run: Run,
    report: Report,
    stop: StopRequest,
    threads: int,
    world: World | None = None,
    build: Callable[..., Trainer] = build_trainer,
) -> list[Row]:
    """Train one point in a claimed run folder, and record in it how that ended.

    world: the processes that share it. build: puts together what it trains with.
    """
    before = run.info()
    check_not_diverged(run)
    threads = run_threads(config.training.threads, before, threads, report)
    state = run.folder / "state"
    began = bool(saved_states(state))
    # an evolution that trains its base model goes on with threads of its own
    with recorded_run(run, keeps=lambda: began or bool(saved_states(state))), restored_threads():
        split, notes = build_split(config) if config.on_facts else (FactSplit([], [], config.data.seed), [])
        digest = facts_digest([*split.trained, *split.unseen], split.wording)
        _same_facts(run, digest)
        for note in notes:
            report(Note(note, shared=True))
        about = {"experiment": config.experiment, "seed": config.seed, "device": config.training.device}
        about |= {key: before[key] for key in ("continued_from",) if key in before}
        about |= {"facts_trained": len(split.trained), "facts_held_out": len(split.unseen)} if split.trained else {}
        run.begin(to_yaml(config), {**about, "threads": threads, "facts": digest})
        trainer = build(config, split, run, report, stop, threads, world or World())
        if split.trained:
            report(Note(counts(split, config.evaluation.final_questions), shared=True))
            if world is None or world.is_first:
                save_relations(split, run.folder)
        rows = trainer.fit()
    took = {"seconds": round(trainer.seconds, 1), "steps": trainer.step, "tokens": trainer.tokens}
    run.finish(rows, **took, device=str(trainer.device), peak_bytes=peak_bytes(trainer.device))
    if world is None or world.is_first:
        remove_state(config, state)
    return rows


def check_facts(config: TrainConfig, run: Run) -> None:
    """Raise MemxError if the facts file differs from the one that a finished run was trained on."""
    if any(is_facts_file(source) for source in config.data.facts):
        split, _ = build_split(config)
        _same_facts(run, facts_digest([*split.trained, *split.unseen], split.wording))


def _same_facts(run: Run, digest: str) -> None:
    before = run.info().get("facts")
    if before not in (None, digest):
        raise MemxError(f"the facts file changed since run {run.name} started", hint="use --force to start over")
