"""Search spaces: from coordinates to parameters, and evolutions in them that resume to the bit."""

import os
import signal

import numpy as np
import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.experiments.config.base import run_name
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.evolution.run import evolve_namm
from memx.experiments.evolution.space import BIAS, FACTOR, LAST, search_space
from memx.experiments.evolution.start import random_parameters
from memx.experiments.runtime.events import Generation, Note, Phase
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted
from memx.namm import NO_PASS, HeadTable, Namm
from memx.results.store.runs import RunStore

from .tiny_evolution import settings, write_host

LAYERS, HEADS = 3, 2


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host"))


def started(table=HeadTable(LAYERS, HEADS, bias=True, embedding=4), **changes):
    """A NAMM with random parameters, also of the head table."""
    kind = dict(scorer="mlp", hidden=(6, 5), features=NO_PASS) | changes
    one = Namm(table=table, **kind)
    parameters = random_parameters(one, seed=2)
    draw = torch.randn(len(parameters), generator=torch.Generator().manual_seed(0))
    return Namm(table=table, parameters=torch.where(parameters == 0, draw, parameters), **kind)


def scores(one, parameters, tokens, layer=1):
    return one.score(torch.from_numpy(parameters).float(), tokens, layer=layer)


def test_all_parameters_are_themselves():
    one = started()
    space = search_space("all", one)
    assert space.size == len(one.parameters)
    assert space.start().tobytes() == one.parameters.double().numpy().tobytes()
    x = np.random.default_rng(0).normal(size=(3, space.size))
    assert space.parameters(x) is x


@pytest.mark.parametrize("kind", [
    {}, {"table": None}, {"table": HeadTable(LAYERS, HEADS, bias=False, embedding=4)},
    {"scorer": "linear", "hidden": ()}, {"scorer": "bam", "hidden": ()},
], ids=["table", "no table", "no bias", "linear", "bam"])  # fmt: skip
def test_zeros_are_the_initial_parameters(kind):
    one = started(**kind)
    space = search_space("heads", one)
    assert space.parameters(space.start()[None]).tobytes() == one.parameters.double().numpy().tobytes()
    last = {"bam": 9 + 1, "linear": 9 + (0 if one.table is None else one.table.embedding) + 1}.get(one.scorer, 5 + 1)
    factors = 0 if one.scorer == "linear" else 9
    biases = LAYERS * HEADS if one.table is not None and one.table.bias else 0
    embedded = 4 if one.scorer == "bam" else 0  # BAM's last layer reads what its first one does
    assert space.size == factors + last + embedded + biases


def test_a_factor_scales_what_the_first_layer_reads_of_an_input():
    one, tokens = started(), torch.randn(1, HEADS, 7, 9, generator=torch.Generator().manual_seed(1))
    space = search_space("heads", one)
    x = space.start()
    x[4] = 2.0
    scaled = tokens.clone()
    scaled[..., 4] *= 1 + 2 * FACTOR
    found = scores(one, space.parameters(x[None])[0], tokens)
    torch.testing.assert_close(found, scores(one, one.parameters.double().numpy(), scaled))
    assert not torch.allclose(found, one.score(one.parameters, tokens, layer=1))


def test_steps_of_the_last_layer_are_shares_of_its_root_mean_square():
    one = started()
    space, end = search_space("heads", one), len(one.parameters) - one.table.count
    x = np.zeros((2, space.size))
    x[0, 9], x[1, 9 + 5] = 1.0, -2.0  # its first weight, and its bias
    moved = space.parameters(x) - one.parameters.double().numpy()
    weights = one.parameters[end - 6 : end - 1].double()
    step = LAST * float(weights.square().mean().sqrt())
    wanted = np.zeros_like(moved)
    wanted[0, end - 6], wanted[1, end - 1] = step, -2 * step
    assert moved == pytest.approx(wanted, abs=1e-12)


def test_a_heads_bias_moves_the_scores_of_that_head_alone():
    one, tokens = started(), torch.randn(1, HEADS, 7, 9, generator=torch.Generator().manual_seed(1))
    space = search_space("heads", one)
    x = space.start()
    x[9 + 6 + 1 * HEADS + 1] = 3.0  # layer 1, head 1
    parameters = space.parameters(x[None])[0]
    for layer in range(LAYERS):
        moved = scores(one, parameters, tokens, layer) - one.score(one.parameters, tokens, layer=layer)
        wanted = torch.zeros_like(moved)
        if layer == 1:
            wanted[:, 1] = 3 * BIAS
        torch.testing.assert_close(moved, wanted, atol=1e-5, rtol=0)


def test_all_else_stays():
    one = started()
    space = search_space("heads", one)
    x = np.random.default_rng(0).normal(size=(5, space.size))
    found = torch.from_numpy(space.parameters(x)).float()
    table, features, hidden = one.table.count, 9, 6
    embeddings = table - LAYERS * HEADS
    assert torch.equal(found[:, -embeddings:], one.parameters[-embeddings:].expand(5, -1))
    first, last = features * hidden, len(one.parameters) - table - 6
    assert torch.equal(found[:, first:last], one.parameters[first:last].expand(5, -1))
    assert (found[:, :first] != one.parameters[:first]).all() and found.shape == (5, len(one.parameters))


def small(host, **changes):
    given = {
        "namm.scorer": "mlp",
        "namm.hidden": [6, 5],
        "namm.features": list(NO_PASS),
        "namm.allocation": "global",
        "namm.head_bias": True,
        "namm.head_embedding": 2,
        "fitness.sharing": "masks",
        "fitness.budgets": [0.2, 0.4],
        "evolution.start": "fit",
        "evolution.space": "heads",
        "evolution.covariance": "diagonal",
        "evolution.sigma": 1.0,
        "fit.prompts": 1,
        "fit.steps": 20,
    }
    return load_evolution_config("namm-universal", [*{**dict(settings(host)), **given, **changes}.items()])


def trajectory(run):
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics()]
    return lines, (run.folder / "namm" / "namm.safetensors").read_bytes()


def quiet(event):
    pass


@pytest.mark.parametrize("changes", [
    {}, {"evolution.space": "all"}, {"evolution.space": "all", "evolution.start": "random"},
], ids=["heads", "all", "random"])  # fmt: skip
def test_a_stopped_run_resumes_to_the_bit(host, tmp_path, changes):
    config = small(host, **changes)
    rows = evolve_namm(config, Options(tmp_path / "a"), quiet)

    def stop(event):
        if isinstance(event, Generation) and event.position.generation == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="generation 2"):
        evolve_namm(config, Options(tmp_path / "b"), stop)
    notes = []
    again = evolve_namm(config, Options(tmp_path / "b", resume=True), notes.append)
    assert Note("resumed after generation 1") in notes
    straight, stopped = (RunStore(tmp_path / name).run(run_name(config)) for name in "ab")
    assert trajectory(stopped) == trajectory(straight)
    facts = [[row for row in found if row.variant != "speed"] for found in (again, rows)]
    assert facts[0] == facts[1]
    chosen = namm.load(straight.folder / "namm")
    assert {row.parameters_namm for row in rows} == {len(chosen.parameters)}


@pytest.mark.parametrize("phase, changes", [
    ("fitting the scorer", {"evolution.space": "all"}), ("measuring head shares", {"namm.allocation": "table"}),
], ids=["fit", "shares"])  # fmt: skip
def test_a_start_can_be_stopped_while_scores_are_computed(host, tmp_path, phase, changes):
    config = small(host, **{**changes, "evolution.generations": 0})

    def stop(event):
        if isinstance(event, Phase) and event.text == phase:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="before the first generation"):
        evolve_namm(config, Options(tmp_path / "stopped"), stop)
    rows = evolve_namm(config, Options(tmp_path / "stopped", resume=True), quiet)
    straight = evolve_namm(config, Options(tmp_path / "straight"), quiet)
    assert [row for row in rows if row.variant != "speed"] == [row for row in straight if row.variant != "speed"]


def test_the_chosen_namm_differs_from_its_start_in_what_is_evolved(host, tmp_path):
    fitted = small(host, **{"evolution.generations": 0})
    evolve_namm(fitted, Options(tmp_path), quiet)
    start = namm.load(RunStore(tmp_path).run(run_name(fitted)).folder / "namm")
    config = small(host, **{"evolution.generations": 2, "evolution.patience": None})
    evolve_namm(config, Options(tmp_path), quiet)
    chosen = namm.load(RunStore(tmp_path).run(run_name(config)).folder / "namm")
    kept = slice(9 * 6, 9 * 6 + 2 * 6)  # the first layer's weights of the embedding
    assert torch.equal(chosen.parameters[kept], start.parameters[kept])
    assert torch.equal(chosen.parameters[-2 * 2 * 2 :], start.parameters[-2 * 2 * 2 :])  # embeddings


def test_zeros_have_nothing_to_adjust(host):
    with pytest.raises(MemxError, match="adjusts initial weights, not zeros") as caught:
        small(host, **{"evolution.start": "zeros"})
    assert "set evolution.start to fit or random" in caught.value.hint
