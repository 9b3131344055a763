"""`memx evict`: a prompt under an eviction policy -> the answer, cache sizes, and what was forgotten to look at."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..output.console import examples, note, print_table
from .options import Device, Dtype

if TYPE_CHECKING:
    from ...results.eviction.report import EvictionReport

_EPILOG = examples(
    'memx evict "The capital of France is" --every 16 --new-tokens 8',
    "memx evict --file long.txt --policy h2o --budget 0.25 --compare",
    "memx evict --file long.txt --namm my-namm --protect 0:16 --protect -64:",
)
_STDIN = "-"


class Grouping(StrEnum):
    """How the heads of a layer share a NAMM's threshold."""

    layer_max = "layer_max"
    per_head = "per_head"


# one alias for each option, so that the command itself fits a screen
Prompt = Annotated[str | None, typer.Argument(help="The text to go on with; - reads it from stdin.")]
File = Annotated[Path | None, typer.Option(help="A file with the prompt instead; - is stdin.")]
Host = Annotated[
    str, typer.Option(help="smollm2, gemma3-270m, a folder or a hub name of a model that transformers knows.")
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="full, random, recency, streamingllm, h2o, knorm, tova or snapkv; snapkv if not said.",
        show_default=False,
    ),
]
Namm = Annotated[Path | None, typer.Option(metavar="FOLDER", help="A saved NAMM as the policy.")]
Budget = Annotated[
    float | None,
    typer.Option(help="Share of all tokens so far that each run keeps; 0.5, or a NAMM's own rule, if not said."),
]
Every = Annotated[
    int | None, typer.Option(help="Tokens between runs, a multiple of 16; 512, or a NAMM's own, if not said.")
]
Threshold = Annotated[float | None, typer.Option(help="Scores from which a NAMM keeps a token.")]
GroupingOption = Annotated[
    Grouping | None,
    typer.Option(help="With a NAMM's threshold: all heads of a layer keep as many as the most generous, or not."),
]
Protect = Annotated[
    list[str] | None,
    typer.Option(metavar="START:STOP", help="Token numbers that stay, as 0:16 or -64:; may be repeated."),
]
NewTokens = Annotated[int, typer.Option(min=1, help="The most tokens to generate, greedily.")]
Compare = Annotated[bool, typer.Option("--compare", help="Generate with the full cache too.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the page and the picture; results/runs/evict-HASH if not said.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what the folder holds of another run.")]
Seed = Annotated[int, typer.Option(help="Draws what the policy random keeps.")]
DtypeOption = Annotated[
    Dtype | None, typer.Option(help="Of the host; bfloat16 on CUDA and float32 on a CPU if not said.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("evict", epilog=_EPILOG)(evict)


def evict(
    prompt: Prompt = None,
    file: File = None,
    host: Host = "smollm2",
    policy: Policy = None,
    namm: Namm = None,
    budget: Budget = None,
    every: Every = None,
    threshold: Threshold = None,
    grouping: GroupingOption = None,
    protect: Protect = None,
    new_tokens: NewTokens = 64,
    compare: Compare = False,
    out: Out = None,
    force: ForceOption = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DtypeOption = None,
    json: JsonOption = False,
) -> None:
    """Let a model go on with a prompt while a policy evicts tokens from its cache, and show what was forgotten.

    The policy runs whenever the length is a multiple of --every; tokens after its last run wait for the next. The page
    (evict.html) shows the prompt with kept and dropped tokens of each layer, evict.png all layers at once, evict.json
    every number.
    """
    text = _read(prompt, file)
    from ...experiments.eviction.run import EvictConfig, run_eviction
    from ...results.eviction.files import check_free, write_report

    config = EvictConfig(
        prompt=text,
        host=host,
        policy=policy,
        namm=namm,
        budget=budget,
        every=every,
        threshold=threshold,
        grouping=grouping and grouping.value,
        protect=protect or (),
        new_tokens=new_tokens,
        compare=compare,
        seed=seed,
        device=device,
        dtype=dtype and dtype.value,
    )
    folder = out or Path("results/runs") / config.name
    check_free(folder, force=force)
    report = run_eviction(config, (lambda line: None) if json else note)
    written = write_report(folder, report, force=force)
    _warn(report)
    if json:
        _print_json(report, written)
    else:
        _print(report, written)


def _read(prompt: str | None, file: Path | None) -> str:
    """The prompt of exactly one source. Raises MemxError for none, both, or one that cannot be read."""
    from ...errors import MemxError

    if (prompt is None) == (file is None):
        said = "no prompt" if prompt is None else "a prompt and --file both say what to read"
        raise MemxError(said, hint='memx evict "some text", memx evict --file PATH, or memx evict - for stdin')
    source = _STDIN if prompt == _STDIN else str(file) if file is not None else None
    if source is None:
        if len(str(prompt)) < 200 and Path(str(prompt)).is_file():
            note(f"the prompt is the text {prompt!r} itself; --file {prompt} reads that file")
        return str(prompt)
    try:
        return (sys.stdin.buffer.read() if source == _STDIN else Path(source).read_bytes()).decode("utf-8")
    except OSError as error:
        raise MemxError(
            f"cannot read {source}: {error.strerror}", hint="--file takes a text file, - is stdin"
        ) from None
    except UnicodeDecodeError:
        name = "stdin" if source == _STDIN else source
        raise MemxError(f"{name} is not UTF-8 text", hint="convert it, as with iconv -t utf-8") from None


def _warn(report: EvictionReport) -> None:
    """Say so if the policy never ran while the prompt was read."""
    if report.every is None or report.runs:
        return
    later = " until the answer" if report.tokens + report.answer.tokens > report.every else ""
    note(
        f"warning: the prompt has {report.tokens:,} tokens and {report.policy} runs every {report.every}, so it never "
        f"ran{later}: nothing of the prompt is forgotten"
    )
    often = f", or --every {report.tokens // 32 * 16}" if report.tokens >= 64 else ""
    note(f"hint: give a longer prompt{often}")


def _print_json(report: EvictionReport, written: list[Path]) -> None:
    from ...results.eviction.report import report_facts, report_json

    print(report_json({"files": [str(path) for path in written], **report_facts(report)}))


def _print(report: EvictionReport, written: list[Path]) -> None:
    from ...results.eviction.report import size_table, written_line

    if report.full is not None:
        print(f"--- with {report.policy}, {report.rule}")
    print(report.answer.text)
    if report.full is not None:
        print("--- with the full cache")
        print(report.full.text)
    print()
    table = size_table(report)
    print_table(table.title, table.columns, table.lines)
    print(report.ran)
    print(written_line(report.policy, report.answer))
    if report.full is not None:
        print(written_line("full cache", report.full))
    for path in written:
        print(path)
    note(f"open {written[0]} to read what was forgotten; next: {_next(report)}")


def _next(report: EvictionReport) -> str:
    """A command worth trying after this one."""
    if report.full is None:
        return "the same with --compare shows what the full cache writes"
    return "the same with another --policy or --budget"
