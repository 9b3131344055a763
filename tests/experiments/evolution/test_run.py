"""Evolution on a tiny host: the same trajectory whatever stops it, and figures that agree with those made by hand."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.benchmarks.eviction.evolution_timing import batched_generation, one_by_one_generation
from memx.experiments.config.base import run_name, to_yaml
from memx.experiments.config.eviction.evolution import FitnessConfig, NammConfig
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.data.long_context.example import Example
from memx.experiments.distributed.process_group import World
from memx.experiments.eviction.tasks import make_prompts
from memx.experiments.evolution import loop
from memx.experiments.evolution.candidates import CandidateEvaluator, CandidateScores, Prompt, Written
from memx.experiments.evolution.fitness import Evaluation, FitnessEvaluator
from memx.experiments.evolution.ranks import DistributedEvaluator
from memx.experiments.evolution.rows import _split_rows, stratified
from memx.experiments.evolution.run import evolve_namm
from memx.experiments.evolution.start import empty_namm, first_state
from memx.experiments.runtime.events import Generation, Note
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted, StopRequest
from memx.namm import Evolution, save_evolution
from memx.results.store.runs import RunStore

from .tiny_evolution import settings, write_host

PRESET = "namm-smollm2"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def straight(host, tmp_path_factory):
    """A run that nothing stopped: (config, run, rows)."""
    root = tmp_path_factory.mktemp("runs")
    config = load_evolution_config(PRESET, settings(host))
    rows = evolve_namm(config, Options(root), quiet)
    return config, RunStore(root).run(run_name(config)), rows


def quiet(event):
    pass


def trajectory(run):
    """All of the metrics but the time that they took, and the bytes of the NAMM."""
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics()]
    return lines, (run.folder / "namm" / "namm.safetensors").read_bytes()


def test_a_run_writes_all_that_it_found(straight, host):
    config, run, rows = straight
    assert run.status == "finished" and run.rows() == rows and not (run.folder / "state").exists()
    assert load_evolution_config(str(run.folder / "config.yaml")) == config
    lines = run.metrics()
    assert [line["step"] for line in lines if "best" in line] == [1, 2, 3]
    assert [line["step"] for line in lines if "validation" in line] == [0, 2, 3]
    for line in lines:
        assert {"context", "choice", "answer"} <= set(line["seconds"]) and 0.3 < line["kept"] <= 0.41
        assert ("tell" in line["seconds"]) == ("best" in line)
    found = {(row.dataset, row.variant, row.metric): row for row in rows}
    best = max(line["validation"] for line in lines if "validation" in line)
    assert found["validation/all", "answer", "fitness"].value == pytest.approx(best, rel=1e-4)
    assert found["validation/all", "generation 0", "fitness"].value == pytest.approx(lines[0]["validation"], rel=1e-4)
    card = (run.folder / "namm" / "README.md").read_text("utf-8")
    assert to_yaml(config) in card and f"| base model | {host} |" in card
    answer = found["test/all", "answer", "relative_log_likelihood"]
    measure = "likelihood of the correct answer, full cache = 1"
    assert f"| test prompts: all | {measure} | {answer.value:.3f} | {answer.low:.3f} to {answer.high:.3f} |" in card
    difference = found["validation/all", "difference", "fitness"]
    assert difference.value == pytest.approx(best - lines[0]["validation"], abs=1e-4) and difference.n == 4
    assert (
        found["validation/key_values", "answer", "kept"].n == 2
        and found["test/prose_next", "answer", "kept"].n == 1
        and found["all", "speed", "candidates_per_second"].value > 0
    )
    made = namm.load(run.folder / "namm")
    described = json.loads((run.folder / "namm" / "namm.json").read_text())
    assert described["host"] == str(host) and described["tasks"] == ["key_values", "prose_next"]
    assert made.rule.budget == 0.4 and made.every == 64 and made.variance.min() > 0


def test_the_same_seed_gives_the_same_and_another_another(straight, host, tmp_path):
    config, run, _ = straight
    evolve_namm(config, Options(tmp_path), quiet)
    assert trajectory(RunStore(tmp_path).run(run.name)) == trajectory(run)
    other = load_evolution_config(PRESET, settings(host, seed=1))
    evolve_namm(other, Options(tmp_path), quiet)
    assert trajectory(RunStore(tmp_path).run(run_name(other))) != trajectory(run)


def test_stopped_on_request_and_gone_on(straight, tmp_path):
    config, run, rows = straight

    def stop(event):
        if isinstance(event, Generation) and event.position.generation == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="generation 2"):
        evolve_namm(config, Options(tmp_path), stop)
    stopped = RunStore(tmp_path).run(run.name)
    assert stopped.status == "interrupted" and (stopped.folder / "namm").is_dir()
    with pytest.raises(MemxError, match="exists"):
        evolve_namm(config, Options(tmp_path), quiet)
    notes = []
    again = evolve_namm(config, Options(tmp_path, resume=True), notes.append)
    assert Note("resumed after generation 1") in notes
    assert trajectory(stopped) == trajectory(run)
    facts = [[row for row in found if row.variant != "speed"] for found in (again, rows)]
    assert facts[0] == facts[1]
    (stopped.folder / "state").mkdir()  # as if a kill had come before it was removed
    assert evolve_namm(config, Options(tmp_path, resume=True), quiet) == again
    assert not (stopped.folder / "state").exists()


def test_killed_in_mid_generation_and_gone_on(straight, tmp_path):
    config, run, _ = straight
    code = """if True:
        import os, signal, sys
        from memx.experiments.evolution.candidates import CandidateEvaluator
        from memx.cli.main import run
        evaluate, calls = CandidateEvaluator.evaluate, []
        def killed(self, prompt, parameters, budget):
            calls.append(len(parameters))
            if calls.count(4) == 4:  # the second prompt of the second generation
                os.kill(os.getpid(), signal.SIGKILL)
            return evaluate(self, prompt, parameters, budget)
        CandidateEvaluator.evaluate = killed
        run(sys.argv[1:])"""
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(config))
    command = [sys.executable, "-c", code, "evolve-namm", str(path), "--runs", str(tmp_path)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    killed = RunStore(tmp_path).run(run.name)
    assert killed.status == "interrupted" and [line["step"] for line in killed.metrics()] == [0, 1]
    # as older versions left it, whose metrics came after the state, when the kill came between the two
    (killed.folder / "metrics.jsonl").write_text(json.dumps(killed.metrics()[0]) + "\n")
    evolve_namm(config, Options(tmp_path, resume=True), quiet)
    (lines, numbers), (wanted, same) = trajectory(killed), trajectory(run)
    assert numbers == same
    assert lines[1] == {key: wanted[1][key] for key in lines[1]} and lines[2:] == wanted[2:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"population": 6}, "population is 6, not 4"), ({"seed": 3}, "seed is 3, not 0"),
     ({"n": 12}, "parameters is 12, not 4172"), ({"covariance": "full", "n": 4}, "parameters is 4, not 4172")],
    ids=str,
)  # fmt: skip
def test_a_state_of_another_evolution_is_refused(straight, tmp_path, changes, message):
    config, run, _ = straight
    own = RunStore(tmp_path).run(run.name)
    settings = {"n": 4172, "population": 4, "sigma": 0.065, "seed": 0, "covariance": "diagonal", **changes}
    save_evolution(Evolution(**settings), own.folder / "state")
    with pytest.raises(MemxError, match=message) as caught:
        first_state(config, own, np.zeros(4172), quiet)
    assert "--force" in caught.value.hint


@pytest.mark.parametrize("saves", [1, 2])
def test_metrics_whose_state_was_never_saved_are_written_once_and_whole(straight, tmp_path, monkeypatch, saves):
    config, run, _ = straight
    save, left = loop.save_evolution, [saves]

    def stopped(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(loop, "save_evolution", stopped)
    with pytest.raises(KeyboardInterrupt):
        evolve_namm(config, Options(tmp_path), quiet)
    monkeypatch.setattr(loop, "save_evolution", save)
    again = RunStore(tmp_path).run(run.name)
    assert len(again.metrics()) == saves  # the first validation, then the first generation
    evolve_namm(config, Options(tmp_path, resume=True), quiet)
    assert trajectory(again) == trajectory(run)


def test_stages_follow_one_another_from_the_whole_state(host, tmp_path):
    stages = [{"tasks": ["key_values"], "generations": 1}, {"tasks": ["key_values", "prose_next"], "generations": 2}]
    config = load_evolution_config(PRESET, settings(host, evolution__stages=stages, evolution__validate_every=1))
    whole = evolve_namm(config, Options(tmp_path / "a"), quiet)
    run = RunStore(tmp_path / "a").run(run_name(config))
    assert [(line["step"], line["stage"]) for line in run.metrics() if "best" in line] == [(1, 0), (2, 1), (3, 1)]
    assert [sorted(line["tasks"]) for line in run.metrics() if "best" in line][:2] == [
        ["key_values"], ["key_values", "prose_next"]
    ]  # fmt: skip

    def stop(event):
        if isinstance(event, Generation) and event.position.generation == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        evolve_namm(config, Options(tmp_path / "b"), stop)
    again = evolve_namm(config, Options(tmp_path / "b", resume=True), quiet)
    assert trajectory(RunStore(tmp_path / "b").run(run.name)) == trajectory(run)
    assert len(again) == len(whole)


@pytest.mark.parametrize("changes", [
    {"fitness.kind": "score", "tasks.train": ["key_values", "facts"], "fitness.mode": "online"},
    {"namm.scorer": "mlp", "namm.rule": "threshold", "fitness.price": 0.5, "fitness.remember": False},
], ids=["score online", "mlp price"])  # fmt: skip
def test_other_kinds_of_fitness(host, tmp_path, changes):
    config = load_evolution_config(PRESET, settings(host, evolution__generations=1, **changes))
    rows = {(row.dataset, row.variant, row.metric): row for row in evolve_namm(config, Options(tmp_path), quiet)}
    kind = config.fitness.kind
    own, kept = (rows["test/all", "answer", metric].value for metric in (f"relative_{kind}", "kept"))
    assert rows["test/all", "answer", "fitness"].value == pytest.approx(own - config.fitness.price * kept / 100)
    if kind == "log_likelihood":  # zero parameters under a threshold are the full cache
        assert rows["test/all", "generation 0", "fitness"].value == pytest.approx(0.5, abs=1e-4)


def test_validation_prompts_are_never_trained_on(host):
    config = load_evolution_config(PRESET, settings(host, tasks__pool=6, tasks__validation_prompts=6))
    _, tokenizer = load_host(str(host))
    prompts = make_prompts(config, tokenizer)
    validated = prompts.validated(config.tasks.train) + prompts.tested(config.tasks.train)
    drawn = [prompts.drawn(config.tasks.train, 2, seed, generation) for seed in (0, 1) for generation in range(10)]
    trained = {prompt.example.prompt for one in drawn for prompt in one}
    assert len(validated) == 14 == len({prompt.example.prompt for prompt in validated}) and len(trained) > 6
    assert not trained & {prompt.example.prompt for prompt in validated}
    assert not {line for text in trained for line in text.splitlines() if len(line) > 60} & {
        line for prompt in validated for line in prompt.example.context.splitlines()
    }
    assert drawn[0] == prompts.drawn(config.tasks.train, 2, 0, 0) != drawn[1]
    assert [prompt.example.task for prompt in drawn[0]] == ["key_values", "key_values", "prose_next", "prose_next"]


class FixedScores:
    """A `CandidateEvaluator` that returns given figures: of each prompt the candidates', kept shares and the base."""

    mode, remember = "post_hoc", True

    def __init__(self, figures):
        self.figures = figures

    def evaluate(self, prompt, parameters, budget):
        assert budget is None
        own, kept, _ = self.figures[prompt.answer]
        chosen = parameters[:, 0].long()
        return CandidateScores(torch.tensor(own)[chosen], torch.tensor(kept)[chosen])

    def write(self, prompt, parameters, tokenizer, budget):
        scores = self.evaluate(prompt, parameters, budget)
        return Written(["?"] * len(parameters), scores.log_likelihood, scores.kept)

    def base(self, prompt):
        return self.figures[prompt.answer][2]

    def base_score(self, prompt, tokenizer):
        return self.base(prompt)


def prompt(number, task):
    example = Example(task, "context", "question", ("answer",), "string_match_part")
    return Prompt(example, torch.zeros(3), torch.zeros(3), number)


def test_fitness_by_hand():
    prompts = [prompt(0, "a"), prompt(1, "a"), prompt(2, "b")]
    likelihoods = [([-1.0, -2.0, -3.0], [0.5, 0.6, 0.7], -2.0), ([-1.0, -1.0, -1.0], [0.5, 0.2, 1.0], -1.0),
                   ([-4.0, -3.0, -5.0], [1.0, 0.5, 0.1], -4.0)]  # fmt: skip
    candidates = np.arange(3.0)[:, None]
    for config in (FitnessConfig(price=0.25), FitnessConfig(price=0.25, at_once=2), FitnessConfig(target=0.6),
                   FitnessConfig(price=0.25, cap=1), FitnessConfig(target=0.6, cap=2)):  # fmt: skip
        evaluator = FitnessEvaluator(FixedScores(likelihoods), None, config)
        found = DistributedEvaluator(World(), evaluator, prompts, StopRequest()).evaluate(prompts, candidates)
        e = min(np.exp(1.0), config.cap or np.inf)
        relative = [((e + 1) / 2 + 1) / 2, (1 + e) / 2, ((np.exp(-1) + 1) / 2 + np.exp(-1)) / 2]
        kept = [(0.5 + 1.0) / 2, (0.4 + 0.5) / 2, (0.85 + 0.1) / 2]
        cost = [0.25 * share if config.price else max(0, share - 0.6) for share in kept]
        assert evaluator.fitness(found) == pytest.approx(np.subtract(relative, cost))
    scores = [([1.0, 0.0, 0.5], [1.0] * 3, 1.0), ([0.0, 0.5, 0.5], [1.0] * 3, 0.5), ([0.1, 0.0, 0.02], [1.0] * 3, 0.0)]
    evaluator = FitnessEvaluator(FixedScores(scores), None, FitnessConfig(kind="score", least_base=0.2))
    found = DistributedEvaluator(World(), evaluator, prompts, StopRequest()).evaluate(prompts, candidates)
    wanted = [((1.0 / 2) / 0.75 + 0.1 / 0.2) / 2, (0.25 / 0.75) / 2, (0.5 / 0.75 + 0.02 / 0.2) / 2]
    assert evaluator.fitness(found) == pytest.approx(wanted)


def test_answers_of_a_prompt_at_several_sizes_are_one_sample():
    """Sizes differ by 0.5, prompts by 0.2: the interval is of the prompts alone, and the share kept has none."""
    tasks, sizes = ("a", "a", "b", "b"), (0.125, 0.25)
    value = np.array([0.1, 0.3, 0.2, 0.4, 0.6, 0.8, 0.7, 0.9])[:, None].repeat(2, 1)
    kept = np.repeat(sizes, 4)[:, None].repeat(2, 1)
    told = Evaluation(tasks * 2, value, np.ones(8), kept, value, tuple(np.repeat(sizes, 4).tolist()))
    rows = {
        (row.dataset, row.variant, row.metric): row
        for row in _split_rows(dict(run="r", experiment="r", kind="namm", model="m"), "test", told, FitnessConfig())
    }
    fitness, share = rows["test/all", "answer", "fitness"], rows["test/all", "answer", "kept"]
    assert fitness.value == pytest.approx(0.5) and fitness.n == 4
    assert fitness.stderr == pytest.approx(np.sqrt(2 * 0.1**2) / 2)
    assert (share.value, share.low, share.high) == pytest.approx((18.75, 18.75, 18.75))
    assert rows["test/b", "answer", "kept"].n == 2


def test_intervals_are_of_the_spread_within_families():
    found = stratified(np.array([1.0, 3.0, 10.0, 14.0]), ["a", "a", "b", "b"])
    assert found.value == 7 and found.n == 4 and found.stderr == pytest.approx(np.sqrt(1 + 4) / 2)
    assert stratified(np.array([1.0, 2.0]), ["a", "b"]).stderr is None


def load_exact(host):
    """The host in float64, so that no choice hangs on its rounding, and its tokenizer."""
    model, tokenizer = load_host(str(host))
    return model.double(), tokenizer


def test_a_generation_in_one_batch_is_the_one_after_another(host):
    config = load_evolution_config(PRESET, settings(host))
    model, tokenizer = load_exact(host)
    prompts = make_prompts(config, tokenizer).validated(["key_values"])
    candidates = 0.3 * torch.randn(3, 4172, generator=torch.Generator().manual_seed(0))
    for mode in ("post_hoc", "online"):
        batched, alone = (
            way(CandidateEvaluator(model, empty_namm(config.namm), mode=mode, remember=remember), prompts, candidates)
            for way, remember in ((batched_generation, True), (one_by_one_generation, False))
        )
        assert batched[1].shape == (2, 3) and min(batched[0], alone[0]) > 0
        assert torch.allclose(batched[1], alone[1], atol=1e-4)


@torch.no_grad()
def test_written_answers_are_those_of_generate(host):
    config = load_evolution_config(PRESET, settings(host))
    model, tokenizer = load_exact(host)
    one = make_prompts(config, tokenizer).validation["key_values"][0]
    ids = torch.cat([one.context, one.rest[: -one.answer]])[None]
    options = dict(do_sample=False, max_new_tokens=one.example.max_new_tokens, attention_mask=torch.ones_like(ids))

    def text(told):
        return tokenizer.decode(told[0, ids.shape[1] :], skip_special_tokens=True)

    plain = text(model.generate(ids, **options))
    zero = empty_namm(NammConfig(every=64))
    evolved = namm.Namm(0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(0)), every=64)
    for mode in ("post_hoc", "online"):
        written = CandidateEvaluator(model, zero, mode=mode).write(one, torch.zeros(2, 4172), tokenizer)
        assert written.texts == [plain, plain] and written.kept.tolist() == [1, 1]
    with namm.attach(model, evolved):
        wanted = text(model.generate(ids, **options))
    both = torch.stack([torch.zeros(4172), evolved.parameters])
    assert CandidateEvaluator(model, evolved, mode="online").write(one, both, tokenizer).texts == [plain, wanted]
    assert CandidateEvaluator(model, zero).base_score(one, tokenizer) in (0, 1)


def test_a_failure_before_the_start_leaves_no_folder(tmp_path, host):
    config = load_evolution_config(PRESET, settings(host, tasks__length=64, tasks__train=["passages"]))
    with pytest.raises(MemxError, match="does not fit"):
        evolve_namm(config, Options(tmp_path), quiet)
    assert not list(tmp_path.iterdir())


def test_the_step_size_falls_along_a_cosine_in_each_stage_and_resumes_to_the_bit(host, tmp_path):
    stages = [{"tasks": ["key_values"], "generations": 3}, {"tasks": ["prose_next"], "generations": 4}]
    given = {"evolution.sigma": 0.4, "evolution.sigma_end": 0.1, "evolution.stages": stages}
    config = load_evolution_config(PRESET, [*{**dict(settings(host)), **given}.items()])
    evolve_namm(config, Options(tmp_path / "a"), quiet)
    sigmas = [line["sigma"] for line in RunStore(tmp_path / "a").run(run_name(config)).metrics() if "best" in line]
    bounds = [0.1 + 0.3 * (1 + np.cos(np.pi * done / count)) / 2 for count in (3, 4) for done in range(1, count + 1)]
    assert all(sigma <= bound + 1e-12 for sigma, bound in zip(sigmas, bounds, strict=True))
    assert sigmas[2] <= 0.1 + 1e-12 < 0.2 < sigmas[3]  # and from the first step size again

    def stop(event):
        if isinstance(event, Generation) and event.position.generation == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="generation 6"):
        evolve_namm(config, Options(tmp_path / "b"), stop)
    evolve_namm(config, Options(tmp_path / "b", resume=True), quiet)
    whole, stopped = (RunStore(tmp_path / name).run(run_name(config)) for name in "ab")
    assert trajectory(stopped) == trajectory(whole)
    with pytest.raises(MemxError, match=r"evolution.sigma_end 0.5 is above evolution.sigma"):
        load_evolution_config(PRESET, [*{**dict(settings(host)), "evolution.sigma_end": 0.5}.items()])
