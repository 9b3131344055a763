"""The config of `memx eval`: the model, the questions and how they are evaluated. No torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from ...errors import shown
from .base import RunName, StrictModel, run_name

TASKS = ("nq", "tqa")
TITLES = {"nq": "NQ-open", "tqa": "TriviaQA"}
ANSWER_TOKENS = 32
SHOTS = 5
METRICS = ("exact_match", "f1")  # of nq and tqa, and of own sets where no others are named
# what nq and tqa are also called, in small letters alone
_PUBLISHED = {"nq": "nq", "nqopen": "nq", "naturalquestions": "nq", "tqa": "tqa", "triviaqa": "tqa"}
_OF_ROWS = ("seen", "rephrased", "unseen", "corpus", "text", "kinds")  # what these say in rows is taken
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")


def check_set_name(name: str) -> str:
    """Check the name of a set of questions.

    Args:
        name: nq, tqa, or a name of the user's.

    Returns:
        The name.

    Raises:
        ValueError: It cannot name own questions; what to do follows after a semicolon.
    """
    if name in TASKS:
        return name
    published = _PUBLISHED.get(re.sub(r"[^a-z]", "", name.lower()))
    if published is not None:
        raise ValueError(f"{name!r} means {TITLES[published]}; write {published}, or use another name")
    if name.lower() in _OF_ROWS:
        raise ValueError(f"{name!r} has another meaning in the rows of memx; use another name")
    if not _SET_NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} cannot name a question set; use up to 40 letters, digits and ._+- after a letter or digit"
        )
    return name


def is_own(name: str) -> bool:
    """Whether a name is of the user's own questions."""
    return name not in TASKS


def title_of(name: str) -> str:
    """The name of a set of questions in texts."""
    return TITLES.get(name, name)


class QaFiles(StrictModel):
    """Files of questions and their checksum; no files: download from the Hugging Face hub."""

    files: tuple[str, ...] = Field(default=(), description="question files; empty: download from the hub")
    sha256: str = Field(default="", description="checksum of the files; other files make another evaluation")


class QaTask(StrictModel):
    """A set of questions, and the source of the few-shot examples in its prompts."""

    name: Annotated[str, AfterValidator(check_set_name)] = Field(
        description="question set: nq (NQ-open), tqa (TriviaQA), or a name for your own questions"
    )
    asked: QaFiles = Field(default=QaFiles(), description="questions to evaluate")
    examples: QaFiles = Field(
        default=QaFiles(), description="training questions for few-shot examples; not needed with 0 shots"
    )


class HarnessConfig(StrictModel):
    """lm-eval: the tasks of lm-evaluation-harness to run."""

    tasks: tuple[str, ...] = Field(default=(), description="names of lm-eval tasks; empty: none")
    folder: str | None = Field(default=None, description="folder of your own task files (YAML); null: none")
    sha256: str = Field(default="", description="checksum of the folder's files")
    shots: int | None = Field(
        default=None, ge=0, le=10_000, description="few-shot examples; null: the default of each task"
    )


class QaEviction(StrictModel):
    """The policy that evicts tokens from the KV cache while the model reads and writes."""

    policy: str | None = Field(default=None, description="policy by name, or FILE.py:CLASS; null: a NAMM")
    namm: str | None = Field(
        default=None, description="saved NAMM: a folder, a run, a shipped or hub name; null: a policy"
    )
    sha256: str = Field(
        default="", description="checksum of the NAMM, an own policy's file or the table of head shares"
    )
    budget: float | None = Field(
        default=None, gt=0, description="share to keep, or above 1 tokens of each head; null: half, or the NAMM's"
    )
    every: int | None = Field(
        default=None, ge=16, description="tokens between evictions; null: 512, or as the NAMM says"
    )
    allocation: str | None = Field(
        default=None, description="how heads share the budget, as for memx evict; null: equally, or as the NAMM says"
    )
    shares: str | None = Field(default=None, description="file with a table of head shares; null: the NAMM's")

    @field_validator("budget")
    @classmethod
    def _share_or_tokens(cls, budget: float | None) -> float | None:
        if budget is not None and budget > 1 and budget != int(budget):
            raise ValueError(f"{budget:g} is neither a share nor a whole number of tokens; use e.g. 0.5 or 512")
        return budget


class QaConfig(StrictModel):
    """A whole evaluation of one model."""

    command: Literal["eval"] = Field(default="eval", description="command that the config is for, always eval")
    name: RunName = Field(description="first part of the run folder's name")
    model: str = Field(description="model: a folder written by save_pretrained, smollm2, … or a hub name")
    sha256: str = Field(default="", description="checksum of a folder's weights; other weights make another evaluation")
    run: str | None = Field(default=None, description="`memx train` run folder that the model is from; null: none")
    tasks: tuple[QaTask, ...] = Field(default=(), description="question sets to evaluate")
    shots: int = Field(default=SHOTS, ge=0, description="few-shot examples before each question")
    limit: int | None = Field(default=None, ge=1, description="questions per set; null: all")
    skip_bad_rows: bool = Field(default=False, description="skip rows that are no answered questions, with a note")
    answer_tokens: int = Field(default=ANSWER_TOKENS, ge=1, le=10_000, description="longest generated answer in tokens")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed for few-shot examples and for limit")
    device: str = Field(default="auto", description="device to run on: auto, cpu, cuda or cuda:N")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="dtype of weights and computation, float32 or bfloat16"
    )
    harness: HarnessConfig = HarnessConfig()
    eviction: QaEviction | None = Field(default=None, description="policy that evicts; null: the unmodified model")
    metrics: dict[str, tuple[str, ...]] = Field(
        default={}, description="metrics of own question sets by name; without an entry exact_match and f1"
    )
    chat: bool = Field(default=False, description="ask through the chat template of the tokenizer")

    @property
    def folder(self) -> str:
        """The name of the run folder."""
        return run_name(self)

    def shots_of(self, task: QaTask) -> int:
        """The examples before each question of a set: none for own questions without training questions."""
        return 0 if is_own(task.name) and not task.examples.files else self.shots

    def metrics_of(self, task: QaTask) -> tuple[str, ...]:
        """The metrics of a set."""
        return self.metrics.get(task.name, METRICS)
