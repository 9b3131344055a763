"""The benchmark of eviction: what it checks, counts and refuses. Times are never asserted."""

import dataclasses
import multiprocessing

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.base_models import synthetic as evict_bench_hosts
from memx.experiments.base_models.synthetic import LARGE, TINY, Host, build_host, check_host
from memx.experiments.benchmarks import timing as bench_time
from memx.experiments.benchmarks.benchmark import BenchConfig, EvictionBenchConfig
from memx.experiments.benchmarks.eviction import correctness as evict_bench_check
from memx.experiments.benchmarks.eviction import prefill_decode as evict_bench
from memx.experiments.benchmarks.eviction.correctness import check_baselines, check_kept, logits_error
from memx.experiments.benchmarks.eviction.generate import bench_generate
from memx.experiments.benchmarks.eviction.policies import Baseline, baselines_of, held, make_baselines, prefill
from memx.experiments.benchmarks.eviction.prefill_decode import bench_evict, check_eviction
from memx.experiments.benchmarks.registry import benchmarks
from memx.experiments.benchmarks.run import run_bench
from memx.experiments.eviction import kvpress_presses
from memx.namm import NO_PASS, Namm, Rule, save
from memx.namm.policies.heuristics import POLICIES
from memx.results.bench.eviction_table import evict_tables, note_line
from transformers import LlamaConfig

CPU = torch.device("cpu")
SMALL = EvictionBenchConfig(
    layers=1, contexts=(70,), every=32, new_tokens=2, policies=("namm", "knorm"), budgets=(0.5, 0.25)
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More would wait for each other."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def host():
    return build_host(TINY, 1, CPU, torch.float32)


def rows_of(rows, kind, metric):
    return [row.value for row in rows if (row.kind, row.metric) == (kind, metric)]


@pytest.fixture(scope="module")
def rows():
    return bench_evict(["prefill", "decode"], SMALL, device=CPU, dtype=torch.float32, rounds=2)


def test_everything_takes_part_by_default():
    found = make_baselines((), (0.5,), 32, peers=False)
    kinds = [entrant.name for entrant in found]
    rivals = [f"{name} 0.5" for name in POLICIES if name != "full"]
    assert kinds == ["plain", "plain, pieces of 32", "namm-keep-all", "namm 0.5", "full", *rivals]
    assert [entrant.name for entrant in make_baselines(("knorm", "plain"), (0.5, 0.25), 32, peers=False)][2:] == [
        "knorm 0.5",
        "knorm 0.25",
    ]


def test_heads_that_share_a_budget_hold_as_much_in_all(host):
    allocations = ("global", "table", "layer_max")
    found = make_baselines(("namm", "knorm"), (0.3,), 32, peers=False, allocations=allocations)[2:]
    assert [entrant.name for entrant in found] == [
        f"{name} 0.3 {one}" for name in ("namm", "knorm") for one in allocations
    ]
    with torch.inference_mode():
        checked = [check_kept(host.model, entrant, host.ids(1, 70), 32) for entrant in found]
        assert [verdict.wrong for verdict in checked] == [""] * len(found)
        wrong = dataclasses.replace(found[1], budget=0.25)
        assert "in all heads, expected" in check_kept(host.model, wrong, host.ids(1, 70), 32).wrong


def test_a_saved_namm_is_measured_under_its_own_allocation(host, tmp_path):
    small = Namm(scorer="mlp", hidden=(8, 8), features=NO_PASS, rule=Rule(budget=0.5, allocation="global"))
    parameters = torch.randn(len(small.parameters), generator=torch.Generator().manual_seed(0))
    save(dataclasses.replace(small, parameters=parameters), tmp_path / "mine")
    config = dataclasses.replace(SMALL, policies=("knorm",), namms=(str(tmp_path / "mine"),), budgets=(0.3, 0.5))
    found = baselines_of(config, peers=False)
    assert [one.name for one in found[2:4]] == ["namm mine 0.3 global", "namm mine 0.5 global"]
    with torch.inference_mode():
        assert [check_kept(host.model, one, host.ids(1, 70), 32).wrong for one in found[2:4]] == ["", ""]
    with pytest.raises(MemxError, match="no NAMM"):
        check_eviction(dataclasses.replace(config, namms=(str(tmp_path / "none"),)), CPU, peers=False)


def test_the_namm_that_comes_with_memx_is_measured_unless_policies_are_named():
    for changes, names in (
        ({"policies": ()}, ["namm universal 0.5 global"]),
        ({"policies": ("knorm",)}, []),
        ({"policies": ("knorm",), "namms": ("smollm2",)}, ["namm smollm2 0.5 global"]),
    ):
        found = baselines_of(dataclasses.replace(SMALL, budgets=(0.5,), **changes), peers=False)
        assert [one.name for one in found if one.policy.startswith("namm ")] == names


@pytest.mark.parametrize(
    ("budget", "context", "kept"), [(0.5, 64, 32), (0.29, 100, 31), (0.7, 70, 50), (0.07, 3200, 224), (1, 70, 70)]
)
def test_how_many_tokens_a_budget_keeps(budget, context, kept):
    assert make_baselines(("knorm",), (budget,), 32, peers=False)[-1].keeps(context, 32) == kept


def test_all_contestants_are_right(host):
    verdicts = check_baselines(host, make_baselines((), (0.5,), 32, peers=False), 70, 32)
    assert [v.wrong for v in verdicts] == [""] * len(verdicts)
    assert verdicts[0].error < 1e-5 and verdicts[0].limit == 1e-4


def test_rows_of_prefill_and_decode(rows):
    names = ["plain", "plain, pieces of 32", "namm 0.5", "namm 0.25", "knorm 0.5", "knorm 0.25"]
    timed = [row for row in rows if row.metric == "prefill_ms"]
    assert [row.kind for row in timed] == names and all(row.value > 0 and row.n == 2 for row in timed)
    assert rows_of(rows, "plain", "prefill_ratio") == [1.0]
    assert rows_of(rows, "plain, pieces of 32", "prefill_ratio_pieces") == [1.0]
    assert rows_of(rows, "plain", "kept_slots") == [70, 70]  # of prefill and of decode
    assert rows_of(rows, "knorm 0.25", "kept_slots") == rows_of(rows, "knorm 0.25", "kept_tokens") == [22, 22]
    assert rows_of(rows, "namm 0.5", "kept_in_pieces") == [38]
    assert rows_of(rows, "plain", "kv_mb") == [2 * 4 * 70 * 32 * 4 / 1e6] * 2
    assert rows_of(rows, "plain", "beside_percent") == [0, 0] and rows_of(rows, "namm 0.5", "beside_percent")[0] > 0
    assert {row.dataset for row in rows} == {
        "prefill host=tiny-llama context=70 batch=1",
        "decode host=tiny-llama context=70 batch=1 new=2",
    }
    assert {row.experiment for row in rows} == {"bench-evict"}
    [decoded] = [row for row in rows if (row.kind, row.metric) == ("knorm 0.5", "tokens_per_second")]
    [step] = [row for row in rows if (row.kind, row.metric) == ("knorm 0.5", "token_ms")]
    assert decoded.value == pytest.approx(1e3 / step.value)
    assert decoded.model_extra["budget"] == 0.5 and decoded.model_extra["package"] == "memx"


def test_tables(rows):
    first, second = evict_tables(rows)
    assert first.title.startswith("prefill host=tiny-llama") and second.title.startswith("decode host")
    assert [line[0] for line in first.lines][:2] == ["plain", "plain, pieces of 32"]
    assert all(len(line) == len(table.columns) for table in (first, second) for line in table.lines)
    assert "in calls of 32 tokens" in note_line(rows)


def test_batches_and_contexts_have_rows_of_their_own():
    order = dataclasses.replace(SMALL, contexts=(32, 64), batches=(1, 3), policies=("recency",), budgets=(0.5,))
    rows = bench_evict(["prefill"], order, device=CPU, dtype=torch.float32, rounds=1)
    kept = {(row.model_extra["context"], row.model_extra["batch"]): row for row in rows if row.metric == "kept_slots"}
    assert set(kept) == {(32, 1), (32, 3), (64, 1), (64, 3)}
    assert not [row for row in rows if row.metric.startswith("token")]


def test_a_policy_that_keeps_too_many_fails_without_a_speed(monkeypatch):
    wrong = dataclasses.replace(make_baselines(("knorm",), (0.5,), 32, peers=False)[-1], budget=0.25)
    usual = evict_bench.baselines_of
    monkeypatch.setattr(evict_bench, "baselines_of", lambda *given, **more: [*usual(*given, **more), wrong])
    order = dataclasses.replace(SMALL, policies=("knorm",), budgets=(0.5,))
    found = run_bench(BenchConfig(["prefill"], "cpu", evict=order, steps=1))
    assert found.wrong == ["prefill host=tiny-llama context=70 batch=1: knorm 0.25"]
    assert {row.metric for row in found.rows} == {"correct"}
    [table] = evict_tables(found.rows)
    assert table.lines == [["knorm 0.25", "FAIL: keeps 38 tokens, expected 22"]]


def test_logits_that_differ_fail(host, monkeypatch):
    with torch.inference_mode():
        assert logits_error(host.model, host.ids(1, 70), 32) < 1e-5
    monkeypatch.setattr(evict_bench_check, "logits_error", lambda *given: float("nan"))
    verdict = check_baselines(host, [], 70, 32)[0]
    assert verdict.name == "namm-keep-all" and "differ from the unmodified model by nan" in verdict.wrong


def test_a_half_precision_host_is_checked_beside_a_small_one(monkeypatch):
    half = build_host(TINY, 1, CPU, torch.bfloat16)
    seen = []
    monkeypatch.setattr(evict_bench_check, "logits_error", lambda model, *rest: seen.append(model.dtype) or 0.0)
    entrants = make_baselines(("tova",), (0.5,), 32, peers=False)
    assert [v.wrong for v in check_baselines(half, entrants, 64, 32)] == ["", ""]
    assert half.model.dtype == torch.bfloat16 and seen == [torch.float32]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of Python 3.12, on forks beside threads
@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_generate_in_a_process_of_its_own(monkeypatch, method):
    """Forked from this one, which has all imported; a user's run forks from a server that imports it first."""
    monkeypatch.setattr(bench_time, "get_context", lambda kind: multiprocessing.get_context(method))
    order = dataclasses.replace(SMALL, policies=("knorm",), budgets=(0.25,))
    rows = bench_generate(order, device=CPU, dtype=torch.float32)
    assert rows_of(rows, "knorm 0.25", "kept_slots") == [22] and rows_of(rows, "plain", "kept_slots") == [70]
    assert all(value > 0 for value in rows_of(rows, "knorm 0.25", "total_ms"))
    [table] = evict_tables(rows)
    assert [line[0] for line in table.lines] == ["plain", "plain, pieces of 32", "knorm 0.25"]


def test_prompts_of_a_text_start_apart_and_wrap():
    model = build_host(TINY, 1, CPU, torch.float32).model
    ids = Host("text", model, torch.arange(10)).ids(2, 7)
    assert ids.tolist() == [[0, 1, 2, 3, 4, 5, 6], [5, 6, 7, 8, 9, 0, 1]]


def test_what_caches_of_transformers_hold(host):
    with torch.inference_mode():
        cache = prefill(host.model, host.ids(2, 40), piece=16)[1]
    assert held(cache) == (40, 40, 2 * 2 * 4 * 40 * 32 * 4, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policies": ("snapvk",)}, "unknown policy 'snapvk'"),
        ({"budgets": (0.0,)}, r"budget must be in \(0, 1\] or a whole number of tokens, got 0"),
        ({"budgets": (1.5,)}, r"budget must be in \(0, 1\] or a whole number of tokens, got 1.5"),
        ({"every": 20}, "must be a positive multiple of 16 tokens, got 20"),
        ({"contexts": (16,)}, "below the eviction interval of 32"),
        ({"contexts": (2**18,)}, "has a context of 131,072 tokens"),
        ({"host": "no such model", "layers": None}, "no model or folder"),
    ],
    ids=str,
)
def test_orders_that_cannot_be(change, message):
    with pytest.raises(MemxError, match=message):
        check_eviction(dataclasses.replace(SMALL, **change), CPU, peers=False)


def test_a_host_with_weights_has_the_layers_and_the_context_that_it_has(monkeypatch):
    monkeypatch.setattr(evict_bench_hosts, "host_config", lambda name: LlamaConfig(max_position_embeddings=80))
    check_host("some/model", None, 80)
    with pytest.raises(MemxError, match="--layers cannot change the layers of some/model"):
        check_host("some/model", 1, 80)
    with pytest.raises(MemxError, match="some/model has a context of 80 tokens, shorter than 81"):
        check_host("some/model", None, 81)


def test_peers_that_are_not_there(monkeypatch):
    monkeypatch.setattr(kvpress_presses, "find_spec", lambda name: None)
    with pytest.raises(MemxError, match="needs kvpress"):
        check_eviction(SMALL, CPU, peers=True)
    monkeypatch.setattr(kvpress_presses, "find_spec", lambda name: object())

    def old(name):
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(kvpress_presses, "import_module", old)
    with pytest.raises(MemxError, match="does not work with the installed transformers"):
        check_eviction(SMALL, CPU, peers=True)


def test_presses_keep_the_same_in_one_piece_and_more_in_many(host):
    pytest.importorskip("kvpress")
    entrants = [e for e in make_baselines((), (0.5,), 32, peers=True) if e.package == "kvpress"]
    assert len(entrants) == 6
    named = [e.policy for e in make_baselines(("namm", "knorm"), (0.5,), 32, peers=True) if e.package == "kvpress"]
    assert named == ["kvpress KnormPress"]
    usual = host.model.config._attn_implementation
    with torch.inference_mode():
        for entrant in entrants:
            with entrant.on(host.model):
                ids = host.ids(1, 256)
                assert held(prefill(host.model, ids)[1]).slots == 128, entrant.name
                assert held(prefill(host.model, ids, 128)[1]).slots == 192, entrant.name
    assert host.model.config._attn_implementation == usual


def test_the_large_host_is_a_llama_of_eight_billion():
    check_host(LARGE, None, 2**17)
    model = build_host(LARGE, 1, torch.device("meta"), torch.bfloat16).model
    sizes = [p.numel() for name, p in model.named_parameters() if "layers.0" in name]
    assert sum(sizes) == 218_112_000 and model.dtype == torch.bfloat16


def test_generate_is_measured_only_if_named():
    listed = {benchmark.name: benchmark.by_default for benchmark in benchmarks()}
    assert listed["prefill"] and listed["decode"] and not listed["generate"]
    assert isinstance(make_baselines((), (0.5,), 32, peers=False)[0], Baseline)
