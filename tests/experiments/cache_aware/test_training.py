"""Cache-aware finetuning: the loss under masks against the real evicting cache, where gradients go, runs and errors."""

import pytest
import torch
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.cache_aware.build import build_trainer
from memx.experiments.cache_aware.data import PromptBatches, TrainingPrompt
from memx.experiments.cache_aware.forward import answer_logits, budget_policies, kept_by_each
from memx.experiments.cache_aware.loss import EvictionLoss, teacher_of
from memx.experiments.config.base import run_name
from memx.experiments.config.eviction.training import TrainEvictionConfig
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.eviction.answers import answer, branched, read
from memx.experiments.eviction.tasks import Draws, task_prompts
from memx.experiments.models.generation import forward
from memx.experiments.runtime.events import Step
from memx.experiments.runtime.options import Options
from memx.experiments.training.sweep import train_points
from memx.namm.cache.masked import MaskedCache, masked
from memx.namm.policies.heuristics import Full
from memx.namm.policies.panel import PolicyBatch, PolicySlots, keep_all
from memx.results.store.runs import RunStore
from memx.transformers_compat import input_device
from torch.nn import functional as F

from tests.exact import float64

from ..evolution.tiny_evolution import write_host

BUDGETS = (1.0, 0.5, 0.2)
EVICTORS = [{"namm": "universal"}, {"policy": "keydiff"}, {"policy": "streamingllm"}]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def model(host):
    found, tokenizer = load_host(str(host), dtype=torch.float64)
    return found, task_prompts("key_values", tokenizer, Draws("train", 2, 150, 0))


def section(**changes):
    return TrainEvictionConfig(**{"namm": "universal", "budgets": BUDGETS, **changes})


def settings(host, **changes):
    given = {
        "finetune.source": str(host),
        "finetune.train": "all",
        "memory.slots": 0,
        "eviction.namm": "universal",
        "eviction.budgets": [1.0, 0.3],
        "eviction.tasks": ["key_values", "prose_next"],
        "eviction.length": 190,
        "eviction.prompts": 2,
        "eviction.validation": 1,
        "training.steps": 4,
        "training.batch": 1,
        "training.threads": 1,
        "training.log_every": 1,
        "training.checkpoint_every": 2,
        "training.lr": 0.001,
        "text.source": None,
        "evaluation.every": None,
    }
    return load_config("tiny", [*(given | {key.replace("__", "."): value for key, value in changes.items()}).items()])


def train(config, runs, report=lambda index, event: None, **options):
    (point,) = plan(config)
    train_points([point], Options(runs, **options), report, build_trainer)
    return RunStore(runs).run(point.name)


@pytest.mark.parametrize("evictor", EVICTORS, ids=str)
def test_the_loss_is_that_of_the_real_evicting_cache(model, evictor):
    """Keys and values are really removed and packed there, and the answer read by `memx eval-namm`'s own code."""
    host, prompts = model
    config = section(**{"namm": None, **evictor}, objective="answers")
    policies = budget_policies(config, "host", 0)
    slots = PolicySlots(tuple(policy for policy in policies if not isinstance(policy, Full)))
    for number, prompt in enumerate(prompts):
        with torch.no_grad():
            shared, real = read(host, prompt.context, slots, length=len(prompt.context)), []
            for policy in policies:
                cache = branched(shared, PolicyBatch(slots, (policy,)), keep_all(slots), 1, online=False)
                held = sum(sum(heads) for layer in cache.layers for heads in layer.state.counts)
                real.append((held, float(answer(host, prompt, cache).log_likelihood[0])))
        assert real[0][0] > real[1][0] > real[2][0]  # tokens did leave
        loss = float(EvictionLoss(config, policies)(host, TrainingPrompt(number, prompt)).detach())
        assert loss == pytest.approx(-sum(likelihood for _, likelihood in real) / len(real), rel=1e-5)  # of float32


def test_the_full_cache_alone_is_plain_training(model):
    host, (prompt, _) = model
    config = section(budgets=(1.0,), objective="answers")
    EvictionLoss(config, budget_policies(config, "host", 0))(host, TrainingPrompt(0, prompt)).backward()
    found = {name: weight.grad.clone() for name, weight in host.named_parameters()}
    host.zero_grad()
    ids = torch.cat([prompt.context, prompt.rest])[None]
    logits = host(input_ids=ids[:, :-1], use_cache=False).logits[0, -prompt.answer :]
    F.cross_entropy(logits, prompt.rest[-prompt.answer :]).backward()
    for name, weight in host.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-6, atol=1e-9)
    host.zero_grad()


def test_evicted_tokens_get_no_gradient_and_the_choice_is_none(model):
    """By the embeddings of the last layer's keys: the answer depends on kept ones, and on evicted ones not at all."""
    host, (prompt, _) = model
    policies = budget_policies(section(budgets=(0.2,)), "host", 0)
    slots = PolicySlots(tuple(policies))
    shared = read(host, prompt.context, slots, length=len(prompt.context))
    masks = kept_by_each(shared, slots, policies)
    assert all(not mask.requires_grad and mask.dtype == torch.bool for mask in masks)
    for layer in shared.layers:
        layer.state.keys.retain_grad()
        layer.state.values.retain_grad()
    cache = MaskedCache(shared, masks)
    with masked(host, cache):
        logits = forward(host, prompt.rest[None, :-1].to(input_device(host)), cache, len(prompt.context), 1).logits
    logits.square().sum().backward()
    for layer, mask in zip(shared.layers, masks, strict=True):
        evicted = ~mask  # [1, H, N]
        assert evicted.any()
        if layer is shared.layers[-1]:  # what earlier layers evict has fed what later layers keep
            assert (layer.state.values.grad[evicted] == 0).all() and (layer.state.keys.grad[evicted] == 0).all()
        assert (layer.state.values.grad[mask] != 0).any()
    host.zero_grad()


def test_the_gradient_is_that_of_differences(model):
    """No token is so near the border of what is kept that the small change moves it."""
    host, (prompt, _) = model
    config = section(namm=None, policy="keydiff", objective="answers")
    policies = budget_policies(config, "host", 0)
    weight = host.model.layers[0].self_attn.k_proj.weight
    with float64():
        EvictionLoss(config, policies)(host, TrainingPrompt(0, prompt)).backward()
    gradient = weight.grad.clone()
    host.zero_grad()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    with torch.no_grad(), float64():
        for step in (1e-6, -1e-6):
            weight.add_(direction, alpha=step)
            logits = answer_logits(host, prompt, policies)
            gold = prompt.rest[-prompt.answer :].expand(len(logits), -1)
            found.append(F.cross_entropy(logits.flatten(0, 1), gold.flatten()))
            weight.sub_(direction, alpha=step)
    assert float((found[0] - found[1]) / 2e-6) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_without_the_context_keys_and_values_of_the_context_are_constants(model):
    """The gradients of the weights then come from the question and the answer alone; the loss is the same."""
    host, (prompt, _) = model
    losses, norms = [], []
    for through in (True, False):
        config = section(objective="answers", through_context=through)
        loss = EvictionLoss(config, budget_policies(config, "host", 0))(host, TrainingPrompt(0, prompt))
        loss.backward()
        losses.append(float(loss.detach()))
        embedding = host.get_input_embeddings().weight.grad
        only_in_context = sorted(set(prompt.context.tolist()) - set(prompt.rest.tolist()))
        norms.append(float(embedding[only_in_context].norm()))
        host.zero_grad()
    assert losses[0] == losses[1]
    assert norms[0] > norms[1]


def test_distillation_is_the_divergence_from_the_full_cache_of_the_start(model):
    host, (prompt, _) = model
    config = section()
    policies, teacher = budget_policies(config, "host", 0), teacher_of(host, [prompt])
    loss = EvictionLoss(config, policies, teacher)(host, TrainingPrompt(0, prompt)).detach()
    with torch.no_grad():
        logs = answer_logits(host, prompt, policies).log_softmax(-1)
    expected = [(logs[0].exp() * (logs[0] - one)).sum(-1).mean() for one in logs]
    assert float(expected[0]) == 0 and all(float(one) > 1e-6 for one in expected[1:])
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_a_stopped_run_ends_as_a_straight_one(host, tmp_path):
    config = settings(host)
    straight = train(config, tmp_path / "straight")

    class Stop(Exception):
        pass

    def stop(index, event):
        if isinstance(event, Step) and event.step == 3:
            raise Stop

    with pytest.raises(Stop):
        train(config, tmp_path / "stopped", stop)
    resumed = train(config, tmp_path / "stopped", resume=True)
    files = [run.folder / "checkpoint" / "model.safetensors" for run in (straight, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    rows = {(row.metric, row.budget): row.value for row in straight.rows() if row.dataset == "cache"}
    assert {budget for _, budget in rows} == {1.0, 0.3}
    assert {metric for metric, _ in rows} == {"log_likelihood", "log_likelihood_before"}
    assert rows == {(row.metric, row.budget): row.value for row in resumed.rows() if row.dataset == "cache"}
    losses = [line["loss"] for line in straight.metrics() if "loss" in line]
    assert losses == [line["loss"] for line in resumed.metrics() if "loss" in line] and len(losses) == 4


def test_the_stream_of_prompts_goes_on_from_any_position():
    stream = PromptBatches(list("abcdefg"), batch=3, seed=1)
    seen, positions = [], []
    for _ in range(6):
        positions.append(stream.position)
        seen.append([one.prompt for one in next(stream)])
    assert sorted([*seen[0], *seen[1], seen[2][0]]) == list("abcdefg")
    for position, batch in zip(positions, seen, strict=True):
        stream.seek(position)
        assert [one.prompt for one in next(stream)] == batch
    with pytest.raises(ValueError):
        stream.seek({"epoch": 0, "cursor": 9})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune__source": None}, "pretrained"),
        ({"finetune__train": "slots", "text__source": "python-docs", "memory__slots": 1024}, "slots"),
        ({"training__accumulate": 2, "training__batch": 2}, "micro-batch"),
        ({"corpus__sources": ["python-docs"]}, "prompts of its own"),
        ({"eviction__policy": "snapkv"}, "exclude"),
        ({"eviction__validation": 0}, "nothing to measure"),
        ({"eviction__budgets": [2.0]}, "share"),
        ({"eviction__budgets": [0.5, 0.5]}, "twice"),
        ({"eviction__tasks": ["passkey"]}, "unknown training task"),
    ],
)
def test_what_does_not_go_together_is_refused(host, changes, said):
    with pytest.raises(MemxError, match=said):
        settings(host, **changes)


@pytest.mark.parametrize(
    "changes", [{"eviction__namm": None, "eviction__policy": "no-such"}, {"eviction__length": 64}], ids=str
)
def test_what_cannot_be_trained_ends_before_training(host, tmp_path, changes):
    with pytest.raises(MemxError):
        train(settings(host, **changes), tmp_path)


def test_older_runs_keep_their_names():
    assert run_name(load_config("tiny")) == run_name(load_config("tiny", [("eviction.length", 256)]))
    assert run_name(load_config("retrofit")) != run_name(load_config("retrofit", [("eviction.namm", "universal")]))


def test_the_command_prints_what_was_learned_and_the_next_command(host, tmp_path, capsys):
    changes = ["finetune.train=all", "eviction.tasks=[key_values]", "eviction.length=150", "eviction.prompts=1"]
    changes += ["eviction.validation=1", "training.steps=1", "training.batch=1", "text.source=null"]
    options = [part for change in changes for part in ("--set", change)]
    runs = ["--runs", str(tmp_path)]
    assert memx(["train", "cache-aware", "--init-from", str(host), *options, *runs, "--dry-run"]) == 0
    assert not list(tmp_path.iterdir())
    assert memx(["train", "cache-aware", "--init-from", str(host), *options, *runs]) == 0
    said = capsys.readouterr()
    assert "answers, 12.5%" in said.out and "→" in said.out
    (folder,) = tmp_path.iterdir()
    assert f"memx eval-namm NAMM --model {folder / 'checkpoint'}" in said.err + said.out
    assert load_host(str(folder / "checkpoint"))[0].config.num_hidden_layers == 2
