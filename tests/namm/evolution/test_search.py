"""Evolution: it finds what is best, depends on nothing but its settings and the fitness, and goes on after any stop."""

import hashlib
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from memx.errors import MemxError
from memx.namm import Evolution, evolve, load_evolution, save_evolution
from memx.namm.evolution.evolve import GenerationDone, MeanValidated, StageEnded, most_sigma
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as array_bytes

KINDS = [("diagonal", "csa"), ("diagonal", "tpa"), ("full", "csa"), ("full", "tpa")]
TARGET = np.linspace(-1, 1, 10)
# of pycma's attributes: made anew from the settings or by ask and tell, or for its reports alone
RECORDS = """
    _sigma_old _tell2_args ary best fit pop_sorted _is_independent_sample timer x0 _isotropic_mean_shift
    _isotropic_mean_shift_iteration mean_old mean_old_old _stopdict sp0 evaluations_per_f_value number_of_injections
    number_of_injections_delivered noiseS mean0 inputargs inopts opts logger sent_solutions archive itereigenupdated
    _last_multiplier _last_z is_initialized_base cs _es_opts randn sigma_vec0
    _bounds_dict _parameters _mueff _lam _lenhist pop params
"""


def sphere(vectors, generation=0):
    """Best at TARGET (or a longer line from -1 to 1), where it is 0."""
    return -((vectors - np.linspace(-1, 1, vectors.shape[1])) ** 2).sum(axis=1)


def ellipsoid(vectors, generation=0):
    """Condition 1e4, along axes that are no coordinates."""
    turn, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((10, 10)))
    return -(((vectors - TARGET) @ turn) ** 2 * np.logspace(0, 4, 10)).sum(axis=1)


def noisy(vectors, generation):
    """Prompts of its own in each generation."""
    return sphere(vectors) + np.random.default_rng(generation).standard_normal(len(vectors))


def made(covariance="diagonal", step_size="csa", n=10, **others):
    return Evolution(n, covariance=covariance, step_size=step_size, **others)


def trajectory(evolution, steps, fitness=noisy):
    """What is asked and learnt in some generations, as bytes."""
    seen = []
    for _ in range(steps):
        candidates = evolution.ask()
        evolution.tell(fitness(candidates, evolution.generation))
        seen.append((candidates.tobytes(), evolution.mean.tobytes(), evolution.sigma, evolution.history[-1]))
    return seen


@pytest.mark.parametrize(("covariance", "step_size"), KINDS)
def test_it_finds_the_largest_fitness(covariance, step_size):
    evolution = made(covariance, step_size, sigma=0.3)
    for _ in range(90):
        evolution.step(sphere)
    assert sphere(evolution.mean[None])[0] > -1e-4
    assert evolution.best is not None and evolution.best.fitness == max(one.best for one in evolution.history)
    assert sphere(evolution.best.vector[None])[0] == evolution.best.fitness


def test_a_full_covariance_learns_axes_that_a_diagonal_one_cannot():
    reached = {}
    for covariance in ("diagonal", "full"):
        evolution = made(covariance, sigma=0.3)
        for _ in range(150):
            evolution.step(ellipsoid)
        reached[covariance] = -ellipsoid(evolution.mean[None])[0]
    assert reached["full"] < 1e-6 < reached["diagonal"]


def test_the_defaults_are_those_of_the_paper_and_start_from_zeros():
    evolution = Evolution(4172)
    assert (evolution.settings.population, evolution.sigma) == (32, 0.065)
    assert (evolution.settings.covariance, evolution.settings.step_size) == ("diagonal", "tpa")
    assert Evolution(10).settings.step_size == "csa"
    assert not evolution.mean.any()
    candidates = evolution.ask()
    assert candidates.shape == (32, 4172) and candidates.dtype == np.float64
    assert candidates.std() == pytest.approx(0.065, rel=0.01)
    assert (Evolution(3, mean=[1, 2, 3]).mean == [1, 2, 3]).all()


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_equal_seeds_give_equal_trajectories_and_zero_is_a_seed(seed):
    np.random.seed(1)
    first = trajectory(made(seed=seed), 5)
    np.random.seed(2)
    assert trajectory(made(seed=seed), 5) == first
    assert trajectory(made(seed=seed + 1), 5)[0] != first[0]


@pytest.mark.parametrize(("covariance", "step_size"), KINDS)
def test_nothing_global_changes_or_is_heard(covariance, step_size, tmp_path, monkeypatch, capfd):
    (tmp_path / "cma_signals.in").write_text("{'timeout': 0}")
    monkeypatch.chdir(tmp_path)
    expected = trajectory(made(covariance, step_size), 5)
    np.random.seed(3)
    numpy_before, torch_before, python_before = np.random.get_state(), torch.get_rng_state(), random.getstate()
    filters = list(warnings.filters)
    evolution = made(covariance, step_size)
    for number in range(5):
        candidates = evolution.ask()
        np.random.rand(7)  # as a fitness might
        evolution.tell(noisy(candidates, number))
        save_evolution(evolution, tmp_path / "saved")
        np.random.seed(3)
    for before, after in zip(numpy_before, np.random.get_state(), strict=True):
        assert np.array_equal(before, after)
    assert torch.equal(torch_before, torch.get_rng_state()) and random.getstate() == python_before
    assert warnings.filters == filters
    assert evolution.mean.tobytes() == expected[-1][1] and not evolution.stopped
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cma_signals.in", "saved"]
    assert capfd.readouterr() == ("", "")


def test_pycma_leaves_the_generators_alone_between_ask_and_tell():
    np.random.seed(4)
    np.random.rand(3)
    before = np.random.get_state()[2]
    evolution = made(step_size="tpa")  # which draws its checks from the global generator
    for number in range(4):
        evolution.step(noisy)
        assert np.random.get_state()[2] == before, number


def test_a_working_directory_that_nobody_may_write_to(tmp_path):
    """As a user without rights, where that is possible, and with files that pycma would read or write."""
    tmp_path.chmod(0o555)
    code = "import memx.namm as n; e = n.Evolution(300)\nfor _ in range(3): e.step(lambda v, g: v[:, 0])"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    tmp_path.chmod(0o755)
    assert (result.returncode, result.stderr, [*tmp_path.iterdir()]) == (0, "", [])


@pytest.mark.parametrize(("covariance", "step_size"), KINDS)
def test_flat_fitness_does_not_stop_it(covariance, step_size):
    evolution = made(covariance, step_size)
    outcome = evolve(evolution, lambda vectors, generation: np.ones(32), generations=40)
    assert (outcome.reason, evolution.generation, evolution.stopped) == ("generations", 40, ())
    assert 0.005 < evolution.sigma < 0.5


def test_a_distribution_that_shrank_to_nothing_stops_it_and_says_so():
    events = []
    outcome = evolve(made(sigma=0.1), sphere, generations=3000, on_event=events.append)
    assert outcome.reason == "tolx" and outcome.generation < 3000
    assert events[-1] == StageEnded(outcome.generation, 0, "tolx")


def test_asking_again_gives_the_same_candidates_and_they_are_the_callers_own():
    evolution, straight = made(), made()
    first = evolution.ask()
    kept = first.copy()
    first[:] = np.nan
    assert (evolution.ask() == kept).all()
    evolution.tell(sphere(kept))
    straight.step(sphere)
    assert (evolution.mean == straight.mean).all()


@pytest.mark.parametrize(("covariance", "step_size"), KINDS)
@pytest.mark.parametrize(("after", "asked"), [(0, False), (1, True), (3, False), (3, True)])
def test_a_saved_evolution_goes_on_to_the_bit(covariance, step_size, after, asked, tmp_path):
    others = {"n": 50, "seed": 5}
    straight = trajectory(made(covariance, step_size, **others), after + 20)
    evolution = made(covariance, step_size, **others)
    trajectory(evolution, after)
    if asked:
        evolution.ask()
    save_evolution(evolution, tmp_path)
    restored = load_evolution(tmp_path)
    assert restored.history == evolution.history and restored.settings == evolution.settings
    assert trajectory(restored, 20) == straight[after:]
    assert trajectory(evolution, 20) == straight[after:]


def test_of_pycma_nothing_but_records_is_left_behind(tmp_path):
    """A new attribute of pycma's that a resumed strategy lacks has to be looked at."""
    records = set(RECORDS.split())
    for covariance, step_size in KINDS:
        evolution = made(covariance, step_size, n=20)
        trajectory(evolution, 7)
        save_evolution(evolution, tmp_path / covariance / step_size)
        restored = load_evolution(tmp_path / covariance / step_size)
        assert [*differences(evolution._strategy.es, restored._strategy.es, records)] == []


def differences(one, other, leave, place="es"):
    """Where two objects differ, by attribute."""
    if isinstance(one, np.ndarray):
        if not np.array_equal(one, other) or one.flags.f_contiguous != other.flags.f_contiguous:
            yield place
    elif type(one).__module__.startswith("cma") and hasattr(one, "__dict__"):
        for name in (vars(one).keys() | vars(other).keys()) - leave:
            if not (hasattr(one, name) and hasattr(other, name)):
                yield f"{place}.{name}"
            else:
                yield from differences(getattr(one, name), getattr(other, name), leave, f"{place}.{name}")
    elif isinstance(one, list):
        if len(one) != len(other):
            yield place
        for index, (mine, theirs) in enumerate(zip(one, other, strict=False)):
            yield from differences(mine, theirs, leave, f"{place}[{index}]")
    elif not callable(one) and one != other:
        yield place


def test_resuming_at_the_size_of_a_namm(tmp_path):
    """4,172 parameters, diagonal: the same 20 generations, from less than a megabyte."""
    evolution = Evolution(4172)
    trajectory(evolution, 3)
    save_evolution(evolution, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000
    assert trajectory(load_evolution(tmp_path), 20) == trajectory(evolution, 20)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "where"), [(RuntimeError, "fitness"), (KeyboardInterrupt, "validate"), (Killed, "save")]
)
def test_a_run_that_dies_anywhere_goes_on_to_the_same_answer(error, where, tmp_path, monkeypatch):
    def run(evolution, deaths, folder, events):
        calls = 0

        def dying(value):
            nonlocal calls
            calls += 1
            if calls in deaths:
                raise error
            return value

        def fitness(vectors, generation):
            return dying(noisy(vectors, generation)) if where == "fitness" else noisy(vectors, generation)

        def validate(mean):
            value = float(sphere(mean[None])[0])
            return dying(value) if where == "validate" else value

        if where == "save":
            replace = Path.replace
            monkeypatch.setattr(Path, "replace", lambda path, target: dying(None) or replace(path, target))
        arguments = {"generations": 8, "validate": validate, "validate_every": 3, "patience": 9}
        try:
            return evolve(evolution, fitness, **arguments, save=folder, on_event=events.append)
        finally:
            monkeypatch.undo()

    expected = run(made(), (), tmp_path / "straight", [])
    folder, outcome, deaths = tmp_path / "run", None, 0
    while outcome is None:
        evolution = load_evolution(folder) if (folder / "evolution.json").exists() else made()
        try:
            outcome = run(evolution, (2,) if where == "validate" else (4,), folder, [])
        except error:
            deaths += 1
    assert deaths > 1
    assert (outcome.reason, outcome.generation, outcome.validation) == (
        expected.reason, expected.generation, expected.validation)  # fmt: skip
    assert outcome.mean.tobytes() == expected.mean.tobytes()
    straight, run_on = (load_evolution(tmp_path / name) for name in ("straight", "run"))
    assert straight.validations == run_on.validations and straight.history == run_on.history
    assert trajectory(straight, 3) == trajectory(run_on, 3)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]


def test_the_answer_is_the_mean_that_validated_best_and_patience_ends_a_stage():
    events, scores = [], iter([0.0, 1.0, 3.0, 3.0, 2.0, 1.0, 9.0])
    evolution = made()
    outcome = evolve(evolution, sphere, generations=100, validate=lambda mean: next(scores), validate_every=2,
                     patience=3, on_event=events.append)  # fmt: skip
    assert (outcome.reason, outcome.generation, outcome.validation) == ("patience", 4, 3.0)
    straight = made()
    trajectory(straight, 4, sphere)
    assert (outcome.mean == straight.mean).all()
    assert [one.generation for one in evolution.validations] == [0, 2, 4, 6, 8, 10]
    assert [event.improved for event in events if isinstance(event, MeanValidated)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    generations = [event for event in events if isinstance(event, GenerationDone)]
    assert [event.generation for event in generations] == [*range(1, 11)]
    done = [(one.best, one.mean, one.std, one.sigma) for one in generations]
    assert done == [(one.best, one.mean, one.std, one.sigma) for one in evolution.history]
    again = evolve(evolution, sphere, generations=100, validate=lambda mean: next(scores), validate_every=2, patience=3)
    assert again.reason == "patience" and evolution.generation == 10


def test_validation_is_not_training_and_the_last_mean_is_validated():
    with_it, without = made(), made()
    asked = []
    outcome = evolve(with_it, noisy, generations=7, validate=lambda mean: asked.append(mean) or len(asked))
    assert outcome.generation == 7 and len(asked) == 2 and not asked[0].any()
    plain = evolve(without, noisy, generations=7)
    assert plain.validation is None and (plain.mean == outcome.mean).all()
    assert (plain.mean == without.mean).all()


def test_stages_go_on_from_the_whole_state(tmp_path):
    def run(evolution, stop_after=None):
        evolve(evolution, noisy, generations=6, validate=lambda mean: 1.0, save=tmp_path)
        if evolution.stage == 0:
            evolution.next_stage()
        if stop_after:
            evolve(evolution, noisy, generations=stop_after, save=tmp_path)
            evolution = load_evolution(tmp_path)
        evolve(evolution, noisy, generations=6)
        return evolution

    staged, stopped, straight = run(made()), run(made(), stop_after=2), made()
    seen = trajectory(straight, 12)
    assert (staged.generation, staged.stage, staged.began) == (12, 1, 6)
    assert staged.mean.tobytes() == stopped.mean.tobytes() == seen[-1][1]
    assert [one.stage for one in staged.history] == [0] * 6 + [1] * 6
    assert staged.validated is None and staged.best is not None and staged.best.generation >= 6


def test_a_stage_can_start_with_another_step_size():
    evolution = made()
    trajectory(evolution, 5)
    mean = evolution.mean
    evolution.next_stage(sigma=0.5)
    assert evolution.sigma == 0.5 and (evolution.mean == mean).all() and evolution.best is None
    assert (evolution.ask() - mean).std() == pytest.approx(0.5, rel=0.3)


def test_a_bound_lowers_the_step_size_along_a_cosine_and_resumes_to_the_bit(tmp_path):
    start, end, count = 0.4, 0.1, 12
    bounds = [end + (start - end) * (1 + np.cos(np.pi * done / count)) / 2 for done in range(1, count + 1)]
    free, bound, stopped = (made(n=40, sigma=start, population=8) for _ in range(3))
    evolve(free, noisy, generations=count)
    evolve(bound, noisy, generations=count, sigma_end=end)
    assert min(one.sigma for one in free.history) > end  # by itself it would have stayed above
    found = [one.sigma for one in bound.history]
    assert all(sigma <= most + 1e-12 for sigma, most in zip(found, bounds, strict=True))
    assert found[-1] == pytest.approx(end) and found[0] == pytest.approx(bounds[0], rel=0.1)
    ask = bound.ask() - bound.mean
    assert ask.std() < 1.3 * end  # and candidates are drawn with it

    def fails(vectors, generation):
        if generation == 7:
            raise KeyboardInterrupt
        return noisy(vectors, generation)

    with pytest.raises(KeyboardInterrupt):
        evolve(stopped, fails, generations=count, sigma_end=end, save=tmp_path)
    again = load_evolution(tmp_path)
    evolve(again, noisy, generations=count, sigma_end=end)
    assert again.mean.tobytes() == bound.mean.tobytes() and again.sigma == bound.sigma
    # a smaller step size that CMA-ES found stays
    small = made(n=40, sigma=0.01)
    small.step(noisy, most_sigma=1.0)
    assert small.sigma < 0.02
    assert most_sigma(small, 5, None) is None


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_fitness_that_is_no_number_names_the_candidate_and_teaches_nothing(wrong):
    evolution, straight = made(), made()
    trajectory(evolution, 2)
    values = sphere(evolution.ask())
    values[5] = wrong
    with pytest.raises(MemxError, match=f"candidate 5 in generation 2 is {wrong}"):
        evolution.step(lambda vectors, generation: values)
    trajectory(straight, 2)
    assert trajectory(evolution, 3) == trajectory(straight, 3)
    with pytest.raises(MemxError, match=f"validation fitness after 5 generations is {wrong}"):
        evolution.record_validation(wrong)


def test_wrong_shapes_and_orders_are_programming_mistakes():
    evolution = made()
    with pytest.raises(AssertionError, match="ask first"):
        evolution.tell(np.zeros(32))
    for shape in ((31,), (32, 1), ()):
        with pytest.raises(AssertionError):
            evolution.step(lambda vectors, generation, shape=shape: np.zeros(shape))
    with pytest.raises(AssertionError, match="tell first"):
        evolution.next_stage()
    evolution.step(lambda vectors, generation: torch.ones(32))  # a tensor will do
    for arguments in ({"n": 1}, {"sigma": 0.0}, {"seed": -1}, {"population": 2}, {"mean": np.zeros(9)}):
        with pytest.raises(AssertionError):
            made(**arguments)
    with pytest.raises(AssertionError, match="patience"):
        evolve(evolution, sphere, generations=1, patience=1)


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path):
    with pytest.raises(MemxError, match="is not a folder"):
        load_evolution(tmp_path / "none")
    with pytest.raises(MemxError, match=r"contains no evolution\.json"):
        load_evolution(tmp_path)
    evolution = made()
    evolution.step(sphere)
    save_evolution(evolution, tmp_path)
    record = tmp_path / "evolution.json"
    (arrays,) = tmp_path.glob("*.safetensors")
    text, data = record.read_text(), arrays.read_bytes()
    for old, new, message in (
        ('"format": 1', '"format": 2', "format version is 2"),
        ('"cma": "', '"cma": "0', "saved with cma 0"),
        ('"csa"', '"tpa"', "adapt_sigma.s"),
        ('"csa"', '"other"', "settings.step_size"),
        ('"n": 10', '"n": 11', r"not float64 \[11\]"),
        ('"PCG64"', '"MT19937"', "PCG64"),
        ("{", "", "not JSON"),
        (text, "[" * 9999, "evolution.json: nested deeper"),
        ("{", '{"format": 1,', "the key 'format' occurs twice"),
    ):
        record.write_text(text.replace(old, new, 1))
        with pytest.raises(MemxError, match=message):
            load_evolution(tmp_path)
    record.write_text(text)
    arrays.write_bytes(data[:-1] + b"x")
    with pytest.raises(MemxError, match="does not match its checksum"):
        load_evolution(tmp_path)
    arrays.unlink()
    with pytest.raises(MemxError, match="contains no evolution-00000001"):
        load_evolution(tmp_path)


def with_array(folder, change):
    """Change the arrays of a saved evolution, whose checksum is that of the changed ones."""
    (path,), record = folder.glob("*.safetensors"), folder / "evolution.json"
    arrays = read_arrays(path.read_bytes())
    change(arrays)
    path.write_bytes(array_bytes(arrays))
    record.write_text(
        json.dumps(json.loads(record.read_text()) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update({"cma.mean": a["cma.mean"].astype(np.float32)}), "mean is float32, not float64"),
        (lambda a: a.update({"cma.mean": a["cma.mean"].astype(np.int64)}), "mean is int64, not float64"),
        (lambda a: a.update({"cma.countiter": a["cma.countiter"].astype(float)}), "countiter is float64, not int64"),
        (lambda a: a.update({"cma.sigma": np.array(np.nan)}), "sigma contains values that are not finite"),
        (lambda a: a["best"].fill(np.nan), "best contains values that are not finite"),
        (lambda a: a["history"].fill(np.nan), "history contains values that are not finite"),
        (lambda a: a["validations"].fill(np.inf), "validations contains values that are not finite"),
        (lambda a: a.update(best=a["best"][:3].copy()), r"best is float64 \[3\], not float64 \[10\]"),
        (lambda a: a.update(validated=a["validated"].astype(np.int8)), "validated is int8"),
        (
            lambda a: a.update(history=a["history"][:, :2].copy()),
            r"history is float64 \[2, 2\], not float64 \[any, 6\]",
        ),
        (lambda a: a.pop("best"), "best is missing"),
        (lambda a: a.pop("history"), "history is missing"),
        (lambda a: a.update(other=np.zeros(2)), "missing or unexpected arrays: other"),
    ],
)
def test_arrays_that_no_evolution_has_are_refused_by_name(tmp_path, change, message):
    evolution = made()
    evolution.step(sphere)
    evolution.record_validation(1.0)
    evolution.step(sphere)
    save_evolution(evolution, tmp_path)
    with_array(tmp_path, lambda arrays: None)
    assert np.array_equal(load_evolution(tmp_path).mean, evolution.mean)
    with_array(tmp_path, change)
    with pytest.raises(MemxError, match=f"cannot load the evolution in .*: {message}"):
        load_evolution(tmp_path)


def test_a_disk_that_refuses_is_said_in_one_line_and_the_old_state_stays(tmp_path, monkeypatch):
    evolution = made()
    evolution.step(sphere)
    save_evolution(evolution, tmp_path)
    evolution.step(sphere)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MemxError, match="No space left"):
        save_evolution(evolution, tmp_path)
    monkeypatch.undo()
    assert load_evolution(tmp_path).generation == 1
    assert len([*tmp_path.iterdir()]) == 2


def test_importing_it_imports_neither_torch_nor_cma():
    code = "import sys, memx.namm.evolution.evolve; sys.exit('torch' in sys.modules or 'cma' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
