"""The caches of large hosts, counted without their weights."""

import pytest
from memx.experiments.config.eviction.host import HostConfig
from memx.experiments.eviction.base_model import describe_base_model
from memx.experiments.planning.estimate_caches import cache_cost
from memx.experiments.policy_eval.cost import evaluated
from memx.namm.policies.base import Rule

from .tiny_evaluation import BUDGET, config, scorer

# layers, key-value heads, parameters: Llama 3 (arXiv 2407.21783), Table 3
PUBLISHED = {"8b": (32, 8, 8.03e9), "70b": (80, 8, 70.55e9)}


@pytest.mark.parametrize("shape", PUBLISHED)
def test_the_caches_of_llama_3_are_counted_by_policy_and_budget(shape):
    layers, heads, parameters = PUBLISHED[shape]
    host = HostConfig(name="none", shape=shape, dtype="bfloat16")
    asked = config(host=host, length=8192, policies=("knorm", "h2o"), allocations=("equal", "global"), budgets=(0.25,))
    policies = evaluated(asked, [scorer(Rule(budget=BUDGET))])
    cost = cache_cost(describe_base_model(host), host.dtype, asked.length, policies)
    assert cost.parameters == pytest.approx(parameters, rel=1e-3) and cost.weight_bytes == 2 * cost.parameters
    assert cost.token_bytes == layers * heads * 2 * 128 * 2
    assert cost.full.kv_bytes == 8192 * cost.token_bytes and cost.full.tokens == 8192
    found = {one.policy: one for one in cost.policies if one.budget == 0.25}
    assert set(found) == {"namm", "namm global", "knorm", "knorm global", "h2o", "h2o global"}
    for one in found.values():
        assert one.kv_bytes == cost.full.kv_bytes // 4 and one.decode_bytes == cost.weight_bytes + one.kv_bytes
    pairs = layers * heads * 2048
    assert found["knorm"].policy_bytes == 4 * pairs  # their positions
    assert found["h2o"].policy_bytes == 8 * pairs  # and accumulated attention
    assert found["knorm"].decode_flops < cost.full.decode_flops < cost.prefill_flops
    assert found["knorm"].decode_seconds < cost.full.decode_seconds
    assert cost.gpus == -(-(cost.weight_bytes + cost.full.kv_bytes) // 80_000_000_000)
