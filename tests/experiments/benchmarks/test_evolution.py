"""The benchmark of a generation of evolution: what it checks, counts and refuses. Times are never asserted."""

import dataclasses
import json

import pytest
import torch
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.base_models.synthetic import TINY, build_host
from memx.experiments.benchmarks import run as bench
from memx.experiments.benchmarks.benchmark import BenchConfig, EvictionBenchConfig
from memx.experiments.benchmarks.eviction import evolution as evolve_bench
from memx.experiments.benchmarks.eviction import evolution_timing as evolve_speed
from memx.experiments.benchmarks.eviction.correctness import Verdict
from memx.experiments.benchmarks.eviction.evolution import bench_evolve, check_evolution, check_generation, chosen
from memx.experiments.benchmarks.eviction.evolution_timing import FEATURES, PARTS, PartClock, time_parts
from memx.experiments.benchmarks.eviction.settings import METHODS, Case
from memx.experiments.benchmarks.registry import benchmarks
from memx.experiments.benchmarks.run import run_bench
from memx.namm.cache import observe
from memx.namm.cache.cache import EvictingCache
from memx.namm.cache.layer import EvictingLayer
from memx.namm.evolution.population import Population
from memx.namm.policies.network import Namm
from memx.results.bench.compare import comparison
from memx.results.bench.evolution_table import evolve_tables, note_line

CPU = torch.device("cpu")
SMALL = EvictionBenchConfig(layers=1, contexts=(70,), every=32, budgets=(0.25,), population=5)
SCORERS = ("bam", "mlp", "universal")
KINDS = [f"{scorer}, {way}" for scorer in SCORERS for way in METHODS]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More would wait for each other."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def rows():
    """Of a host in float64, so that no choice hangs on its rounding."""
    return bench_evolve(SMALL, device=CPU, dtype=torch.float64, rounds=2)


@pytest.fixture
def host():
    """A host in float64, so that no choice hangs on its rounding."""
    return build_host(TINY, 1, CPU, torch.float64)


def case(mode, **changes):
    return Case(dataclasses.replace(SMALL, **changes), 70, 1, 0.25, mode, {})


def swapped(self, view):
    """What a population scores, each member's scores given to the one before it."""
    scores = self.namm.score(
        self.parameters, self.namm.tokens(view).unflatten(0, (len(self.parameters), -1)), view.recent.exists
    )
    return scores.roll(-1, 0).flatten(0, 1)


def test_rows_of_both_modes_apart(rows):
    beginning = "evolve host=tiny-llama context=70 prompts=1 population=5 budget=0.25 mode="
    assert list(dict.fromkeys(row.dataset for row in rows)) == [beginning + "post_hoc", beginning + "online"]
    assert {row.experiment for row in rows} == {"bench-evolve"}
    for mode in ("post_hoc", "online"):
        own = {(row.kind, row.metric): row for row in rows if row.dataset.endswith(mode)}
        assert [kind for kind, metric in own if metric == "generation_ms"] == KINDS
        assert [own[scorer, "correct"].value for scorer in SCORERS] == [1, 1, 1]
        for kind in KINDS:
            assert own[kind, "generation_ms"].n == 2 and own[kind, "generation_ms"].value > 0
            assert own[kind, "generation_ms"].model_extra["measured"] == (4 if "one by one" in kind else 5)
            assert ((kind, "speedup") in own) == ("one by one" not in kind)
            rate, seconds = own[kind, "candidates_per_second"].value, own[kind, "generation_ms"].value / 1e3
            assert rate * seconds == pytest.approx(5)


def test_shares_are_of_all_the_time(rows):
    shares = {(row.dataset, row.kind, row.metric): row.value for row in rows if row.metric.endswith("_percent")}
    for dataset, kind in {key[:2] for key in shares}:
        parts = [shares[dataset, kind, f"{part}_percent"] for part in PARTS]
        # masks on inputs that are kept need no features
        kept = kind == "universal, contexts read" and dataset.endswith("post_hoc")
        spent = [part for name, part in zip(PARTS, parts, strict=True) if not (kept and name == FEATURES)]
        assert min(spent) > 0  # every part is met somewhere
        assert min(parts) >= 0 and sum(parts) == pytest.approx(100)
        assert shares[dataset, kind, "host_percent"] == pytest.approx(parts[0] + parts[1])


def test_seconds_of_a_part_are_its_own_alone(monkeypatch):
    told = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(evolve_speed, "now", lambda device: next(told))
    clock = PartClock(CPU)
    with clock.part("outer"), clock.part("inner"):
        pass
    clock.turn()
    assert clock.seconds == {"reading": 1 + 5, "outer": 2 + 4, "inner": 3}


def test_functions_are_as_before_once_parts_are_timed(host):
    def functions():
        layer = EvictingLayer.update_policy, EvictingLayer.copies, EvictingCache.choices
        return observe.observe, Namm.tokens, Namm.score, *layer

    before = functions()
    with pytest.raises(ZeroDivisionError):
        time_parts(host.model, lambda: 1 / 0)
    assert before == functions()
    assert "forward" not in vars(host.model)


@pytest.mark.parametrize("mode", ["post_hoc", "online"])
def test_candidates_taken_for_one_another_are_wrong(host, mode, monkeypatch):
    right = check_generation(host, case(mode), "bam")
    assert right.wrong == "" and right.error < 1e-4
    monkeypatch.setattr(Population, "scores", swapped)
    found = check_generation(host, case(mode), "bam")
    assert found.error > found.limit == 1e-3 and "log-likelihoods differ by" in found.wrong


def test_what_is_wrong_fails_without_a_speed(monkeypatch):
    monkeypatch.setattr(Population, "scores", swapped)
    found = run_bench(BenchConfig(["evolution"], "cpu", evict=SMALL, steps=1))
    assert {row.metric for row in found.rows} == {"correct"}
    dataset = "evolve host=tiny-llama context=70 prompts=1 population=5 budget=0.25 mode=post_hoc"
    assert f"{dataset}: bam" in found.wrong
    [table] = evolve_tables(found.rows)
    assert table.lines[0][0] == "bam" and table.lines[0][1].startswith("FAIL: log-likelihoods differ by ")


def test_a_half_precision_host_is_checked_beside_a_small_one(monkeypatch):
    seen = []

    def check(host, case, scorer):
        seen.append((host.model.dtype, scorer))
        return Verdict(scorer, 0.0, 1e-3, "")

    monkeypatch.setattr(evolve_bench, "check_generation", check)
    rows = bench_evolve(dataclasses.replace(SMALL, population=2), device=CPU, dtype=torch.bfloat16, rounds=1)
    assert seen == [(torch.float32, scorer) for scorer in SCORERS] * 2
    assert {row.model for row in rows} == {"tiny-llama, 1 layers, bfloat16"}
    assert {row.kind for row in rows if row.metric == "generation_ms"} == set(KINDS)


def test_the_candidates_judged_one_by_one():
    assert chosen(32) == [0, 10, 21, 31] and chosen(4) == [0, 1, 2, 3] and chosen(2) == [0, 1]


def test_tables(rows):
    first, second = evolve_tables(rows)
    assert first.title.count("mode=post_hoc") == second.title.count("mode=online") == 1
    for table in (first, second):
        assert [line[0] for line in table.lines] == KINDS
        assert all(len(line) == len(table.columns) for line in table.lines)
        assert all((line[2] == "") == ("one by one" in line[0]) for line in table.lines)
    assert "(4 of 5 measured)" in note_line(rows)
    assert len(comparison(rows, rows).facts) == 2 * len(KINDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"population": 1}, "population must be at least 2, got 1"),
        ({"budgets": (0.0,)}, r"budget must be in \(0, 1\] or a whole number of tokens, got 0"),
        ({"every": 20}, "must be a positive multiple of 16 tokens, got 20"),
        ({"contexts": (16,)}, "below the eviction interval of 32"),
        ({"contexts": (2**17 - 8,)}, "has a context of 131,072 tokens, shorter than 131,094"),
        ({"host": "no such model", "layers": None}, "no model or folder"),
    ],
    ids=str,
)
def test_orders_that_cannot_be(change, message):
    with pytest.raises(MemxError, match=message):
        check_evolution(dataclasses.replace(SMALL, **change), CPU)


def test_evolve_is_measured_only_if_named(monkeypatch):
    measured = []

    def run(names, *given):
        measured.append(names)
        return []

    listed = [dataclasses.replace(benchmark, run=run) for benchmark in benchmarks()]
    monkeypatch.setattr(bench, "benchmarks", lambda: listed)
    for names in ([], ["evolution"]):
        run_bench(BenchConfig(names, "cpu"))
    assert "decode" in measured[0] and "evolution" not in measured[0] and measured[1] == ["evolution"]
    assert ["not in the default set" in each.about for each in listed if each.name == "evolution"] == [True]


def test_the_command_line(capsys, tmp_path):
    quick = ["bench", "evolution", "--device", "cpu", "--layers", "1", "--context", "64", "--interval", "32"]
    quick += ["--population", "2", "--steps", "1", "--threads", "1"]
    assert memx([*quick, "--save", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    for said in (
        "mode=post_hoc",
        "mode=online",
        "bam, contexts read",
        "mlp, one by one",
        "universal, contexts read",
        "(2 of 2 measured)",
    ):
        assert said in out
    assert memx([*quick, "--against", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {fact["kind"] for fact in found["comparison"]} == set(KINDS)
    assert memx([*quick, "--mode", "online", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["dataset"].rpartition("mode=")[2] for row in found} == {"online"}
    assert memx([*quick, "--population", "1"]) == 2
    assert "--population" in capsys.readouterr().err
