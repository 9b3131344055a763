"""A host whose heads two processes share out: the same logits and the same kept tokens as in one process."""

import warnings
from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.namm.cache.head_shards import HeadShards
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full, make_policy
from memx.namm.policies.network import Namm
from memx.namm.policies.panel import PolicyBatch, PolicySlots

from ..ranks import run_worlds
from .hosts import left_padded, make_host, prompts
from .rules import BUDGET, EVERY, RULES, TABLE


def policies():
    """Each allocation, thresholds under which heads of a layer depend on each other, and numbers for each head."""
    found = [replace(make_policy("random", budget=BUDGET, every=EVERY, seed=3), rule=rule) for rule in RULES.values()]
    found += [replace(make_policy("h2o", budget=BUDGET, every=EVERY), rule=RULES["global"])]
    numbers = 0.3 * torch.randn(4172 + TABLE.count, generator=torch.Generator().manual_seed(3))
    rule = Rule(threshold=0, grouping="layer_max")
    return [*found, Namm(numbers, rule=rule, every=EVERY, table=TABLE, variance=torch.full((17,), 0.01))]


def split_by_transformers(folder):
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the plan has another argument in newer versions
        return AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto", dtype=torch.float64)


def split_by_torch(folder):
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model, styles = whole(folder), {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}
    plan = {name: styles[style]() for name, style in model.config.base_model_tp_plan.items()}
    parallelize_module(model.model, torch.distributed.init_device_mesh("cpu", (2,)), plan)
    return model


def whole(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)


def read(model, policy):
    """Logits of a padded batch and of a token after it, and what it and a choice after reading leave."""
    ids, mask = left_padded(prompts(20, 36))
    with namm.attach(model, policy) as attached:
        first = model(ids, attention_mask=mask)
        logits = [first.logits[mask.bool()], model(ids[:, :1], past_key_values=first.past_key_values).logits]
        kept = [held(attached.cache)]
    slots = PolicySlots((policy,))
    with namm.attach(model, slots) as attached:
        model(prompts(20)[0][None])
        kept.append(held(attached.cache.fork(PolicyBatch(slots, (policy,)), continue_with=Full())))
    return logits, kept


def held(cache):
    """[layer][head][sequence]: the tokens."""
    each = [[one.state.held(sequence) for sequence in range(len(cache.seen))] for one in cache.layers]
    return [[[kept.tolist() for kept in heads] for heads in zip(*layer, strict=True)] for layer in each]


def compare(folder, way):
    """In a rank: what each policy gives on its part of the heads, and on a whole host."""
    torch.distributed.init_process_group("gloo")
    rank, found = torch.distributed.get_rank(), []
    split, one = way(folder), whole(folder)
    with torch.no_grad():
        for policy in policies():
            (wanted, all_kept), (logits, kept) = read(one, policy), read(split, policy)
            errors = [float((a - b).abs().max()) for a, b in zip(wanted, logits, strict=True)]
            same = [[layer[rank : rank + 1] for layer in cache] for cache in all_kept] == kept
            found.append((policy.name, policy.rule, max(errors), same))
    with pytest.raises(MemxError, match="1 of 3 key-value heads, which 2 processes do not share evenly"):
        HeadShards(None, 3).split(1)
    assert not HeadShards(None, 2).split(2)
    torch.distributed.destroy_process_group()
    return found


@pytest.mark.parametrize("way", [split_by_transformers, pytest.param(split_by_torch, marks=pytest.mark.slow)])
def test_two_processes_give_what_one_does(way, tmp_path):
    make_host().double().save_pretrained(tmp_path)
    for ranks in run_worlds(compare, [2], {"folder": str(tmp_path), "way": way}, seconds=300).values():
        for name, rule, error, same in [one for rank in ranks for one in rank]:
            assert error < 1e-9 and same, (name, rule, error, same)
