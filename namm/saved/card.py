"""The model card of a NAMM: what is known of it -> README.md, with a front matter that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml

from ..policies.network import Namm

FOLDER = "FOLDER"
TAGS = ("memx", "namm", "kv-cache", "token-eviction")
AND = " + "  # between the names of several base models
_PAPER = "[Cetin et al. 2024](https://arxiv.org/abs/2410.13166)"


@dataclass(frozen=True)
class Score:
    """A measured value of a NAMM.

    Attributes:
        data: What was evaluated, such as `test prompts, all tasks`.
        metric: What was measured, with its unit.
        value: The value.
        low: Lower end of its 95% interval; None if it is not known.
        high: Upper end.
        n: Number of prompts.
    """

    data: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Card:
    """What the card of a NAMM says besides what its files say.

    Attributes:
        about: One sentence on what the NAMM is for. Empty: its base model and tasks.
        command: Command that made it.
        config: Config of that command, as YAML.
        seeds: Random seeds of its evolution.
        scores: Values that were measured.
        license: Licence of the NAMM, by its SPDX name in small letters.
    """

    about: str = ""
    command: str = ""
    config: str = ""
    seeds: Sequence[int] = ()
    scores: Sequence[Score] = ()
    license: str = "apache-2.0"


def card_text(
    namm: Namm, card: Card, *, host: str | None = None, tasks: Sequence[str] = (), place: str = FOLDER
) -> str:
    """The text of a NAMM's card.

    Args:
        namm: The NAMM.
        card: What else is known of it.
        host: Base model that it was evolved on; several with `AND` between their names.
        tasks: Tasks that it was evolved on.
        place: Folder or name that it is loaded by.

    Returns:
        Markdown with a front matter in YAML.
    """
    front = yaml.safe_dump({"library_name": "memx", "license": card.license, "tags": [*TAGS]}, sort_keys=False)
    about = card.about or f"A token eviction policy{f', evolved on {host}' if host else ''}."
    parts = [f"---\n{front}---", f"# {namm.name}", about, _what_it_is(namm), "## Use", _use(host, place)]
    parts += [] if place != FOLDER else [f"`{FOLDER}` is the folder of this card, or its name on the Hugging Face hub."]
    parts += ["## Description", _table(("", ""), _facts(namm, card, host, tasks))]
    if card.scores:
        header = ("evaluated on", "measure", "value", "95% interval", "prompts")
        parts += ["## Scores", _table(header, map(_score, card.scores))]
    if card.command or card.config:
        parts += ["## How it was made"]
        parts += [f"```sh\n{card.command}\n```"] if card.command else []
        parts += [f"With this config:\n\n```yaml\n{card.config.strip()}\n```"] if card.config else []
    return "\n\n".join(parts) + "\n"


def _what_it_is(namm: Namm) -> str:
    free = namm.table is None and namm.rule.shares is None
    models = "any model that memx supports" if free else "its base model only"
    return (
        f"A NAMM (neural attention memory model, {_PAPER}) is a small network that decides which tokens of a "
        f"transformer's KV cache to keep. This one works with {models}."
    )


def _use(host: str | None, place: str) -> str:
    lines = [
        "```python",
        "import memx",
        "",
        f'model, tokenizer = memx.load_model("{(host or "smollm2").partition(AND)[0]}")',
        f'namm = memx.namm.load("{place}")',
        'prompt = tokenizer("A long text", return_tensors="pt")',
        "with memx.namm.attach(model, namm):",
        "    answer = model.generate(**prompt, max_new_tokens=64)",
        "```",
        "",
        "```sh",
        f"memx evict --file prompt.txt --namm {place}",
        "```",
    ]
    return "\n".join(lines)


def _facts(namm: Namm, card: Card, host: str | None, tasks: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values of what describes a NAMM; those that are known."""
    rule = namm.rule
    size = f"threshold {rule.threshold:g}, {rule.grouping}"
    if rule.budget is not None:
        tokens = f"{rule.budget:,.0f} tokens of each head"
        size = tokens if rule.budget > 1 else f"{rule.budget:.4g} of all tokens"
        size += f", allocation {rule.allocation}"
    widths = " ".join(map(str, namm.hidden))
    facts = {
        "parameters": f"{namm.parameter_count:,}",
        "network": namm.scorer + (f", hidden widths {widths}" if widths else ""),
        "features": ", ".join(f"`{name}`" for name in namm.features),
        "keeps": size,
        "tokens between evictions": str(namm.every),
        "base model": host or "",
        "tasks": ", ".join(f"`{task}`" for task in tasks),
        "seeds": ", ".join(map(str, card.seeds)),
    }
    return [(name, value) for name, value in facts.items() if value]


def _score(score: Score) -> tuple[str, ...]:
    known = score.low is not None and score.high is not None
    interval = f"{score.low:.3f} to {score.high:.3f}" if known else ""
    return score.data, score.metric, f"{score.value:.3f}", interval, "" if score.n is None else str(score.n)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
