"""`memx prepare`: tokenize text of any size into shards that training reads from disk."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..output.console import examples, note, print_json, print_table, terminal_console
from ..output.progress import shows_bars
from ..output.streams import readable
from ..parsing.spellings import Command
from .options import ADVANCED, DATA, MEMORY_LAYERS, check_resume, option

if TYPE_CHECKING:
    from ...experiments.data.corpus.prepare import Written
    from ...experiments.data.corpus.readers.prepared import Manifest

_EPILOG = examples(
    "memx prepare python-docs --out prepared --vocabulary 4096",
    "memx prepare prepared --check",
    "memx prepare corpus/*.jsonl --out prepared --vocabulary 32768",
    "memx prepare HuggingFaceFW/fineweb-edu --subset sample-10BT --out fineweb",
)
_INTERVAL = 10.0  # seconds between lines in a pipe


class Damaged(StrEnum):
    """What happens with a line or file that cannot be read."""

    fatal = "fatal"
    skip = "skip"


# one alias for each option, so that the command itself fits a screen
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Files (.jsonl, .txt, .parquet), folders, hub data sets, python-docs, or a prepared folder.",
    ),
]
Out = Annotated[Path | None, option(metavar="FOLDER", help="Folder to write to; must be new or empty.")]
Tokenizer = Annotated[
    str | None,
    option(metavar="NAME|FOLDER", help="Tokenizer: a hub name or a folder.", default="trained on the first documents"),
]
Vocabulary = Annotated[
    int, option(min=259, max=1_000_000, metavar="N", help="Vocabulary size of a tokenizer that is trained.")
]
Check = Annotated[bool, option("--check", help="Check a prepared folder against its hashes; write nothing.")]
ResumeOption = Annotated[bool, option("--resume", help="Continue a stopped run; the files are the same.")]
ForceOption = Annotated[bool, option("--force", help="Replace what the folder contains once a new shard is written.")]
JsonOption = Annotated[bool, option("--json", help="Print the manifest as JSON on stdout.")]
Field = Annotated[str, option(metavar="NAME", help="Field or column that contains the text.", panel=DATA)]
Split = Annotated[str, option(metavar="NAME", help="Split to use (hub data sets only).", panel=DATA)]
Subset = Annotated[str | None, option(metavar="NAME", help="Configuration to use (hub data sets only).", panel=DATA)]
DamagedOption = Annotated[Damaged, option(help="Corrupt line or file: stop, or skip it with a warning.", panel=DATA)]
ShardTokens = Annotated[int, option(min=1, metavar="TOKENS", help="Approximate size of a shard.", panel=ADVANCED)]
Jobs = Annotated[int, option(min=1, metavar="N", help="Processes that tokenize.", panel=ADVANCED)]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("prepare", cls=Command, epilog=_EPILOG, rich_help_panel=MEMORY_LAYERS)(prepare)


def prepare(
    sources: Sources,
    out: Out = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = 32_768,
    check: Check = False,
    resume: ResumeOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    field: Field = "text",
    split: Split = "train",
    subset: Subset = None,
    damaged: DamagedOption = Damaged.fatal,
    shard_tokens: ShardTokens = 100_000_000,
    jobs: Jobs = 1,
) -> None:
    """Tokenize text into shards on disk, for memx train --corpus.

    The folder also gets the tokenizer and a manifest with hashes. Memory use does not depend on the size of the text.
    Run again with --resume to continue a stopped run.
    """
    from ...errors import MemxError

    if check:
        if out is not None or len(sources) != 1:
            raise MemxError("--check takes one prepared folder", hint="memx prepare FOLDER --check")
        others = {"--tokenizer": tokenizer, "--subset": subset, "--resume": resume, "--force": force}
        if named := [name for name, value in others.items() if value]:
            raise MemxError(f"{named[0]} has no effect with --check", hint=f"memx prepare {sources[0]} --check")
        _check(Path(sources[0]), json)
        return
    if out is None:
        raise MemxError("no output folder", hint="add --out FOLDER")
    check_resume(resume, force)
    from ...experiments.config.base import from_options
    from ...experiments.config.scale import CorpusSource
    from ...experiments.data.corpus.prepare import PrepareConfig
    from ...experiments.data.corpus.prepare import prepare as prepare_corpus

    config = PrepareConfig(
        sources=tuple(
            from_options(CorpusSource, {"path": "SOURCE"}, path=one, field=field, split=split, subset=subset)
            for one in sources
        ),
        out=out,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        shard_tokens=shard_tokens,
        jobs=jobs,
        damaged=damaged.value,
        resume=resume,
        force=force,
    )
    with _Display(quiet=json) as display:
        manifest = prepare_corpus(config, display.note, display.show)
    if json:
        print_json({"folder": str(out), **manifest.model_dump()})
    else:
        _print(manifest, out)


def _print(manifest: Manifest, out: Path) -> None:
    lines = [
        [shard.name, f"{shard.documents:,}", f"{shard.tokens:,}", _bytes(out, shard.name)] for shard in manifest.shards
    ]
    if len(lines) > 12:
        lines = [*lines[:6], ["…", "", "", ""], *lines[-6:]]
    lines.append(["all", f"{manifest.documents:,}", f"{manifest.tokens:,}", ""])
    title = f"Token ids in {out} ({manifest.dtype})"
    print_table(title, ["shard", "documents", "tokens", "MB"], lines)
    if manifest.left_out:
        note(f"{manifest.left_out:,} corrupt parts were skipped")
    note(f"next: memx train 134m --corpus {out} --dry-run, or memx prepare {out} --check")


def _bytes(folder: Path, name: str) -> str:
    return f"{sum((folder / (name + ending)).stat().st_size for ending in ('.bin', '.idx')) / 1e6:,.1f}"


def _check(folder: Path, json: bool) -> None:
    from ...experiments.data.corpus.shards import check_shards, check_tokenizer

    found: list[dict[str, Any]] = []
    for shard, wrong in check_shards(folder):
        found.append({"shard": shard.name, "documents": shard.documents, "tokens": shard.tokens, "wrong": wrong})
        if wrong:
            note(f"FAIL {folder / shard.name}: {wrong}")
    bad = sum(bool(one["wrong"]) for one in found)
    if tokenizer := check_tokenizer(folder):
        note(f"FAIL {folder / 'tokenizer'}: {tokenizer}")
    if json:
        print_json({"folder": str(folder), "shards": found, "tokenizer": tokenizer})
    else:
        lines = [[one["shard"], f"{one['documents']:,}", f"{one['tokens']:,}", one["wrong"] or "ok"] for one in found]
        print_table(f"Shards of {folder}", ["shard", "documents", "tokens", "bytes"], lines)
        again = (
            "run memx prepare again with --force"
            if bad or tokenizer
            else f"memx train 134m --corpus {folder} --dry-run"
        )
        note(f"{bad} of {len(found)} shards are corrupt; next: {again}")
    if bad or tokenizer:
        raise typer.Exit(1)


class _Display:
    """Progress: one line that changes on a terminal, one line per interval in a pipe."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.terminal = quiet, shows_bars() and not quiet
        self.begun = self.printed = time.monotonic()
        self.first: int | None = None  # tokens at the first report
        self._status: Any = None

    def __enter__(self) -> _Display:
        if self.terminal:
            self._status = terminal_console(stderr=True).status("reading", spinner="line")
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        """Show a line that stays."""
        if self._status is not None:
            self._status.console.print(readable(text, sys.stderr), soft_wrap=True)
        else:
            note(text)

    def show(self, written: Written) -> None:
        """Show the progress so far."""
        now = time.monotonic()
        if self.first is None:
            self.begun, self.first = now, written.tokens
        if self.quiet or now - self.printed < (0.2 if self.terminal else _INTERVAL):
            return
        self.printed = now
        line = f"{written.documents:,} documents, {written.tokens:,} tokens"
        if now > self.begun:
            line += f", {(written.tokens - self.first) / (now - self.begun):,.0f} tokens/s"
        if self._status is not None:
            self._status.update(line)
        else:
            note(line)
