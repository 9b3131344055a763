"""`memx prepare`: text of any size -> a folder of token ids that training reads from disk in any order."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..output.console import examples, note, print_json, print_table
from .options import check_resume

if TYPE_CHECKING:
    from ...experiments.data.corpus.prepare import Written
    from ...experiments.data.corpus.readers.prepared import Manifest

_EPILOG = examples(
    "memx prepare corpus/*.jsonl --out prepared --vocabulary 32768",
    "memx prepare HuggingFaceFW/fineweb-edu --subset sample-10BT --tokenizer smollm2 --out fineweb --jobs 8",
    "memx prepare prepared --check",
)
_INTERVAL = 10.0  # seconds between lines in a pipe


class Damaged(StrEnum):
    """What becomes of a part that cannot be read."""

    fatal = "fatal"
    skip = "skip"


# one alias for each option, so that the command itself fits a screen
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Files (.jsonl, .txt, .parquet), folders, patterns, hub data sets, python-docs; or a prepared folder.",
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to write; must be new or empty.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="A hub name or a folder; if not said, one is trained on the first documents.")
]
Vocabulary = Annotated[int, typer.Option(min=259, help="Entries of a tokenizer that is trained.")]
Field = Annotated[str, typer.Option(help="The field or column that holds the text.")]
Split = Annotated[str, typer.Option(help="Of hub data sets.")]
Subset = Annotated[str | None, typer.Option(help="Of hub data sets: the configuration's name.")]
ShardTokens = Annotated[int, typer.Option(min=1, help="Tokens after which a shard ends, at the next 256 documents.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that tokenise.")]
DamagedOption = Annotated[
    Damaged, typer.Option(help="A line or file that cannot be read ends the run, or is left out with a note.")
]
Check = Annotated[bool, typer.Option("--check", help="Compare each shard with its hash; write nothing.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a stopped one, to the same bytes.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Start anew; what the folder held is lost.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("prepare", epilog=_EPILOG)(prepare)


def prepare(
    sources: Sources,
    out: Out = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = 32_768,
    field: Field = "text",
    split: Split = "train",
    subset: Subset = None,
    shard_tokens: ShardTokens = 100_000_000,
    jobs: Jobs = 1,
    damaged: DamagedOption = Damaged.fatal,
    check: Check = False,
    resume: ResumeOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Tokenise text into shards that training maps from disk, with their tokenizer and a manifest.

    A stopped run goes on with --resume. Memory use does not grow with the text.
    """
    from ...errors import MemxError

    if check:
        if out is not None or len(sources) != 1:
            raise MemxError("--check takes one prepared folder", hint="memx prepare FOLDER --check")
        _check(Path(sources[0]), json)
        return
    if out is None:
        raise MemxError("nowhere to write", hint="--out FOLDER")
    check_resume(resume, force)
    from ...experiments.config.scale import CorpusSource
    from ...experiments.data.corpus.prepare import PrepareConfig
    from ...experiments.data.corpus.prepare import prepare as prepare_corpus

    order = PrepareConfig(
        sources=tuple(CorpusSource(path=one, field=field, split=split, subset=subset) for one in sources),
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
        manifest = prepare_corpus(order, display.note, display.tell)
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
        note(f"{manifest.left_out:,} damaged parts were left out")
    note(f"next: memx train --corpus {out}, or memx prepare {out} --check to compare it with its hashes")


def _bytes(folder: Path, name: str) -> str:
    return f"{sum((folder / (name + ending)).stat().st_size for ending in ('.bin', '.idx')) / 1e6:,.1f}"


def _check(folder: Path, json: bool) -> None:
    from ...experiments.data.corpus.shards import check_shards

    found: list[dict[str, Any]] = []
    for shard, wrong in check_shards(folder):
        found.append({"shard": shard.name, "documents": shard.documents, "tokens": shard.tokens, "wrong": wrong})
        if wrong:
            note(f"FAIL {folder / shard.name}: {wrong}")
    bad = sum(bool(one["wrong"]) for one in found)
    if json:
        print_json({"folder": str(folder), "shards": found})
    else:
        lines = [[one["shard"], f"{one['documents']:,}", f"{one['tokens']:,}", one["wrong"] or "ok"] for one in found]
        print_table(f"Shards of {folder}", ["shard", "documents", "tokens", "bytes"], lines)
        again = "prepare it anew with --force" if bad else f"memx train --corpus {folder}"
        note(f"{bad} of {len(found)} shards are damaged; next: {again}")
    if bad:
        raise typer.Exit(1)


class _Display:
    """How far it is: one line that changes on a terminal, one line per interval in a pipe."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.terminal = quiet, sys.stderr.isatty() and not quiet
        self.begun = self.printed = time.monotonic()
        self.first: int | None = None  # tokens at the first report
        self._status: Any = None

    def __enter__(self) -> _Display:
        if self.terminal:
            from rich.console import Console

            self._status = Console(stderr=True).status("reading")
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        """Show a line that stays."""
        if self._status is not None:
            self._status.console.print(text, highlight=False, markup=False)
        else:
            note(text)

    def tell(self, written: Written) -> None:
        """Show how far it is."""
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
