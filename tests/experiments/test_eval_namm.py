"""Evaluation of NAMMs on tiny hosts: each policy as it is alone, rows by hand, the same rows whatever stops a run."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.experiments.answering import Prompt
from memx.experiments.data.long_context.example import Example
from memx.experiments.data.long_context.families import HELD_OUT
from memx.experiments.eval_config import HELD_OUT_TASKS, RIVALS, EvalConfig, NammSource
from memx.experiments.eval_judge import EvalJudge
from memx.experiments.eval_kinds import kept_by_head, mean_run
from memx.experiments.eval_report import EvalReport
from memx.experiments.eval_run import RESULTS, eval_namm
from memx.experiments.eval_sources import eval_tree
from memx.experiments.evolve_config import HostConfig
from memx.experiments.settings import load_eval_config, load_evolution_config, run_name, to_yaml
from memx.experiments.stop import Interrupted
from memx.experiments.sweep import Options
from memx.namm.network import Namm
from memx.namm.policies import POLICIES, Full, make_policy
from memx.namm.policy import Rule
from memx.results.store import RunStore

from ..namm.hosts import make_host
from .evolving import settings, write_host

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
    judge = EvalJudge(host, None, asked, [scorer(rule)])
    facts = judge.judge(prompt)
    assert [(one["variant"], one["budget"], one["size"]) for one in facts] == [
        ("full", None, "budget"),
        *((name, BUDGET, "budget") for name in ("namm", *RIVALS)),
        *((name, None, "own") for name in ("namm", *RIVALS)),
    ]
    mine = replace(scorer(rule), every=every)
    for one in facts:
        name, own = one["variant"], one["size"] == "own"
        budget = judge.own_budget(facts[1 + len(RIVALS) + 1]["kept"], length) if own else BUDGET
        if name == "full":
            policy = Full()
        elif name == "namm":
            policy = mine if own else replace(mine, rule=Rule(budget=BUDGET))
        else:
            policy = make_policy(name, budget=budget, every=every)
        tokens, sizes, likelihood, exact = alone(host, policy, prompt)
        assert one["exact"] == exact and one["log_likelihood"] == pytest.approx(likelihood, abs=1e-4), (name, own)
        windowed = kind == "gemma"  # alone, what is out of a window's sight may go a little sooner
        if not windowed:
            assert one["kept"] == pytest.approx(float(tokens.double().mean()))
            assert one["layers"] == pytest.approx([float(layer.double().mean()) for layer in tokens], abs=1e-5)
            assert one["kv_bytes"] == sum(size.kv_bytes for size in sizes), name
            assert one["bookkeeping_bytes"] == sum(size.bookkeeping_bytes for size in sizes), name


@torch.no_grad()
@pytest.mark.parametrize("kind", ["qwen", "gpt2", "mistral"])
def test_a_namm_keeps_on_another_host_what_it_keeps_attached_to_it(kind, tmp_path):
    namm.save(scorer(Rule(budget=BUDGET)), tmp_path / "namm", host="a llama")
    host, prompt, mine = make_host(kind, num_hidden_layers=3).double(), draw(192), namm.load(tmp_path / "namm")
    judge = EvalJudge(host, None, config(policies=()), [mine])
    cache = judge.chosen(prompt.context, judge.read(prompt.context), (replace(mine, every=192),))
    with namm.attach(host, replace(mine, every=192)) as attached:
        host(prompt.context[None])
    kept = kept_by_head(cache)
    assert len(kept) == len(host.get_decoder().layers if kind != "gpt2" else host.get_decoder().h)
    assert torch.equal(kept, kept_by_head(attached.cache))


@torch.no_grad()
@pytest.mark.parametrize(("mode", "length"), [("post_hoc", 171), ("online", 171), ("online", 50)])
def test_rivals_keep_as_many_as_a_threshold_did(mode, length):
    judge = EvalJudge(make_host(), None, config(mode=mode, budgets=()), [scorer(Rule(grouping="per_head"))])
    full, own, *rivals = judge.judge(draw(length))
    assert own["variant"] == "namm" and (0 < own["kept"] < 1 or length < EVERY) and full["kept"] == 1
    assert {one["beside"] for one in rivals} == {"namm"} and len(rivals) == len(RIVALS)
    for one in rivals:
        assert abs(one["kept"] - own["kept"]) * length <= 0.5 + 1e-9


def test_names_that_are_free_of_torch_are_those_there_are():
    assert HELD_OUT_TASKS == HELD_OUT and ("full", *RIVALS) == tuple(POLICIES)


# -- rows


def lines(rival=0.0):
    """Two prompts each of a trained and of two held-out families; full is exact on all but one family."""
    made = []
    for family, (task, full) in enumerate([("quote", True), ("passkey", True), ("count", False)]):
        for number in range(2):
            likelihood = -1.0 - family

            def facts(variant, lost, exact, kept, likelihood=likelihood, **labels):
                own = {"variant": variant, "budget": 0.5, "size": "budget", **labels}
                own |= {"log_likelihood": likelihood - lost, "exact": exact, "kept": kept, "layers": [kept, kept]}
                return own | {"kv_bytes": 100, "bookkeeping_bytes": 10}

            made.append({"task": task, "number": number, "tokens": 200, "facts": [
                facts("full", 0.0, full, 1.0, budget=None),
                facts("namm", 0.5, full and number == 0, 0.5),
                facts("tova", 1.0 - rival, number == 1, 0.5),
                facts("kvpress TOVAPress", 0.25, True, 0.5),
            ]})  # fmt: skip
    return made


def rows_of(made, **changes):
    asked = config(
        tasks=("quote", "passkey", "count"), trained=("quote",), budgets=(0.5,), policies=("tova",), **changes
    )
    report = EvalReport(asked, made, run="eval-1", about={"model": "host", "device": "cpu"})
    return {(row.variant, row.dataset, row.metric, (row.model_extra or {}).get("rival")): row for row in report.rows()}


def test_rows_by_hand():
    found = rows_of(lines())
    value = {key: row.value for key, row in found.items()}
    assert value["full", "all/all", "log_likelihood", None] == -2
    assert value["namm", "all/all", "lost_nats", None] == 0.5
    assert value["namm", "held-out/all", "relative_log_likelihood", None] == pytest.approx(np.exp(-0.5))
    assert value["namm", "trained/quote", "exact", None] == 50 and found["namm", "trained/all", "exact", None].n == 2
    assert value["namm", "held-out/all", "exact", None] == 25 and value[
        "full", "all/all", "exact", None
    ] == pytest.approx(200 / 3)
    relative = found["namm", "held-out/all", "relative_exact", None]  # of passkey alone: the full cache has no count
    assert relative.value == 0.5 and relative.n == 2 and ("namm", "held-out/count", "relative_exact", None) not in found
    assert value["namm", "all/all", "log_likelihood_minus_full", None] == -0.5
    assert value["namm", "trained/all", "exact_minus_full", None] == -50
    assert value["namm", "all/all", "log_likelihood_over", "tova"] == 0.5
    assert value["namm", "all/all", "log_likelihood_over", "kvpress TOVAPress"] == -0.25
    assert value["namm", "all/all", "log_likelihood_over_best_rival", "tova"] == 0.5  # of memx's own
    assert value["namm", "held-out/count", "exact_over_best_rival", "tova"] == -50
    assert value["namm", "all/all", "kept", None] == 50 and value["namm", "all/all", "kv_bytes", None] == 100
    assert ("namm", "trained/quote", "kv_bytes", None) not in found
    one = found["kvpress TOVAPress", "all/all", "exact", None]
    assert (one.model_extra["package"], one.model_extra["budget"], one.model_extra["mode"]) == (
        "kvpress",
        0.5,
        "post_hoc",
    )
    assert one.n == 6 and one.kind == "eviction" and one.model == "host"


def test_rows_do_not_depend_on_the_order_of_prompts():
    assert rows_of(lines()) == rows_of(lines()[::-1])


def test_scores_are_of_the_families_that_have_one():
    made = lines()
    for line in made:
        for facts in line["facts"]:
            if line["task"] != "count":
                facts["score"] = 1.0 if facts["variant"] == "full" else 0.25
    found = rows_of(made, write=True)
    assert found["namm", "all/all", "score", None].value == 25 and found["namm", "all/all", "score", None].n == 4
    assert found["namm", "held-out/all", "relative_score", None].value == 0.25
    assert ("namm", "held-out/count", "score", None) not in found


def test_runs_of_dropped_tokens():
    dropped = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    assert mean_run(dropped) == (2 + 1 + 6) / 3 and mean_run(dropped[1:2]) == 0


# -- whole runs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A host and a NAMM with a threshold, on disk."""
    folder = tmp_path_factory.mktemp("place")
    namm.save(scorer(Rule()), folder / "mine", host="another", tasks=["key_values"])
    return write_host(folder / "host"), folder / "mine"


def asked(place, **changes):
    host, saved = place
    given = {"host.name": str(host), "host.threads": 1, "tasks": ["key_values", "passkey", "code_next"]}
    given |= {"length": 200, "prompts": 2, "budgets": [0.4], "policies": ["random", "h2o"], "resamples": 100}
    given |= {"documents": 1, **{key.replace("__", "."): value for key, value in changes.items()}}
    return load_eval_config(eval_tree([saved], given), [*given.items()])


@pytest.fixture(scope="module")
def straight(place, tmp_path_factory):
    """A run that nothing stopped: (config, run, rows)."""
    root = tmp_path_factory.mktemp("runs")
    resolved = asked(place, write=True)
    rows = eval_namm(resolved, Options(root), quiet)
    return resolved, RunStore(root).run(run_name(resolved)), rows


def quiet(event):
    pass


def judged(run):
    return [json.loads(line) for line in (run.folder / RESULTS).read_text().splitlines()]


def test_a_run_writes_all_that_it_found(straight, place):
    resolved, run, rows = straight
    assert run.status == "finished" and run.rows() == rows
    assert load_eval_config(str(run.folder / "config.yaml")) == resolved
    written = judged(run)
    assert [line["task"] for line in written[:3]] == ["key_values", "passkey", "code_next"]  # taking turns
    found = {
        (row.variant, row.dataset, row.metric, row.model_extra["budget"], row.model_extra["size"]): row for row in rows
    }
    assert {row.dataset for row in rows} == {
        "trained/key_values", "trained/all", "held-out/passkey", "held-out/code_next", "held-out/all", "all/all",
        "kinds/code", "kinds/prose",
    }  # fmt: skip
    one = found["namm", "held-out/all", "log_likelihood", None, "own"]
    assert one.model_extra["evolved_on"] == "another" and one.n == 4 and one.model == str(place[0])
    by_hand = [
        np.mean([facts["log_likelihood"] for line in written if line.get("task") == task for facts in line["facts"]
                 if facts["variant"] == "namm" and facts["size"] == "own"])
        for task in ("passkey", "code_next")
    ]  # fmt: skip
    assert one.value == pytest.approx(np.mean(by_hand))
    assert found["random", "all/all", "kept", 0.4, "budget"].value == pytest.approx(40, abs=0.5)
    assert found["random", "all/all", "score", 0.4, "budget"].n == 4  # code_next has none
    layers = [row for row in rows if row.metric == "kept_layer" and row.model_extra["size"] == "own"]
    own = found["namm", "all/all", "kept", None, "own"].value
    assert np.mean([row.value for row in layers if row.variant == "namm"]) == pytest.approx(own, abs=1e-2)


def test_what_is_dropped_of_all_kinds_together_is_what_is_not_kept(straight):
    _, run, rows = straight
    documents = [line for line in judged(run) if "document" in line]
    assert [(line["document"], line["number"]) for line in documents] == [("code", 0), ("prose", 0)]
    for text in ("code", "prose"):
        found = [row for row in rows if row.dataset == f"kinds/{text}"]
        lost = {}
        for variant in ("namm", "random"):
            kinds = [row for row in found if row.variant == variant and row.metric == "dropped"]
            assert sum(row.model_extra["share"] for row in kinds) == pytest.approx(100)
            names = {row.model_extra["token_kind"] for row in kinds}
            assert names >= ({"newline", "name", "operator"} if text == "code" else {"newline", "content word"})
            lost[variant] = sum(row.value * row.model_extra["share"] / 100 for row in kinds)
        assert lost["namm"] == pytest.approx(lost["random"], abs=0.6)  # as much in all, to the nearest token
        runs = {row.variant: row.value for row in found if row.metric == "dropped_run"}
        assert runs["random"] > 1 and runs["namm"] > 1


def test_stopped_on_request_and_gone_on(straight, tmp_path):
    resolved, run, rows = straight

    def stop(event):
        if event.get("done") == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        eval_namm(resolved, Options(tmp_path), stop)
    stopped = RunStore(tmp_path).run(run.name)
    assert stopped.status == "interrupted" and len(judged(stopped)) == 2
    with pytest.raises(MemxError, match="exists"):
        eval_namm(resolved, Options(tmp_path), quiet)
    with (stopped.folder / RESULTS).open("a") as file:
        file.write('{"task": "code_next", "number": 0, "fac')  # what a kill cuts off
    notes = []
    again = eval_namm(resolved, Options(tmp_path, resume=True), notes.append)
    assert {"note": "resumed after 2 of 6 prompts"} in notes and again == rows
    assert (stopped.folder / RESULTS).read_text() == (run.folder / RESULTS).read_text()
    assert eval_namm(resolved, Options(tmp_path, resume=True), quiet) == again


def test_another_namm_in_the_same_folder_is_refused(place, tmp_path):
    resolved = asked(place)
    source = resolved.namms[0].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(MemxError, match="another than when"):
        eval_namm(resolved.model_copy(update={"namms": (source,)}), Options(tmp_path), quiet)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# -- what is evaluated by default


def write_run(folder, host, budget=None, **changes):
    """A run folder of an evolution, as it stands when a NAMM was saved."""
    resolved = load_evolution_config("namm-smollm2", settings(host, **changes))
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(resolved))
    namm.save(scorer(Rule(budget=budget)), folder / "namm", host=str(host), tasks=list(resolved.tasks.train))
    return folder


def test_a_run_says_what_is_evaluated(place, tmp_path):
    run = write_run(tmp_path / "mine-12345678", place[0], 0.3, fitness__mode="online", seed=5)
    found = load_eval_config(eval_tree([run], {}))
    assert found.tasks == ("key_values", "prose_next", *HELD_OUT) and found.trained == ("key_values", "prose_next")
    assert (found.mode, found.length, found.every, found.host.name) == ("online", 220, EVERY, str(place[0]))
    assert found.shares == (0.75, 0.5, 0.3, 0.25, 0.125) and found.policies == RIVALS
    (source,) = found.namms
    assert (source.label, source.seed, source.budget, source.evolved_on) == ("namm", 5, 0.3, str(place[0]))
    assert load_eval_config(eval_tree([run], {"mode": "post_hoc"}), [("mode", "post_hoc")]).mode == "post_hoc"


def test_several_runs_have_labels_and_must_agree(place, tmp_path):
    one = write_run(tmp_path / "mine-12345678", place[0])
    two = write_run(tmp_path / "mine-23456789", place[0], seed=1, tasks__length=300)
    with pytest.raises(MemxError, match="differ in length: 220, 300") as caught:
        eval_tree([one, two], {})
    assert "--length" in caught.value.hint
    found = load_eval_config(eval_tree([one, two], {"length": 250}), [("length", 250)])
    assert [source.label for source in found.namms] == ["namm mine-12345678", "namm mine-23456789"]
    other = write_run(tmp_path / "other-23456789", place[0], tasks__train=["needles"], tasks__length=250)
    found = load_eval_config(eval_tree([one, other], {"length": 250}), [("length", 250)])
    assert [source.label for source in found.namms] == ["namm mine", "namm other"]
    assert found.trained == ("key_values", "prose_next", "needles")  # by any of them
