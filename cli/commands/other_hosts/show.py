"""`memx evict --host KIND:RUN`: an episode, or a question about a clip, under an eviction policy, with what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...output.console import note, print_json_text, print_table, say

if TYPE_CHECKING:
    from ....experiments.eviction.policy import EvictConfig
    from ....results.eviction.clip_report import ClipReport

_VIDEO = "video:"
# what means nothing for clips, by its field of the config, and what it is if it is not given
_OF_TEXT = {"new_tokens": 64, "shares": None}


def show_on_host(config: EvictConfig, number: int, runs: Path, folder: Path, *, force: bool, json: bool) -> None:
    """Run one episode or question under a policy, and write the page of what is kept.

    Args:
        config: What was asked for; its host is KIND:RUN.
        number: Of the episode or question.
        runs: The folder of runs.
        folder: Where the page goes.
        force: Whether files in it may be replaced.
        json: Whether to print JSON.

    Raises:
        MemxError: An option has no meaning for such a host, or the run or the policy is wrong.
    """
    if config.host.startswith(_VIDEO):
        return _clip(config, number, runs, folder, force=force, json=json)
    from ....experiments.universal.show import show_unit
    from ....results.eviction.files import write_report
    from ...output.evict_summary import print_eviction

    report = show_unit(config, runs, number)
    print_eviction(report, write_report(folder, report, force=force), json=json)


def _clip(config: EvictConfig, number: int, runs: Path, folder: Path, *, force: bool, json: bool) -> None:
    from ....errors import MemxError
    from ....experiments.universal.load import find_host_run
    from ....experiments.video.clip_eviction import run_clip_eviction
    from ....results.eviction.clip_files import write_clip_report
    from ....results.eviction.clip_report import clip_facts
    from ....results.eviction.report import report_json

    for field, usual in _OF_TEXT.items():
        if getattr(config, field) != usual:
            option = f"--{field.replace('_', '-')}"
            raise MemxError(f"{option} means nothing for a video model", hint="leave it out")
    report = run_clip_eviction(config, number, find_host_run(config.host, runs).folder)
    written = write_clip_report(folder, report, force=force)
    if json:
        print_json_text(report_json({**clip_facts(report), "files": [str(path) for path in written]}))
        return
    _print(report)
    note(f"open {written[0]} to see which frames were evicted")


def _print(report: ClipReport) -> None:
    from ....results.eviction.clip_report import kinds_table

    say(f"{report.question} (right: {report.right})")
    for name, answer in ((report.policy, report.evicted), ("full cache", report.full)):
        say(f"  {name}: {answer.text or 'nothing'} (log-likelihood of the right answer {answer.log_likelihood:.2f})")
    table = kinds_table(report)
    print_table(table.title, table.columns, table.lines, left=table.left)
