"""pycma fenced in: settings -> a strategy that asks and tells; its state -> arrays, and back to the bit.

Left to itself pycma takes seed 0 for the clock, seeds numpy's global generator and draws from it, evaluates options
that are strings, reads and writes files of the working directory, and sets warning filters. Here it gets a generator of
its own and no string that a user wrote, and what is global is put back after each call.

Why pycma, whose private attributes a state consists of, and not the smaller package cmaes (0.13: SepCMA, CMA):

- Results are alike. Median of five seeds, 32 candidates, from zeros with sigma 0.3: Rosenbrock in 10 dimensions after
  200 generations 5.0 and 4.9 (diagonal), 0.0020 and 0.0015 (full), in 40 after 600 31 and 33, 28 and 28; the sphere
  ends below 1e-14 with both. Of 12 generations of namm-tiny, seeds 0 and 1, the best mean validates at 0.96 and 1.07,
  with cmaes at 0.99 and 1.05.
- Time is alike where memx is used: 8 ms of CPU for ask and tell of 32 diagonal candidates of 4,172 numbers, cmaes 6. A
  full covariance of 1,000 numbers takes 55 ms, cmaes 2,800, as it decomposes it in every generation.
- A pickled cmaes strategy draws other numbers than the one that it was pickled from: its generator is left out, so that
  exact resuming would need private attributes there too. It has no two-point step size, and its `should_stop` takes
  flat fitness for an end and does not say why it stops.
- Saved evolutions of older versions must go on to the same bits.

Source: Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772); Ros and Hansen 2008 for the diagonal one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import inf, nan
from operator import attrgetter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Covariance = Literal["diagonal", "full"]
StepSize = Literal["tpa", "csa"]
# what a strategy is between a tell and the next ask, as attributes of pycma's
_STATE = (
    "countiter",
    "countevals",
    "sigma",
    "mean",
    "pc",
    "pc2",
    "sigma_vec.scaling",
    "sigma_vec.is_identity",
    "adapt_sigma.delta",
    "adapt_sigma._ps_updated_iteration",
    "_stoptolxstagnation.x",
    "_stoptolxstagnation.count",
    "_stoptolxstagnation.count_x",
)
_FULL = ("sm.C", "sm.B", "sm.D", "sm.count_tell", "sm.last_update", "sm.count_eigen")
_BEGIN_AS_WHOLE = ("adapt_sigma.delta", "adapt_sigma.s")  # numbers that are 0 or 1 before the first tell, no floats yet
_PATH, _DIRECTIONS = "adapt_sigma.ps", "pop_injection_directions"


@dataclass(frozen=True)
class Settings:
    """What a strategy is made of: see `memx.namm.Evolution`."""

    n: int
    population: int
    sigma: float
    seed: int
    covariance: Covariance
    step_size: StepSize
    eigen_every: int | None

    def __post_init__(self) -> None:
        assert self.n > 1 and self.population > 3 and self.seed >= 0, self
        assert 0 < self.sigma < inf, self.sigma


class Strategy:
    """pycma's evolution strategy, which minimises, with a random generator of its own."""

    def __init__(self, settings: Settings, mean: Array) -> None:
        assert mean.shape == (settings.n,), (mean.shape, settings.n)
        self.settings = settings
        self.rng = np.random.Generator(np.random.PCG64(settings.seed))
        with _fence():
            cma = import_module("cma")
            self.es = cma.CMAEvolutionStrategy(mean.astype(float), settings.sigma, self._options(cma))
            self.es.timer = cma.utilities.utils.ElapsedWCTime()  # which only a first ask would make

    def ask(self) -> list[Array]:
        """New candidates: population of [n]. May be called once before each tell."""
        with _fence():
            return self.es.ask()

    def tell(self, candidates: list[Array], losses: Sequence[float]) -> None:
        """Learn from the candidates of the last ask; the less, the better."""
        with _fence():
            self.es.tell(candidates, list(losses))

    def stops(self) -> tuple[str, ...]:
        """Names of pycma's stop conditions that hold; only after a tell."""
        with _fence():
            return tuple(sorted(self.es.stop()))

    def arrays(self) -> dict[str, Array]:
        """The state between a tell and the next ask; those of a full covariance are not copied."""
        arrays = {name: np.asarray(attrgetter(name)(self.es)) for name in self._names()}
        arrays[_PATH] = np.asarray(getattr(self.es.adapt_sigma, "ps", np.zeros(self.settings.n)))  # tpa makes it late
        directions = getattr(self.es, _DIRECTIONS)
        arrays[_DIRECTIONS] = np.array(directions, dtype=float).reshape(-1, self.settings.n)  # a copy: ask changes them
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take on a state. Raises ValueError if it is not one of this strategy's."""
        wanted = (*self._names(), _PATH, _DIRECTIONS)
        if sorted(wanted) != sorted(arrays):
            raise ValueError(f"missing or unexpected arrays: {', '.join(sorted(set(wanted) ^ set(arrays)))}")
        for name in wanted:
            self._check(name, arrays[name])
        for name in self._names():
            self._put(name, arrays[name])
        self.es.adapt_sigma.ps = arrays[_PATH].copy()
        setattr(self.es, _DIRECTIONS, [direction.copy() for direction in arrays[_DIRECTIONS]])
        self.es.mean_after_tell[:] = self.es.mean
        self.es.mean_old = self.es.mean  # of which tell wants the attribute alone
        self.es._updateBDfromSM(self.es.sm)

    def _names(self) -> tuple[str, ...]:
        full = _FULL if self.settings.covariance == "full" else ()
        return _STATE + full + (("adapt_sigma.s",) if self.settings.step_size == "tpa" else ())

    def _check(self, name: str, array: Array) -> None:
        n = self.settings.n
        shapes: dict[str, tuple[tuple[int, ...], ...]] = {
            "sigma_vec.scaling": ((), (n,)),
            _PATH: ((n,),),
            _DIRECTIONS: ((0, n), (2, n)),
        }
        allowed = shapes.get(name) or (np.shape(attrgetter(name)(self.es)),)
        if array.shape not in allowed:
            raise ValueError(f"{name} has shape {list(array.shape)}, not {list(allowed[-1])}")
        own = np.float64 if name in (_PATH, _DIRECTIONS) else np.asarray(attrgetter(name)(self.es)).dtype
        if array.dtype != own and not (name in _BEGIN_AS_WHOLE and array.dtype == np.float64):
            raise ValueError(f"{name} is {array.dtype}, not {np.dtype(own)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} contains values that are not finite")

    def _put(self, name: str, array: Array) -> None:
        *owner, last = name.split(".")
        holder = attrgetter(".".join(owner))(self.es) if owner else self.es
        if isinstance(getattr(holder, last), np.ndarray):
            setattr(holder, last, array.copy(order="K"))
        else:
            setattr(holder, last, np.float64(array) if array.dtype.kind == "f" else array.item())

    def _options(self, cma: Any) -> dict[str, Any]:
        adaptation = cma.sigma_adaptation
        step_sizes = {"tpa": adaptation.CMAAdaptSigmaTPA, "csa": adaptation.CMAAdaptSigmaCSA}
        return {
            "popsize": self.settings.population,
            "CMA_diagonal": self.settings.covariance == "diagonal",
            "AdaptSigma": step_sizes[self.settings.step_size],
            "updatecovwait": self.settings.eigen_every,
            "randn": lambda *shape: self.rng.standard_normal(shape),
            "seed": nan,  # "do nothing": neither the clock nor numpy's global generator
            "CMA_mirrors": 0,
            # a badly conditioned full covariance would else move into a transformation of the parameters
            "conditioncov_alleviate": None,
            # Each generation has prompts of its own, so that fitness says nothing across generations; a discrete one
            # is often the same for a whole population. Only the distribution itself is a reason to stop.
            "tolflatfitness": inf,
            "tolfun": 0,
            "tolfunhist": 0,
            "tolfunrel": 0,
            "tolstagnation": 0,
            "maxiter": inf,
            "verbose": -9,
            "verb_disp": 0,
            "verb_log": 0,
            "signals_filename": None,
        }


@contextmanager
def _fence() -> Iterator[None]:
    """Put back what pycma changes of numpy and of the warning filters; what it warns of is for its own authors."""
    before = np.random.get_state(legacy=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(before)
