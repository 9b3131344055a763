"""All policies judged on one reading, on tiny hosts: each answers, and holds, as it does alone."""

from dataclasses import replace
from zlib import crc32

import pytest
import torch
from memx import namm
from memx.experiments.config.eviction.policy_eval import BASELINES, NammSource
from memx.experiments.evolution.candidates import CandidateEvaluator
from memx.experiments.policy_eval import measure
from memx.experiments.policy_eval.baselines import baselines
from memx.experiments.policy_eval.cost import evaluation_cost
from memx.experiments.policy_eval.measure import PolicyEvaluator
from memx.experiments.policy_eval.own_size import own_budget
from memx.experiments.policy_eval.token_drops import kept_by_head, mean_run
from memx.namm.policies.base import Rule
from memx.namm.policies.fixed import FixedScores
from memx.namm.policies.heuristics import Full, make_policy
from memx.namm.policies.shares import HeadShares

from ...namm.hosts import make_host
from .tiny_evaluation import BUDGET, EVERY, config, draw, scorer

BUDGETED = NammSource(folder="none", sha256="", budget=BUDGET)


def alone(host, policy, prompt):
    """What a policy attached by itself holds after the context, and how it answers; the next run is far."""
    with namm.attach(host, policy) as attached:
        host(prompt.context[None])
        sizes, tokens = attached.cache.sizes(), kept_by_head(attached.cache)
        logits = host(prompt.rest[None], past_key_values=attached.cache).logits
    wanted, logits = prompt.rest[-prompt.answer :], logits[0, -prompt.answer - 1 : -1].float()
    likelihood = logits.log_softmax(-1).gather(-1, wanted[:, None]).mean()
    return tokens, sizes, float(likelihood), bool((logits.argmax(-1) == wanted).all())


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "mode", "length"),
    [("llama", "post_hoc", 192), ("qwen", "online", 217), ("gemma", "online", 217), ("gpt2", "post_hoc", 192)],
)
def test_each_policy_answers_as_it_does_alone(kind, mode, length):
    """On hosts of several architectures, whatever host a NAMM came from."""
    host, prompt, rule = make_host(kind).double(), draw(length), Rule(grouping="per_head")
    every = length if mode == "post_hoc" else EVERY
    asked = config(mode=mode, every=EVERY)
    evaluator = PolicyEvaluator(host, None, asked, [scorer(rule)])
    measured = evaluator.evaluate(prompt)
    assert [(one.variant, one.at.budget, one.at.size) for one in measured] == [
        ("full", None, "budget"),
        *((name, BUDGET, "budget") for name in ("namm per head", *BASELINES)),
        *([("namm", BUDGET, "budget")] if mode == "post_hoc" else []),
        *((name, None, "own") for name in ("namm", *BASELINES)),
    ]
    mine = replace(scorer(rule), every=every)
    for one in measured:
        name, own = one.variant, one.at.size == "own"
        budget = own_budget(asked, measured[-len(BASELINES) - 1].cache.held, length) if own else BUDGET
        if name == "full":
            policy = Full()
        elif name == "namm" and not own:  # by a threshold that its scores of this very context call for
            layers = len(one.cache.layers)
            assert BUDGET - 2 / layers / length <= one.cache.kept <= BUDGET and one.cache.held == pytest.approx(
                one.cache.kept
            )
            continue
        elif name == "namm":
            policy = mine
        elif name == "namm per head":
            policy = replace(mine, rule=Rule(budget=BUDGET))
        else:
            policy = make_policy(
                name, budget=budget, every=every, seed=crc32(prompt.context.numpy().tobytes(), asked.seed)
            )
        tokens, sizes, likelihood, exact = alone(host, policy, prompt)
        assert one.exact == exact and one.log_likelihood == pytest.approx(likelihood, abs=1e-4), (name, own)
        windowed = kind == "gemma"  # alone, what is out of a window's sight may go a little sooner
        if not windowed:
            assert one.cache.kept == pytest.approx(float(tokens.double().mean()))
            assert one.cache.layers == pytest.approx([float(layer.double().mean()) for layer in tokens], abs=1e-5)
            assert one.cache.kv_bytes == sum(size.kv_bytes for size in sizes), name
            assert one.cache.bookkeeping_bytes == sum(size.bookkeeping_bytes for size in sizes), name


@torch.no_grad()
@pytest.mark.parametrize("mode", ["post_hoc", "online"])
def test_each_allocation_answers_as_it_does_alone(mode, monkeypatch):
    """KVzip among them, where policies choose once."""
    allocations, length = ("equal", "global", "table", "layer_max"), 144
    host, prompt = make_host().double(), draw(length)
    table = torch.rand(2, 2, length, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(measure, "kvzip_scores", lambda model, tokenizer, ids, **more: table)
    shares = HeadShares((BUDGET,), (((0.9, 0.2), (0.1, 0.4)),))
    names = ("knorm", "kvzip") if mode == "post_hoc" else ("knorm",)
    asked = config(mode=mode, policies=names, allocations=allocations, protect_first=3, namms=[BUDGETED])
    evaluator = PolicyEvaluator(host, object(), asked, [scorer(Rule(budget=BUDGET))], shares=shares)
    measured = evaluator.evaluate(prompt)[1:]
    endings = ["" if one == "equal" else f" {one}" for one in allocations]
    assert [one.variant for one in measured] == [name + ending for ending in endings for name in ("namm", *names)]
    every = length if mode == "post_hoc" else EVERY
    for one, allocation in zip(measured, [one for one in allocations for _ in ("namm", *names)], strict=True):
        rule = Rule(budget=BUDGET, allocation=allocation, shares=shares, first=3)
        policy = {
            "namm": lambda rule=rule: replace(scorer(rule), every=every),
            "knorm": lambda rule=rule: make_policy("knorm", budget=BUDGET, every=every, rule=rule),
            "kvzip": lambda rule=rule: FixedScores(table, BUDGET, every, rule=rule),
        }[one.variant.split()[0]]()
        tokens, sizes, likelihood, _ = alone(host, policy, prompt)
        assert one.log_likelihood == pytest.approx(likelihood, abs=1e-4), one.variant
        assert one.cache.kept == pytest.approx(float(tokens.double().mean())) and tokens[..., :3].all()
        assert one.cache.kv_bytes == sum(size.kv_bytes for size in sizes), one.variant


@torch.no_grad()
@pytest.mark.parametrize(("said", "first"), [(None, 5), (0, 0), (2, 2)])
def test_tokens_that_a_namm_protects_are_kept_unless_the_evaluation_says_otherwise(said, first):
    asked = config(protect_first=said, policies=("knorm",), namms=[BUDGETED])
    made = [one.make(BUDGET, "equal") for one in baselines(asked, [scorer(Rule(budget=BUDGET, first=5))], 0)]
    assert [one.rule.first for one in made] == [first, said or 0]
    own = baselines(asked, [scorer(Rule(budget=BUDGET, first=5))], 0)[0].make(None, "equal")
    assert own.rule.first == first


@torch.no_grad()
def test_each_policy_has_its_own_allocations(tmp_path):
    """As many answers as the dry run tells."""
    own = {"namm": ("global",), "tova": ("table", "equal")}
    names = ("knorm", "tova")
    asked = config(policies=names, allocations=("equal",), allocations_of=own, namms=[BUDGETED], every=EVERY)
    shares = HeadShares((BUDGET,), (((0.9, 0.2), (0.1, 0.4)),))
    evaluator = PolicyEvaluator(make_host(), None, asked, [scorer(Rule(budget=BUDGET))], shares=shares)
    measured = [one.variant for one in evaluator.evaluate(draw(144))]
    assert measured == ["full", "knorm", "tova", "namm global", "tova table"]
    assert evaluation_cost(asked, tmp_path).answers == len(measured) * asked.prompts


@torch.no_grad()
def test_one_namm_of_several_has_allocations_that_the_others_have_not(tmp_path):
    named = [BUDGETED.model_copy(update={"label": label}) for label in ("namm a", "namm b")]
    own = {"namm": ("global",), "namm b": ("global", "table")}
    asked = config(policies=("knorm",), allocations=("equal",), allocations_of=own, namms=named, every=EVERY)
    namms = [scorer(Rule(budget=BUDGET)), scorer(Rule(budget=BUDGET))]
    shares = HeadShares((BUDGET,), (((0.9, 0.2), (0.1, 0.4)),))
    measured = [
        one.variant for one in PolicyEvaluator(make_host(), None, asked, namms, shares=shares).evaluate(draw(144))
    ]
    assert measured == ["full", "knorm", "namm a global", "namm b global", "namm b table"]
    assert evaluation_cost(asked, tmp_path).answers == len(measured) * asked.prompts


@torch.no_grad()
@pytest.mark.parametrize("mode", ["post_hoc", "online"])
def test_a_namm_keeps_the_first_and_newest_tokens_of_its_own_rule_and_others_do_not(mode):
    host, prompt = make_host().double(), draw(144)
    asked = config(mode=mode, every=EVERY, policies=("knorm", "recency"), namms=[BUDGETED])
    namm, *others = PolicyEvaluator(host, None, asked, [scorer(Rule(budget=BUDGET, first=4))]).evaluate(prompt)[1:]
    plain = PolicyEvaluator(host, None, asked, [scorer(Rule(budget=BUDGET))]).evaluate(prompt)[1:]
    assert (namm.variant, [one.variant for one in others]) == ("namm", ["knorm", "recency"])
    assert namm.cache.kept == plain[0].cache.kept and namm.log_likelihood != plain[0].log_likelihood
    assert [one.log_likelihood for one in others] == pytest.approx([one.log_likelihood for one in plain[1:]], abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["post_hoc", "online"])
def test_batches_of_any_size_find_the_same(mode):
    host, prompt = make_host().double(), draw(171)
    few, many = (
        PolicyEvaluator(host, None, config(mode=mode, at_once=size), [scorer(Rule())]).evaluate(prompt)
        for size in (3, 99)
    )
    for one, other in zip(few, many, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-6)
        assert one == replace(other, log_likelihood=one.log_likelihood)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["qwen", "gpt2", "mistral"])
def test_a_namm_keeps_on_another_host_what_it_keeps_attached_to_it(kind, tmp_path):
    namm.save(scorer(Rule(budget=BUDGET)), tmp_path / "namm", host="a llama")
    host, prompt, mine = make_host(kind, num_hidden_layers=3).double(), draw(192), namm.load(tmp_path / "namm")
    evaluator = PolicyEvaluator(host, None, config(policies=()), [mine])
    cache = evaluator.chosen(prompt.context, evaluator.read(prompt.context), (replace(mine, every=192),))
    with namm.attach(host, replace(mine, every=192)) as attached:
        host(prompt.context[None])
    kept = kept_by_head(cache)
    assert len(kept) == len(host.get_decoder().layers if kind != "gpt2" else host.get_decoder().h)
    assert torch.equal(kept, kept_by_head(attached.cache))


@torch.no_grad()
@pytest.mark.parametrize(("mode", "length"), [("post_hoc", 171), ("online", 171), ("online", 50)])
def test_rivals_keep_as_many_as_a_threshold_did(mode, length):
    evaluator = PolicyEvaluator(make_host(), None, config(mode=mode, budgets=()), [scorer(Rule(grouping="per_head"))])
    full, own, *rivals = evaluator.evaluate(draw(length))
    assert own.variant == "namm" and (0 < own.cache.kept < 1 or length < EVERY) and full.cache.kept == 1
    assert {one.at.beside for one in rivals} == {"namm"} and len(rivals) == len(BASELINES)
    for one in rivals:
        assert abs(one.cache.held - own.cache.held) * length <= 0.5 + 1e-9 and one.cache.kept == pytest.approx(
            one.cache.held
        )


@torch.no_grad()
def test_one_threshold_for_all_heads_gives_as_many_too():
    asked = config(budgets=(), policies=("knorm",), allocations=("equal", "global"))
    evaluator = PolicyEvaluator(make_host(), None, asked, [scorer(Rule(grouping="layer_max"))])
    _, _, equal, together = evaluator.evaluate(draw(171))
    assert together.variant == "knorm global" and together.cache.held == pytest.approx(equal.cache.held, abs=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["post_hoc", "online"])
def test_a_namm_is_judged_as_its_evolution_judged_it(mode):
    host, prompt, mine = make_host().double(), draw(171), scorer(Rule(budget=BUDGET))
    judged = CandidateEvaluator(host, mine, mode=mode).evaluate(prompt, mine.parameters[None])
    found = PolicyEvaluator(host, None, config(mode=mode), [mine]).evaluate(prompt)[1]
    assert found.variant == "namm" and found.cache.kept == pytest.approx(float(judged.kept[0]))
    assert found.log_likelihood == pytest.approx(float(judged.log_likelihood[0]), abs=1e-5)


def test_runs_of_dropped_tokens():
    dropped = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    assert mean_run(dropped) == (2 + 1 + 6) / 3 and mean_run(dropped[1:2]) == 0
