"""Small scorers: fitted to KVzip's scores, evolved from random weights or the fit, by masks, at budgets by turns."""

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.config.base import run_name, tree_hash
from memx.experiments.config.eviction.evolution import EvolveConfig, FitConfig
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.eviction.answers import read
from memx.experiments.evolution import run as run_module
from memx.experiments.evolution.candidates import Keep
from memx.experiments.evolution.fit import explained, fit, fit_examples, scorer_inputs
from memx.experiments.evolution.run import evolve_namm
from memx.experiments.evolution.start import empty_namm, random_parameters
from memx.experiments.runtime.options import Options
from memx.namm import NO_PASS, Namm
from memx.results.store.runs import RunStore

from ...namm.features_reference import nine_inputs, record
from .tiny_evolution import settings, write_host

SMALL = {
    "namm.scorer": "mlp",
    "namm.hidden": [8, 8],
    "namm.features": list(NO_PASS),
    "namm.allocation": "global",
    "fitness.sharing": "masks",
    "fitness.budgets": [0.2, 0.4],
    "evolution.start": "random",
    "evolution.sigma": 0.5,
    "evolution.covariance": "full",
    "fit.prompts": 1,
    "fit.steps": 60,
}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host"))


def small(host, **changes):
    return load_evolution_config("namm-universal", [*{**dict(settings(host)), **SMALL, **changes}.items()])


def test_a_small_scorer_reads_the_inputs_of_their_equations(host):
    model, _ = load_host(str(host), dtype=torch.float64, any_decoder=True)
    context = torch.randint(0, 300, (70,), generator=torch.Generator().manual_seed(0))
    small = Namm(scorer="mlp", hidden=(8, 8), features=NO_PASS)
    with torch.no_grad():
        found = scorer_inputs(read(model, context, Keep(namm=small)), small)
    for layer, own in enumerate(record(model, context)):
        inputs, positions = found[layer]
        assert torch.equal(positions[0, 0], torch.arange(inputs.shape[2]))
        if inputs.shape[2] == 70:
            torch.testing.assert_close(inputs[0].double(), nine_inputs(own), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "kind", [{}, {"namm.head_bias": True, "namm.head_embedding": 2}, {"namm.scorer": "linear", "namm.hidden": []}]
)
def test_a_fit_explains_more_of_kvzips_scores_than_it_began_with(host, kind):
    model, tokenizer = load_host(str(host), dtype=torch.float32, any_decoder=True)
    one = empty_namm(small(host, **kind).namm, described=model.config)
    contexts = [torch.randint(0, 300, (60 + size,), generator=torch.Generator().manual_seed(size)) for size in (0, 9)]
    examples = fit_examples(model, tokenizer, one, contexts)
    assert len(examples) == 4 and torch.cat([e.target.flatten() for e in examples]).mean().abs() < 1e-4
    start = random_parameters(one, seed=0)
    settled = FitConfig(steps=60, rate=0.02)
    fitted = fit(one, examples, start, settled, seed=0)
    assert explained(one, fitted, examples) > explained(one, start, examples) + 0.1
    assert torch.equal(fitted, fit(one, examples, start, settled, seed=0))


def test_random_parameters_are_torchs_initialisation():
    one = Namm(scorer="mlp", hidden=(8, 8), features=NO_PASS)
    drawn = random_parameters(one, seed=3)
    assert drawn.shape == (161,) and torch.equal(drawn, random_parameters(one, seed=3))
    first, rest = drawn[:80], drawn[80:]
    assert 0.25 < first.abs().max() <= 1 / 3 and 0.3 < rest.abs().max() <= 8**-0.5


def test_an_evolution_from_random_weights_resumes_to_the_bit_and_reports_each_budget(host, tmp_path):
    config = small(host)
    rows = evolve_namm(config, Options(tmp_path / "a"), lambda event: None)
    found = {(row.dataset, row.variant, row.metric): row for row in rows}
    assert found["test/20%", "answer", "kept"].value == pytest.approx(20, abs=1)
    assert found["test/40%", "answer", "kept"].value == pytest.approx(40, abs=1)
    assert found["test/all", "answer", "kept"].value == pytest.approx(30, abs=1)
    run = RunStore(tmp_path / "a").run(run_name(config))
    kept = [line["kept"] for line in run.metrics() if "best" in line]
    assert kept == [pytest.approx(share, abs=0.01) for share in (0.2, 0.4, 0.2)]  # by turns
    chosen = namm.load(run.folder / "namm")
    assert chosen.features == NO_PASS and chosen.rule.allocation == "global" and len(chosen.parameters) == 161


def test_a_fit_alone_is_a_result(host, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_drop_state", lambda run: None)
    config = small(host, **{"evolution.start": "fit", "evolution.generations": 0})
    rows = evolve_namm(config, Options(tmp_path), lambda event: None)
    run = RunStore(tmp_path).run(run_name(config))
    chosen = namm.load(run.folder / "namm")
    random = random_parameters(chosen, config.seed)
    assert not torch.allclose(chosen.parameters, random)
    start = namm.load(run.folder / "state" / "namm")
    assert torch.equal(chosen.parameters, start.parameters)
    # twice the same in one batch, of which sums may round by place
    assert [row.value for row in rows if row.variant == "difference"] == pytest.approx([0.0] * 16, abs=1e-5)


@pytest.mark.parametrize("features", [["log_age", "recent_max"], ["key_norm"], ["log_age", "received", "later_max"]])
def test_any_features_are_evolved_on_contexts_in_half_precision(host, tmp_path, features):
    given = {"namm.features": features, "fitness.context_dtype": "float16", "evolution.generations": 1}
    rows = evolve_namm(small(host, **given), Options(tmp_path), lambda event: None)
    kept = [row.value for row in rows if (row.dataset, row.metric) == ("test/40%", "kept")]
    assert kept and kept == pytest.approx([40] * len(kept), abs=1)


@pytest.mark.parametrize("sharing", ["masks", "copies"])
def test_heads_share_a_budget_by_a_measured_table(host, tmp_path, sharing):
    given = {"namm.allocation": "table", "fitness.sharing": sharing, "evolution.start": "random"}
    given["fitness.context_dtype"] = "float16" if sharing == "masks" else None
    rows = evolve_namm(small(host, **given), Options(tmp_path), lambda event: None)
    chosen = namm.load(RunStore(tmp_path).run(rows[0].run).folder / "namm")
    shares = chosen.rule.shares
    assert chosen.rule.allocation == "table" and shares.heads == [2, 2] and shares.source.startswith("KVzip")
    assert shares.budgets == (0.2, 0.4)
    assert len({share for layer in shares.at(0.2) for share in layer}) > 1
    kept = {row.dataset: row.value for row in rows if row.metric == "kept" and row.variant == "answer"}
    # at 20 and 40% of the context, and a table that is no equal share still holds as much in all
    assert kept["validation/all"] == pytest.approx(30, abs=2)


def test_older_configs_keep_their_run_folders():
    tree = EvolveConfig().model_dump(mode="json")
    for section, keys in {
        "namm": ("features", "head_bias", "head_embedding", "allocation", "first", "newest"),
        "fitness": ("sharing", "budgets", "context_dtype"),
        "evolution": ("start", "space", "sigma_end"),
    }.items():
        older = {**tree, section: {key: value for key, value in tree[section].items() if key not in keys}}
        assert tree_hash(older) == tree_hash(tree)
    assert tree_hash({key: value for key, value in tree.items() if key != "fit"}) == tree_hash(tree)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("evolution.generations", 0, "set evolution.start to fit"),
        (
            "fitness",
            {"sharing": "copies", "context_dtype": "float16"},
            "set context_dtype to null, or sharing to masks",
        ),
        ("fitness.budgets", [0.5, 0.5], "different shares"),
        ("fitness.mode", "online", "masks needs mode post_hoc"),
        ("namm.rule", "threshold", "needs namm.rule budget"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(host, key, value, says):
    with pytest.raises(MemxError) as error:
        small(
            host, **({f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value})
        )
    assert says in f"{error.value} {error.value.hint}"
