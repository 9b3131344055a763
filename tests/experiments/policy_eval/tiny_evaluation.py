"""NAMMs, configs and prompts for evaluations of seconds."""

import torch
from memx.experiments.config.eviction.host import HostConfig
from memx.experiments.config.eviction.policy_eval import EvalConfig, NammSource
from memx.experiments.data.long_context.example import Example
from memx.experiments.eviction.answers import Prompt
from memx.namm.policies.network import Namm

EXAMPLE = Example("made", "context", "question", ("answer",), "log_likelihood")
EVERY, BUDGET = 64, 0.4


def scorer(rule, seed=0):
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(seed))
    return Namm(parameters, variance=torch.full((17,), 0.01), rule=rule, every=EVERY)


def config(**changes):
    source = NammSource(folder="none", sha256="", budget=None)
    given = dict(namms=(source,), host=HostConfig(name="none"), tasks=("quote",), every=EVERY, budgets=(BUDGET,))
    return EvalConfig(**given | changes)


def draw(context, rest=9, answer=3, seed=1):
    ids = torch.randint(3, 96, (context + rest,), generator=torch.Generator().manual_seed(seed))
    return Prompt(EXAMPLE, ids[:context], ids[context:], answer)
