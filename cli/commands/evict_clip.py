"""`memx evict N --model video:RUN`: a question about a clip under an eviction policy, with the frames that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..output.console import note, print_json_text, print_table, say

if TYPE_CHECKING:
    from ...experiments.eviction.policy import EvictConfig
    from ...results.eviction.clip_report import ClipReport

_PREFIX = "video:"
_RUNS = Path("results/runs")
# what only prompts of text have, by its field of the config, and what it is if it is not given
_OF_TEXT = {"protect": (), "new_tokens": 64, "compare": False, "dtype": None, "shares": None}


def is_video(host: str) -> bool:
    """Whether --model names a run of memx train video."""
    return host.startswith(_PREFIX)


def evict_clip(config: EvictConfig, folder: Path, *, force: bool, json: bool) -> None:
    """Answer a question from an evicted cache, and write the page of its clip.

    Args:
        config: What was asked for; its prompt is the number of the question.
        folder: Where the page goes.
        force: Whether files in it may be replaced.
        json: Whether to print JSON.

    Raises:
        MemxError: An option has no meaning for a video model, or the run, the policy or the number is wrong.
    """
    from ...errors import MemxError
    from ...experiments.universal.load import find_host_run
    from ...experiments.video.clip_eviction import run_clip_eviction
    from ...results.eviction.clip_files import write_clip_report
    from ...results.eviction.clip_report import clip_facts
    from ...results.eviction.report import report_json

    for field, usual in _OF_TEXT.items():
        if getattr(config, field) != usual:
            option = f"--{field.replace('_', '-')}"
            raise MemxError(f"{option} means nothing for a video model", hint="leave it out")
    report = run_clip_eviction(config, find_host_run(config.host, _RUNS).folder)
    written = write_clip_report(folder, report, force=force)
    if json:
        print_json_text(report_json({**clip_facts(report), "files": [str(path) for path in written]}))
        return
    _print(report)
    note(f"open {written[0]} to see which frames were evicted")


def _print(report: ClipReport) -> None:
    from ...results.eviction.clip_report import kinds_table

    say(f"{report.question} (right: {report.right})")
    for name, answer in ((report.policy, report.evicted), ("full cache", report.full)):
        say(f"  {name}: {answer.text or 'nothing'} (log-likelihood of the right answer {answer.log_likelihood:.2f})")
    table = kinds_table(report)
    print_table(table.title, table.columns, table.lines)
