"""A row is one fact that a run found: a JSON object per line of `rows.jsonl`. Plots and tables read rows only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import MemxError, plain_reason
from ...files import write_atomically
from ...json_text import BadJson, parse_json
from .row_checks import wrong_numbers
from .run_info import unreadable

_HINT = "give a rows file with one JSON object per line"
_TIERS = ("seen", "rephrased", "unseen")
# what rows of some commands hold besides the fields of `Row`, by the same names as in `Labels`
ADDED = {
    "trained": "memx train: which weights were trained (all, memory, slots, lora)",
    "after_part": "memx train with finetune.parts: how many parts were learned before; 0 is before training",
    "shares": "memx train: shares of the sparse parameters by kind of memory, such as engram 0.25, moe 0.75",
    "shots": "memx eval: examples in the prompt",
    "fewer_shots": "memx eval: questions whose prompt had room for fewer examples",
    "cut_questions": "memx eval: questions that were shortened because they did not fit in the context",
    "cut_tokens": "memx eval: tokens that the longest of these questions lost",
    "answer_tokens": "memx eval: longest answer of a task of lm-eval whose own limit does not fit in the context",
    "harness": "memx eval: version of lm-eval",
    "policy": "memx eval: policy that evicted tokens",
    "every": "memx eval: tokens between evictions",
    "evicted_questions": "memx eval: questions whose prompt was long enough for an eviction",
    "chat": "memx eval: whether the model was asked through the chat template of its tokenizer",
    "context_questions": "memx eval: questions with a text to read before them",
    "answer_generation": "memx evolve-namm: generation that the chosen parameters come from",
    "token_kind": "memx eval-namm: kind of token (keyword, name, number, content word, and others)",
    "share": "memx eval-namm: share of all tokens that are of this kind",
    "layer": "memx eval-namm: layer of the cache",
    "size": "memx eval-namm: budget or own (the size at the NAMM's own threshold)",
    "budget": "share of the cache that a policy keeps; above 1 tokens of each head",
    "allocation": "how heads share a budget: equal, global, table, layer_max or threshold",
    "own_of": "memx eval-namm: the NAMM whose own size it is",
    "beside": "memx eval-namm: the NAMM that a baseline was evaluated with",
    "rival": "memx eval-namm: the baseline that a NAMM is compared with; memx bench: whether the code is not memx's",
    "package": "memx eval-namm: package that the policy comes from",
    "mode": "post_hoc (one choice after the context) or online (evicting while reading)",
    "split": "memx eval-namm: split of the prompts (train, validation, test)",
    "question": "memx eval-namm: whether the question was read after eviction, or before, so that policies saw it",
    "length": "memx eval-namm: largest number of tokens in a prompt",
    "evolved_on": "memx eval-namm: the model that the NAMM was evolved on",
}


@dataclass(frozen=True)
class Labels:
    """What a row is about beside its own fields: what its `dataset` names, and what rows of some commands add.

    `memx train`: tier (seen, rephrased, unseen) and relation of questions; text, the name of held-out text; corpus:
    held-out documents of the corpus; memory_layer; trained: which weights were; asked, after_part: what was asked after
    how many parts of the facts; shares: of the sparse parameters, by kind. `memx eval`: shots; fewer_shots and
    cut_questions: questions that had no room for all of them, or not even for themselves; cut_tokens: what the longest
    of these lost; answer_tokens: of lm-eval, where its own limit does not fit the model; harness: the version of
    lm-eval; policy, every and evicted_questions: what evicted, how often, and from how many prompts; chat: through a
    chat template; context_questions: how many came with a text to read.
    `memx evolve-namm`: evolution_split (validation, test) and task, a family or "all"; answer_generation.
    `memx eval-namm`: task_set (trained, held-out, all), task; token_text (code, prose) and token_kind with its share
    of all tokens; layer of the cache; size (budget, own), budget, its allocation between heads, and own_of, the NAMM
    whose own size it is; beside: the NAMM that a baseline is evaluated with; rival: the baseline that a NAMM is
    compared with; package: who wrote the policy; mode, split, question and length of its prompts; evolved_on: a model,
    several joined by " + ". `memx bench`: op, shape, allocation.
    """

    tier: str = ""
    relation: str = ""
    text: str = ""
    corpus: bool = False
    memory_layer: int | None = None
    trained: str = "all"
    asked: str = ""
    after_part: int | None = None
    shares: str = ""
    shots: int = 0
    fewer_shots: int = 0
    cut_questions: int = 0
    cut_tokens: int = 0
    answer_tokens: int = 0
    harness: str = ""
    policy: str = ""
    every: int | None = None
    evicted_questions: int | None = None
    chat: bool = False
    context_questions: int = 0
    evolution_split: str = ""
    task_set: str = ""
    task: str = ""
    answer_generation: int = 0
    token_text: str = ""
    token_kind: str = ""
    share: float = 0.0
    layer: int | None = None
    size: str = ""
    budget: float | None = None
    allocation: str = ""
    own_of: str = ""
    beside: str = ""
    rival: str = ""
    package: str = "memx"
    mode: str = ""
    split: str = ""
    question: str = "after"
    length: int = 0
    evolved_on: str = ""
    op: str = ""
    shape: str = ""


class Row(BaseModel):
    """One measured value, with what it was measured on. Rows of some commands have more fields: see `ADDED`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str = Field(description="name of the run folder")
    experiment: str = Field(description="name that all points of a sweep share")
    kind: str = Field(description="dense, memory, memory+, ultramem, engram, peer or moe; of an op, its implementation")
    model: str = Field(description="the base model, or the dtype of an op")
    variant: str = Field(default="", description="name of the point in an experiment with variants; a policy's name")
    dataset: str = Field(description="what was evaluated: a tier of questions, a data set, a text, an op and its shape")
    metric: str = Field(description="exact_match, f1, nll (nats per token), step_ms, and others")
    value: float = Field(description="the value, in the metric's unit; accuracies are in percent")
    n: int = Field(description="number of questions, prompts or repetitions")
    stderr: float | None = Field(default=None, description="standard error of the value")
    low: float | None = Field(default=None, description="lower end of the 95% interval; of times, the 20th percentile")
    high: float | None = Field(default=None, description="upper end of the 95% interval; of times, the 80th percentile")
    memory_slots: int = Field(default=0, description="rows of the value table; 0 for a dense model")
    parameters_total: int | None = Field(default=None, description="parameters of the model")
    parameters_active: int | None = Field(default=None, description="parameters used for one token")
    flops: int | None = Field(default=None, description="FLOPs of a forward pass per token; of an op, per call")
    device: str = Field(default="", description="where it was measured, such as cpu or cuda")
    seed: int = Field(default=0, description="random seed of the run")
    commit: str = Field(default="", description="commit of memx; + marks uncommitted changes")

    @property
    def labels(self) -> Labels:
        """What the row is about beside these fields."""
        added = (self.model_extra or {}).items()
        return replace(labels_of(self.dataset), **{k: v for k, v in added if k in ADDED and v is not None})


@lru_cache(maxsize=4096)
def labels_of(dataset: str) -> Labels:
    """What the text of a row's `dataset` names, in the forms that all versions of memx write."""
    first, _, rest = dataset.partition("/")
    op, space, shape = dataset.partition(" ")
    if first in _TIERS:
        return Labels(tier=first, relation=rest)
    if first in ("validation", "test") and rest:
        return Labels(evolution_split=first, task=rest)
    if first in ("trained", "held-out", "all") and rest:
        return Labels(task_set=first, task=rest)
    if first == "kinds":
        return Labels(token_text=rest)
    if first == "text":
        return Labels(text=rest)
    if first == "parts":
        return Labels(asked=rest)
    if dataset == "corpus":
        return Labels(corpus=True)
    if op == "layer" and (block := shape.partition(".")[0].rstrip("+")).isdigit():
        return Labels(memory_layer=int(block))
    return Labels(op=op, shape=shape) if space else Labels()


def extra(row: Row, name: str, otherwise: Any = None) -> Any:
    """A fact that a row holds beside its own fields."""
    value = (row.model_extra or {}).get(name)
    return otherwise if value is None else value


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, the whole file or nothing.

    Raises:
        MemxError: The disk is full or forbids it.
        RuntimeError: A number is not finite, as of a model that diverged; nothing is written.
    """
    lines = []
    for row in rows:
        for name, value in row.model_dump().items():
            if isinstance(value, float) and not isfinite(value):
                raise RuntimeError(
                    f"{row.metric} of {row.dataset or row.run}: {name} is {value}, so no rows are written"
                )
        lines.append(row.model_dump_json() + "\n")
    write_atomically(path, "".join(lines))


def read_rows(path: Path) -> list[Row]:
    """Read a file of rows, of this version of memx or an older one.

    Args:
        path: The file, such as `results/runs/RUN/rows.jsonl`.

    Returns:
        The rows in the order of the file. Empty lines are skipped.

    Raises:
        MemxError: The file cannot be read, or a line is not a row; the message has the file and the line.

    Example:
        ```python
        from pathlib import Path

        from memx.results import read_rows

        for row in read_rows(Path("results/runs/RUN/rows.jsonl")):
            print(row.dataset, row.metric, row.value, row.low, row.high)
        ```
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        data.decode()
    except UnicodeDecodeError:
        raise MemxError(f"{path} is not a text file", hint=_HINT) from None
    # a line ends with \n alone: JSON may hold the other characters that str.splitlines takes for an end
    lines = enumerate(data.split(b"\n"), start=1)
    return [_row(path, number, line) for number, line in lines if line.strip()]


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        data = parse_json(line)
    except BadJson as error:
        reason = error.reason.removeprefix("not JSON ").strip("()")
        raise MemxError(f"{path} line {number} is not JSON: {reason}", hint=_HINT) from None
    wrong = "it is not a JSON object" if not isinstance(data, dict) else wrong_numbers(data)
    if not wrong:
        try:
            return Row.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            wrong = f"{'.'.join(map(str, first['loc']))} {plain_reason(first)}"
    hint = "a value of null is a number that was not finite: the run diverged" if "not null" in wrong else ""
    raise MemxError(f"{path} line {number} is not a valid row: {wrong}", hint=hint or "fix or remove that line")
