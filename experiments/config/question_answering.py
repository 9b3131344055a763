"""The config of `memx eval`: which model is asked which questions, and how. No torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import RunName, StrictModel, run_name

TASKS = ("nq", "tqa")
TITLES = {"nq": "NQ-open", "tqa": "TriviaQA"}
ANSWER_TOKENS = 32
SHOTS = 5


class QaFiles(StrictModel):
    """Files of questions, and the digest of what is in them; no files: the Hugging Face hub."""

    files: tuple[str, ...] = ()
    sha256: str = Field(default="", description="of the files; others are another evaluation")


class QaTask(StrictModel):
    """A set of questions, and where examples for its prompts are drawn from."""

    name: Literal["nq", "tqa"]
    asked: QaFiles = QaFiles()
    examples: QaFiles = Field(default=QaFiles(), description="training questions; none is needed without shots")


class HarnessConfig(StrictModel):
    """What lm-eval runs."""

    tasks: tuple[str, ...] = ()
    folder: str | None = Field(default=None, description="of tasks of one's own, YAML files")
    sha256: str = Field(default="", description="of what the folder holds")
    shots: int | None = Field(default=None, ge=0, description="none: as each task says")


class QaConfig(StrictModel):
    """A whole evaluation of one model."""

    command: Literal["eval"] = "eval"
    name: RunName = Field(description="of the run folder")
    model: str = Field(description="a folder written by save_pretrained, smollm2, … or a hub name")
    sha256: str = Field(default="", description="of a folder's weights; other weights are another evaluation")
    run: str | None = Field(default=None, description="the run folder of memx train that the model is of")
    tasks: tuple[QaTask, ...] = ()
    shots: int = Field(default=SHOTS, ge=0, description="examples before each question")
    limit: int | None = Field(default=None, ge=1, description="questions of each set; none: all")
    answer_tokens: int = Field(default=ANSWER_TOKENS, ge=1, description="the most that are written")
    seed: int = Field(default=0, ge=0, lt=2**31, description="draws examples, and questions under a limit")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["float32", "bfloat16"] = "float32"
    harness: HarnessConfig = HarnessConfig()

    @property
    def folder(self) -> str:
        """The name of the run folder."""
        return run_name(self)
