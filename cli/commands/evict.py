"""`memx evict`: generate from a prompt under an eviction policy, and show which tokens were evicted."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ...errors import MemxError
from ..output.console import examples, note
from ..parsing.spellings import Command
from .completion import MODELS, POLICIES, complete_of, namm_names
from .options import (
    ADVANCED,
    NAMM_AND_EVICTION,
    RUN_FOLDER,
    Allocation,
    Device,
    Dtype,
    ProtectFirst,
    ProtectNewest,
    Runs,
    allocation_option,
    option,
)

_EPILOG = examples(
    'python -c "import this" | memx evict - --interval 64 --budget 0.25',
    "memx evict --file prompt.txt --budget 0.25 --interval 64 --compare",
    "memx evict --file prompt.txt --policy knorm --allocation global",
    "memx evict --file prompt.txt --namm results/runs/RUN/namm --protect 0:16",
)
_STDIN = "-"


class Grouping(StrEnum):
    """How the heads of a layer share a NAMM's threshold."""

    layer_max = "layer_max"
    per_head = "per_head"


# one alias for each option, so that the command itself fits a screen
Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="Prompt text; - reads it from stdin.")]
File = Annotated[Path | None, option(metavar="FILE", help="Read the prompt from a UTF-8 text file; - is stdin.")]
Model = Annotated[
    str | None,
    option(
        "--model",
        metavar="MODEL",
        help="Base model: smollm2, gemma3-270m, a folder or a hub name.",
        default="smollm2, or that of --namm RUN",
        complete=complete_of(MODELS),
    ),
]
Policy = Annotated[
    str | None,
    option(
        metavar="POLICY|FILE.py:CLASS",
        help="full, random, recency, streamingllm, h2o, knorm, tova, snapkv, keydiff or expected_attention.",
        default="the NAMM universal",
        complete=complete_of(POLICIES),
    ),
]
Namm = Annotated[
    Path | None,
    option(
        metavar="FOLDER|NAME",
        help=f"Saved NAMM to use as the policy: {', '.join([*namm_names(), 'a folder, a run or a hub name'])}.",
        complete=complete_of(namm_names),
    ),
]
Budget = Annotated[
    float | None,
    option(
        metavar="SHARE|TOKENS",
        help="Cache budget: share of all tokens that each eviction keeps, or tokens per head.",
        default="0.5, or that of --namm",
    ),
]
AllocationOption = Annotated[Allocation | None, allocation_option()]
Shares = Annotated[
    Path | None,
    option(metavar="FILE", help="Table of head shares (JSON), for --allocation table.", default="the NAMM's"),
]
Interval = Annotated[
    int | None,
    option(
        "--interval", metavar="TOKENS", help="Tokens between evictions, a multiple of 16.", default="512, or the NAMM's"
    ),
]
NewTokens = Annotated[int, option(min=1, metavar="TOKENS", help="Maximum tokens to generate, greedily.")]
Compare = Annotated[bool, option("--compare", help="Also generate with the full cache.")]
Protect = Annotated[
    list[str] | None,
    option(metavar="START:STOP", help="Token positions never to evict, e.g. 0:16 or -64:. Repeatable."),
]
Out = Annotated[
    Path | None,
    option(
        metavar="FOLDER",
        help="Folder for the HTML page, the figure and the JSON file.",
        default="results/runs/evict-HASH",
        panel=RUN_FOLDER,
    ),
]
ForceOption = Annotated[
    bool, option("--force", help="Overwrite another run's results in that folder.", panel=RUN_FOLDER)
]
JsonOption = Annotated[bool, option("--json", help="Print all results as JSON on stdout.", panel=RUN_FOLDER)]
Threshold = Annotated[
    float | None,
    option(
        metavar="SCORE", help="With a NAMM: keep tokens that score at least this.", default="the NAMM's", panel=ADVANCED
    ),
]
GroupingOption = Annotated[
    Grouping | None,
    option(
        help="With --threshold: equal cache size in all heads of a layer, or per head.",
        default="the NAMM's",
        panel=ADVANCED,
    ),
]
HostOption = Annotated[
    str | None,
    option(
        "--host",
        metavar="KIND:RUN",
        help="Show an episode of decision:RUN, or a question about a clip of video:RUN, instead of a prompt.",
        panel=ADVANCED,
    ),
]
Episode = Annotated[int, option(min=0, metavar="N", help="With --host: which episode or question.", panel=ADVANCED)]
Seed = Annotated[int, option(metavar="N", help="Random seed for the policy random.", panel=ADVANCED)]
DtypeOption = Annotated[
    Dtype | None, option(help="Data type of the model.", default="bfloat16 on CUDA, float32 on a CPU", panel=ADVANCED)
]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("evict", cls=Command, epilog=_EPILOG, rich_help_panel=NAMM_AND_EVICTION)(evict)


def evict(
    prompt: Prompt = None,
    file: File = None,
    model: Model = None,
    policy: Policy = None,
    namm: Namm = None,
    budget: Budget = None,
    allocation: AllocationOption = None,
    shares: Shares = None,
    interval: Interval = None,
    new_tokens: NewTokens = 64,
    compare: Compare = False,
    protect: Protect = None,
    protect_first: ProtectFirst = None,
    protect_newest: ProtectNewest = None,
    out: Out = None,
    force: ForceOption = False,
    json: JsonOption = False,
    threshold: Threshold = None,
    grouping: GroupingOption = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DtypeOption = None,
    host: HostOption = None,
    episode: Episode = 0,
    runs: Runs = Path("results/runs"),
) -> None:
    """Generate from a prompt while a policy evicts tokens from the KV cache, and show which ones.

    Without --policy and --namm, the NAMM universal evicts, which comes with memx. The policy evicts each time that the
    length reaches a multiple of --interval; later tokens are all kept until the next eviction. evict.html shows the
    kept and evicted tokens of each layer, evict.png all layers at once, and evict.json has all numbers.
    """
    if host is not None:
        given = {"a prompt": prompt, "--file": file, "--model": model, "--protect": protect, "--dtype": dtype}
        for option, value in given.items():
            if value not in (None, []):
                raise MemxError(f"{option} means nothing with --host", hint="leave it out")
    text = _read(prompt, file) if host is None else f"episode {episode}"
    from ...experiments.eviction.default_model import default_model
    from ...experiments.eviction.policy import EvictConfig
    from ...experiments.eviction.run import run_eviction
    from ...results.eviction.files import check_free, write_report
    from ..output.evict_summary import print_eviction

    config = EvictConfig(
        prompt=text,
        host=host or model or default_model(namm),
        policy=policy,
        namm=namm,
        budget=budget,
        every=interval,
        threshold=threshold,
        grouping=grouping and grouping.value,
        protect=protect or (),
        new_tokens=new_tokens,
        compare=compare,
        seed=seed,
        device="cpu" if host and device == "auto" else device,
        dtype=dtype and dtype.value,
        allocation=allocation and allocation.value,
        shares=shares,
        protect_first=protect_first,
        protect_newest=protect_newest,
    )
    folder = out or Path("results/runs") / config.name
    check_free(folder, force=force)
    if host is not None:
        from .other_hosts.show import show_on_host

        return show_on_host(config, episode, runs, folder, force=force, json=json)
    report = run_eviction(config, (lambda line: None) if json else note)
    written = write_report(folder, report, force=force)
    print_eviction(report, written, json=json)


def _read(prompt: str | None, file: Path | None) -> str:
    """The prompt of exactly one source. Raises MemxError for none, both, or one that cannot be read."""
    from ...errors import MemxError

    if (prompt is None) == (file is None):
        problem = "no prompt" if prompt is None else "a prompt and --file exclude each other"
        raise MemxError(problem, hint='memx evict "some text", memx evict --file PATH, or memx evict - for stdin')
    source = _STDIN if prompt == _STDIN else str(file) if file is not None else None
    if source is None:
        if len(str(prompt)) < 200 and Path(str(prompt)).is_file():
            raise MemxError(f"{prompt} is a file", hint=f"use --file {prompt}")
        return str(prompt)
    try:
        return (sys.stdin.buffer.read() if source == _STDIN else Path(source).read_bytes()).decode("utf-8")
    except OSError as error:
        raise MemxError(
            f"cannot read {source}: {error.strerror}", hint="--file takes a text file, or - for stdin"
        ) from None
    except UnicodeDecodeError:
        name = "stdin" if source == _STDIN else source
        raise MemxError(f"{name} is not UTF-8 text", hint="convert it, as with iconv -t utf-8") from None
