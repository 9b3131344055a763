"""The config of `memx train decision`: a decision transformer and the episodes that it learns from. No torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..base import RunName, StrictModel
from .recipe import HostTrainingConfig

Hidden = Literal["velocity", "physics", "goals"]
ENVIRONMENTS = ("Pendulum-v1", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "InvertedPendulum-v5")
WITH_GOALS = ("Pendulum-v1",)


class EnvironmentConfig(StrictModel):
    """Environment: a continuous-control task of gymnasium, and what of it the model does not see."""

    name: str = Field(
        default="Pendulum-v1", description="environment of gymnasium: Pendulum-v1, or Hopper-v5 and others of MuJoCo"
    )
    steps: int = Field(default=200, ge=8, le=100_000, description="longest episode in steps; 3 tokens each")
    repeat: int = Field(default=1, ge=1, le=100, description="steps of the simulator for which an action is repeated")
    hidden: tuple[Hidden, ...] = Field(
        default=(),
        description="not seen: velocity; physics, drawn for each episode; goals, shown in a few early steps only",
    )
    goals: int = Field(default=2, ge=1, le=16, description="goals of an episode, one after another, if they are hidden")
    after: int = Field(default=0, ge=0, description="steps before the goals are shown")
    shown: int = Field(default=4, ge=1, description="steps in which the goals are shown")
    spread: float = Field(
        default=0.3, ge=0, lt=1, description="physics: masses and lengths are drawn within 1 - spread and 1 + spread"
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in ENVIRONMENTS:
            raise ValueError(f"no environment {name!r}; use {', '.join(ENVIRONMENTS)}")
        return name

    @model_validator(mode="after")
    def _fits(self) -> EnvironmentConfig:
        if len(set(self.hidden)) < len(self.hidden):
            raise ValueError("hidden has an entry twice; remove one")
        if "goals" in self.hidden and self.name not in WITH_GOALS:
            raise ValueError(f"{self.name} has no goals; use {', '.join(WITH_GOALS)}, or hide something else")
        if (self.after + self.shown) * self.goals > self.steps:
            raise ValueError(f"{self.goals} goals, shown until step {self.after + self.shown}, need more steps")
        return self


class EpisodesConfig(StrictModel):
    """Episodes: policies of several qualities, evolved by CMA-ES in the simulator, and what they do there."""

    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed of evolution and episodes")
    generations: int = Field(default=150, ge=1, le=100_000, description="generations of CMA-ES")
    population: int = Field(default=16, ge=4, le=10_000, description="policies per generation")
    trials: int = Field(default=4, ge=1, le=1000, description="episodes that a policy's fitness is the mean return of")
    hidden_width: int = Field(default=0, ge=0, le=256, description="hidden units of a policy; 0: it is linear")
    sigma: float = Field(default=0.5, gt=0, description="first step size of CMA-ES")
    count: int = Field(default=600, ge=3, le=1_000_000, description="episodes to learn from")
    random: float = Field(default=0.1, ge=0, le=1, description="share of episodes of random actions")
    medium: float = Field(
        default=0.4, ge=0, le=1, description="share of episodes of policies on the way; the rest is of the best one"
    )
    noise: float = Field(default=0.2, ge=0, description="standard deviation of the noise on actions in [-1, 1]")

    @model_validator(mode="after")
    def _is_whole(self) -> EpisodesConfig:
        if self.random + self.medium > 1:
            raise ValueError("random and medium add up to more than 1; lower one of them")
        return self


class DecisionModelConfig(StrictModel):
    """Model: a causal transformer over return, state and action tokens."""

    width: int = Field(default=64, ge=8, multiple_of=8, description="width of the model")
    layers: int = Field(default=3, ge=1, le=100, description="layers")
    heads: int = Field(default=4, ge=1, description="attention heads, as many for keys and values")
    hidden: int = Field(default=256, ge=1, description="width of the feed-forward layers")

    @model_validator(mode="after")
    def _splits(self) -> DecisionModelConfig:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} has no {self.heads} heads of an even size; use other heads")
        return self


class DecisionEvaluationConfig(StrictModel):
    """Evaluation: how the model acts, here and in memx eval-namm --host."""

    target: float = Field(
        default=1.0, gt=0, description="return that the model is asked for: 0 is random policies', 1 the best one's"
    )
    units: int = Field(default=100, ge=1, le=1_000_000, description="episodes")
    at_once: int = Field(default=50, ge=1, le=100_000, description="episodes per batch")
    every: int = Field(default=48, ge=16, multiple_of=16, description="tokens between evictions, 3 a step")


class DecisionConfig(StrictModel):
    """A whole training run of a decision transformer."""

    trains: Literal["decision"] = Field(default="decision", description="kind of model, always decision")
    name: RunName = Field(default="decision", description="first part of the run folder's name")
    about: str = Field(default="", description="one line on what this is")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed of weights and of the order of episodes")
    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    episodes: EpisodesConfig = Field(default_factory=EpisodesConfig)
    model: DecisionModelConfig = Field(default_factory=DecisionModelConfig)
    training: HostTrainingConfig = Field(default_factory=HostTrainingConfig)
    evaluation: DecisionEvaluationConfig = Field(default_factory=DecisionEvaluationConfig)
