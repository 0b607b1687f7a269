"""Negative binomial and zero-inflated distributions of counts, with SciPy's method names.

The log-mass is the one that is fitted (:mod:`sc_glm.family`); what a fit does not need is here:
tail probabilities, quantiles, moments, random counts and the continuous ranked probability score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, cast

import numpy as np
import torch
from scipy import special
from sklearn.utils import check_random_state

from sc_glm.family import Family, NegBinFamily, ZINBFamily, positive_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    FloatArray: TypeAlias = NDArray[np.float64]

__all__ = ["NB", "ZINB", "CountDistribution"]

# Entries worked on at once: the temporaries of a block stay in the processor's cache, and torch
# splits no logarithm of so few over threads, which took ten times longer on a busy machine.
_BLOCK = 2**11

# A size at which the negative binomial is Poisson to the last digit of a double, for any count
# that a double can tell from its neighbours; the square of it does not overflow.
_POISSON_SIZE = 1e40

# NumPy draws no Poisson count with a greater mean: it would not fit 64 bits.
_LARGEST_RATE = 9.2e18

# Below this, tail probabilities lose digits to underflow and their logarithms are summed instead.
_UNDERFLOW = 1e-290


class CountDistribution(ABC):
    """What :class:`NB` and :class:`ZINB` share: arrays of independent distributions of counts.

    Methods work elementwise on the broadcast of the parameters and their argument, in blocks, so
    that temporaries stay small. Indexing, as in ``dist[rows]`` or ``dist[:, genes]``, selects
    distributions as it would select entries of an array of shape :attr:`shape`.
    """

    _family: ClassVar[Family]

    def __init__(self, **params: ArrayLike) -> None:
        self._params = {name: _read_only(value) for name, value in params.items()}
        for name, (valid, condition) in self._conditions().items():
            if not valid.all():
                wrong = self._params[name][~valid].flat[0]
                raise ValueError(f"{name} must be {condition}, got {wrong}.")
        shapes = [value.shape for value in self._params.values()]
        try:
            self._shape = np.broadcast_shapes(*shapes)
        except ValueError as error:
            names = ", ".join(
                f"{name} {shape}" for name, shape in zip(self._params, shapes, strict=True)
            )
            raise ValueError(f"The parameters' shapes do not broadcast: {names}.") from error

    # Hooks: what a distribution adds to the shared methods. Arguments are 1-D, of one length.

    def _conditions(self) -> dict[str, tuple[NDArray[np.bool_], str]]:
        """Return, per parameter, where it is valid and what valid means."""
        return {
            "mu": ((self.mu >= 0) & (self.mu < np.inf), "finite and at least 0"),
            "r": (self.r > 0, "greater than 0 (np.inf is Poisson)"),
        }

    @staticmethod
    @abstractmethod
    def _predictors(*params: FloatArray) -> list[FloatArray]:
        """Return the family's predictors."""

    @staticmethod
    @abstractmethod
    def _cdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        """Return P(X <= k) for integers k >= 0."""

    @staticmethod
    @abstractmethod
    def _sf(k: FloatArray, *params: FloatArray) -> FloatArray:
        """Return P(X > k) for integers k >= 0."""

    @staticmethod
    @abstractmethod
    def _logcdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        """Return log P(X <= k) for integers k >= 0."""

    @staticmethod
    @abstractmethod
    def _logsf(k: FloatArray, *params: FloatArray) -> FloatArray:
        """Return log P(X > k) for integers k >= 0."""

    @staticmethod
    @abstractmethod
    def _crps(y: FloatArray, *params: FloatArray) -> FloatArray:
        """Return E|X - y| - E|X - X'| / 2."""

    # Parameters and shape

    @property
    def mu(self) -> FloatArray:
        """Mean of the negative binomial component."""
        return self._params["mu"]

    @property
    def r(self) -> FloatArray:
        """Size of the negative binomial: its variance is ``mu + mu**2 / r``."""
        return self._params["r"]

    @property
    def overdispersion(self) -> FloatArray:
        """``1 / r``, which DESeq2 and edgeR call dispersion; 0 for a Poisson distribution."""
        return _scalar_if_0d(1.0 / self.r)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of distributions, the broadcast of the parameters."""
        return self._shape

    @property
    def ndim(self) -> int:
        """Number of dimensions of :attr:`shape`."""
        return len(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"A single {type(self).__name__} has no length.")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Self:
        params = {
            name: np.broadcast_to(value, self.shape)[key] for name, value in self._params.items()
        }
        return type(self)(**params)

    def __repr__(self) -> str:
        if self.shape:
            return f"<{type(self).__name__} of shape {self.shape}>"
        params = ", ".join(f"{name}={value:.6g}" for name, value in self._params.items())
        return f"{type(self).__name__}({params})"

    def _map(self, function: Callable[..., FloatArray], *arguments: ArrayLike) -> FloatArray:
        """Apply a function of 1-D arrays to blocks of the broadcast arguments and parameters."""
        arrays = [np.asarray(argument, dtype=np.float64) for argument in arguments]
        arrays += self._params.values()
        result = np.empty(np.broadcast_shapes(*(array.shape for array in arrays)))
        access: Any = [["readonly"]] * len(arrays) + [["writeonly"]]
        iterator = np.nditer(
            [*arrays, result],
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=access,
            order="C",
            buffersize=_BLOCK,
        )
        with iterator, np.errstate(all="ignore"):
            for block in iterator:
                *inputs, out = block
                out[...] = function(*inputs)
        return _scalar_if_0d(result)

    def _on_counts(
        self,
        function: Callable[..., FloatArray],
        k: ArrayLike,
        below: float,
        above: float,
    ) -> FloatArray:
        """Apply a function of integers, with its values below zero and at infinity given."""

        def whole(k: FloatArray, *params: FloatArray) -> FloatArray:
            k = np.floor(k)
            inside = (k >= 0) & (k < np.inf)
            value = function(np.where(inside, k, 0.0), *params)
            value = np.where(inside, value, np.where(k < 0, below, above))
            return np.where(np.isnan(k), np.nan, value)

        return self._map(whole, k)

    # Probabilities

    def logpmf(self, k: ArrayLike) -> FloatArray:
        """Return the logarithm of the probability mass, as it is fitted.

        Parameters
        ----------
        k : array-like
            Counts. Those that are not integers, as ambient-correction tools leave them, get the
            extension of the mass by gamma functions, not SciPy's minus infinity.

        Returns
        -------
        ndarray or float
            The log-mass; minus infinity for negative counts.
        """
        return self._map(self._logpmf, k)

    def _logpmf(self, y: FloatArray, *params: FloatArray) -> FloatArray:
        return _log_mass(self._family, y, self._predictors(*params))

    def saturated_logpmf(self, k: ArrayLike) -> FloatArray:
        """Return the largest log-mass of counts over mean and zero inflation, at the same size.

        It is reached at ``mu = k`` without zero inflation; a deviance is twice its distance to
        :meth:`logpmf`.

        Parameters
        ----------
        k : array-like
            Counts, as for :meth:`logpmf`.

        Returns
        -------
        ndarray or float
            The log-mass; 0 for counts of zero.
        """

        def saturated(y: FloatArray, *params: FloatArray) -> FloatArray:
            value = _outside_support(y)
            value[y == 0] = 0.0
            positive = (y > 0) & (y < np.inf)
            if positive.any():
                counts = positive_counts(torch.from_numpy(y[positive]))
                rho = torch.from_numpy(self._predictors(*params)[1][positive])
                value[positive] = self._family.shape(counts, rho).value.numpy()
            return value

        return self._map(saturated, k)

    def pmf(self, k: ArrayLike) -> FloatArray:
        """Return the probability mass.

        Parameters
        ----------
        k : array-like
            Counts, as for :meth:`logpmf`.

        Returns
        -------
        ndarray or float
            The mass; 0 for negative counts.
        """
        with np.errstate(under="ignore"):
            return np.exp(self.logpmf(k))

    def prob_zero(self) -> FloatArray:
        """Return the probability of a count of zero, sampled or structural.

        Returns
        -------
        ndarray or float
            ``pmf(0)``.
        """
        return self.pmf(0)

    def cdf(self, k: ArrayLike) -> FloatArray:
        """Return the probability of a count of at most `k`.

        Parameters
        ----------
        k : array-like
            Quantiles; the function steps at integers.

        Returns
        -------
        ndarray or float
            The probability, accurate in the far lower tail.
        """
        return self._on_counts(self._cdf, k, 0.0, 1.0)

    def sf(self, k: ArrayLike) -> FloatArray:
        """Return the probability of a count greater than `k`.

        Parameters
        ----------
        k : array-like
            Quantiles; the function steps at integers.

        Returns
        -------
        ndarray or float
            The probability, accurate in the far upper tail, where ``1 - cdf(k)`` is not.
        """
        return self._on_counts(self._sf, k, 1.0, 0.0)

    def logcdf(self, k: ArrayLike) -> FloatArray:
        """Return the logarithm of :meth:`cdf`, finite also where that underflows.

        Parameters
        ----------
        k : array-like
            Quantiles.

        Returns
        -------
        ndarray or float
            The log-probability.
        """
        return self._on_counts(self._logcdf, k, -np.inf, 0.0)

    def logsf(self, k: ArrayLike) -> FloatArray:
        """Return the logarithm of :meth:`sf`, finite also where that underflows.

        Parameters
        ----------
        k : array-like
            Quantiles.

        Returns
        -------
        ndarray or float
            The log-probability.
        """
        return self._on_counts(self._logsf, k, 0.0, -np.inf)

    # Quantiles

    def ppf(self, q: ArrayLike) -> FloatArray:
        """Return the smallest count whose :meth:`cdf` is at least `q`.

        Parameters
        ----------
        q : array-like
            Probabilities.

        Returns
        -------
        ndarray or float
            The quantile, as a float; as in SciPy -1 for ``q = 0``, infinity for ``q = 1`` and
            NaN outside of [0, 1].
        """

        def ppf(q: FloatArray, *params: FloatArray) -> FloatArray:
            return self._quantile(
                q, special.ndtri(q), lambda k, q, *params: self._cdf(k, *params) >= q, *params
            )

        return self._map(ppf, q)

    def isf(self, q: ArrayLike) -> FloatArray:
        """Return the smallest count whose :meth:`sf` is at most `q`.

        Parameters
        ----------
        q : array-like
            Probabilities.

        Returns
        -------
        ndarray or float
            The quantile, as a float; as in SciPy -1 for ``q = 1``, infinity for ``q = 0`` and
            NaN outside of [0, 1].
        """

        def isf(q: FloatArray, *params: FloatArray) -> FloatArray:
            return self._quantile(
                q, -special.ndtri(q), lambda k, q, *params: self._sf(k, *params) <= q, *params
            )

        return self._map(isf, q)

    def _quantile(
        self,
        q: FloatArray,
        z: FloatArray,
        reached: Callable[..., NDArray[np.bool_]],
        *params: FloatArray,
    ) -> FloatArray:
        """Return the smallest count that has reached `q`, searched from a normal guess `z`."""
        value = np.where(z == -np.inf, -1.0, z)  # also infinity and NaN
        inside = np.isfinite(z)
        mu, r = params[0][inside], params[1][inside]
        guess = np.floor(mu + z[inside] * np.sqrt(mu + mu / r * mu))
        guess = np.where(guess < _LARGEST_RATE, np.maximum(guess, 0.0), mu)
        value[inside] = _smallest(reached, guess, q[inside], *(p[inside] for p in params))
        return value

    def median(self) -> FloatArray:
        """Return the smallest count with a :meth:`cdf` of at least one half.

        Returns
        -------
        ndarray or float
            The median.
        """
        return self.ppf(0.5)

    def interval(self, confidence: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return quantiles with equal tail probabilities around the median.

        Parameters
        ----------
        confidence : array-like
            Probability between the two, such as 0.95.

        Returns
        -------
        tuple of ndarray or float
            Lower and upper quantile.
        """
        tail = (1.0 - np.asarray(confidence, dtype=np.float64)) / 2
        return self.ppf(tail), self.ppf(1.0 - tail)

    # Moments

    @abstractmethod
    def mean(self) -> FloatArray:
        """Return the expected count.

        Returns
        -------
        ndarray or float
            The mean, zero inflation included.
        """

    @abstractmethod
    def var(self) -> FloatArray:
        """Return the variance of the count.

        Returns
        -------
        ndarray or float
            The variance, zero inflation included.
        """

    def std(self) -> FloatArray:
        """Return the standard deviation of the count.

        Returns
        -------
        ndarray or float
            The square root of :meth:`var`.
        """
        return np.sqrt(self.var())

    def crps(self, y: ArrayLike) -> FloatArray:
        r"""Return the continuous ranked probability score of observed counts; smaller is better.

        With independent :math:`X, X'` from the distribution it is

        .. math:: \sum_k (F(k) - 1\{y \le k\})^2 = E|X - y| - \tfrac12 E|X - X'|.

        Parameters
        ----------
        y : array-like
            Counts.

        Returns
        -------
        ndarray or float
            The score, in units of counts.
        """
        return self._map(self._crps, y)

    # Random counts

    def rvs(
        self,
        size: int | tuple[int, ...] | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw random counts.

        Parameters
        ----------
        size : int or tuple of int, optional
            Shape of the result, to which :attr:`shape` must broadcast; ``(100, *dist.shape)``
            makes 100 draws of each distribution. By default :attr:`shape`, one draw of each.
        random_state : int, RandomState, Generator or None, default=None
            Source of random numbers; an int makes the draws reproducible, None is NumPy's
            global state.

        Returns
        -------
        ndarray of int64, or int
            The counts.

        Raises
        ------
        ValueError
            If `size` does not fit :attr:`shape`, or a count would not fit 64 bits.
        """
        shape = self.shape if size is None else tuple(np.atleast_1d(size).tolist())
        try:
            fits = np.broadcast_shapes(shape, self.shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"Distributions of shape {self.shape} do not broadcast to {shape}.")
        counts = self._draw(shape, check_rng(random_state))
        return np.asarray(counts, dtype=np.int64)[()]

    def _draw(
        self, shape: tuple[int, ...], rng: np.random.RandomState | np.random.Generator
    ) -> NDArray[Any]:
        """Draw negative binomial counts, a Poisson mixture over gamma rates."""
        poisson = np.isinf(self.r)
        r = np.where(poisson, 1.0, self.r)
        with np.errstate(over="ignore", under="ignore"):
            # Divided by r first: mu / r may overflow where the gamma variate is zero.
            rate = rng.standard_gamma(r, size=shape)
            rate /= r
            if poisson.any():
                rate = np.where(poisson, 1.0, rate)
            rate *= self.mu
        if rate.size and rate.max() > _LARGEST_RATE:
            raise ValueError(
                f"A draw has the Poisson rate {rate.max():.3g}, and counts beyond {_LARGEST_RATE} "
                "do not fit 64 bits: mu is too large, or r too small for it."
            )
        return cast("NDArray[Any]", rng.poisson(rate))


class NB(CountDistribution):
    """Negative binomial distributions of counts.

    Parameters
    ----------
    mu : array-like
        Means, finite and at least 0 (0 is a point mass at zero).
    r : array-like
        Sizes: the variance is ``mu + mu**2 / r``. Greater than 0; ``np.inf`` is Poisson. It is
        the *inverse* of what DESeq2 and edgeR call dispersion (see `overdispersion`), the ``n``
        of :data:`scipy.stats.nbinom` and the ``size`` of R's ``dnbinom``.

    Raises
    ------
    ValueError
        If a parameter is out of range or NaN, or their shapes do not broadcast.

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> dist = NB(mu=[1.0, 5.0], r=2.0)
    >>> dist.var()
    array([ 1.5, 17.5])
    >>> dist.pmf([0, 3]).round(4)
    array([0.4444, 0.119 ])
    >>> dist.ppf(0.95)
    array([ 3., 13.])
    >>> dist.rvs((3, 2), random_state=0)
    array([[2, 1],
           [7, 1],
           [2, 4]])
    """

    _family = NegBinFamily()

    def __init__(self, mu: ArrayLike, r: ArrayLike) -> None:
        super().__init__(mu=mu, r=r)

    def mean(self) -> FloatArray:
        """Return the expected count.

        Returns
        -------
        ndarray or float
            ``mu``.
        """
        return self._map(lambda mu, *_: mu)

    def var(self) -> FloatArray:
        """Return the variance of the count.

        Returns
        -------
        ndarray or float
            ``mu + mu**2 / r``.
        """
        return self._map(lambda mu, r: mu + mu / r * mu)

    @staticmethod
    def _predictors(*params: FloatArray) -> list[FloatArray]:
        return _count_predictors(*params)

    @staticmethod
    def _cdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return _tails(k, *params)[0]

    @staticmethod
    def _sf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return _tails(k, *params)[1]

    @staticmethod
    def _logcdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return _log_tails(k, *params)[0]

    @staticmethod
    def _logsf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return _log_tails(k, *params)[1]

    @staticmethod
    def _crps(y: FloatArray, *params: FloatArray) -> FloatArray:
        return _mean_distance(y, *params) - _half_mean_difference(*params)


class ZINB(CountDistribution):
    """Negative binomial distributions of counts with structural zeros.

    Parameters
    ----------
    mu : array-like
        Means of the negative binomial component, not of the counts, which is ``(1 - pi) * mu``.
    r : array-like
        Sizes of the negative binomial component (see :class:`NB`).
    pi : array-like
        Probabilities of a structural zero, from 0 to 1.

    Raises
    ------
    ValueError
        If a parameter is out of range or NaN, or their shapes do not broadcast.

    Examples
    --------
    >>> from sc_glm.distributions import NB, ZINB
    >>> dist = ZINB(mu=5.0, r=2.0, pi=0.3)
    >>> dist
    ZINB(mu=5, r=2, pi=0.3)
    >>> float(dist.mean())
    3.5
    >>> dist.prob_zero() > 0.3 > NB(5.0, 2.0).prob_zero()
    np.True_
    """

    _family = ZINBFamily()

    def __init__(self, mu: ArrayLike, r: ArrayLike, pi: ArrayLike) -> None:
        super().__init__(mu=mu, r=r, pi=pi)

    @property
    def pi(self) -> FloatArray:
        """Probability of a structural zero."""
        return self._params["pi"]

    def mean(self) -> FloatArray:
        """Return the expected count.

        Returns
        -------
        ndarray or float
            ``(1 - pi) * mu``.
        """
        return self._map(lambda mu, _, pi: (1 - pi) * mu)

    def var(self) -> FloatArray:
        """Return the variance of the count.

        Returns
        -------
        ndarray or float
            ``(1 - pi) * (mu + mu**2 / r + pi * mu**2)``.
        """
        return self._map(lambda mu, r, pi: (1 - pi) * (mu + mu / r * mu + pi * mu * mu))

    def _conditions(self) -> dict[str, tuple[NDArray[np.bool_], str]]:
        return super()._conditions() | {
            "pi": ((self.pi >= 0) & (self.pi <= 1), "at least 0 and at most 1")
        }

    @staticmethod
    def _predictors(*params: FloatArray) -> list[FloatArray]:
        *component, pi = params
        # pi = 1 has no finite logit; see _logpmf.
        return [*_count_predictors(*component), np.where(pi < 1, special.logit(pi), 0.0)]

    def _logpmf(self, y: FloatArray, *params: FloatArray) -> FloatArray:
        value = super()._logpmf(y, *params)
        certain = (params[-1] == 1) & (y >= 0)
        return np.where(certain, np.where(y == 0, 0.0, -np.inf), value)

    @staticmethod
    def _cdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return pi + (1 - pi) * _tails(k, *component)[0]

    @staticmethod
    def _sf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return (1 - pi) * _tails(k, *component)[1]

    @staticmethod
    def _logcdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        lower, upper = _log_tails(k, *component)
        lower, upper = np.logaddexp(np.log(pi), np.log1p(-pi) + lower), np.log1p(-pi) + upper
        # Near a probability of one, the sum would round where the complement does not.
        return np.where(upper < np.log(0.5), np.log1p(-np.exp(upper)), lower)

    @staticmethod
    def _logsf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return np.log1p(-pi) + _log_tails(k, *component)[1]

    @staticmethod
    def _crps(y: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        mu = component[0]
        distance = pi * y + (1 - pi) * _mean_distance(y, *component)
        difference = (1 - pi) ** 2 * _half_mean_difference(*component) + pi * (1 - pi) * mu
        return distance - difference

    def _draw(
        self, shape: tuple[int, ...], rng: np.random.RandomState | np.random.Generator
    ) -> NDArray[Any]:
        counts = super()._draw(shape, rng)
        return np.where(rng.random(shape) < self.pi, 0, counts)


def _read_only(value: ArrayLike) -> FloatArray:
    array = np.asarray(value, dtype=np.float64).view()
    array.flags.writeable = False
    return array


def _scalar_if_0d(array: FloatArray) -> FloatArray:
    """Return single values as NumPy scalars, as SciPy does."""
    return np.asarray(array)[()]


def check_rng(
    random_state: int | np.random.RandomState | np.random.Generator | None,
) -> np.random.RandomState | np.random.Generator:
    """Return a source of random numbers as scikit-learn does, and a Generator as it is."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    return check_random_state(random_state)


def _count_predictors(mu: FloatArray, r: FloatArray) -> list[FloatArray]:
    return [np.log(mu), np.log(np.minimum(r, _POISSON_SIZE))]


def _log_mass(family: Family, y: FloatArray, predictors: list[FloatArray]) -> FloatArray:
    value = _outside_support(y)
    zero, positive = y == 0, (y > 0) & (y < np.inf)
    if zero.any():
        at_zeros = [torch.from_numpy(p[zero]) for p in predictors]
        value[zero] = family.zeros(at_zeros).value.numpy()
    if positive.any():
        counts = positive_counts(torch.from_numpy(y[positive]))
        at_counts = [torch.from_numpy(p[positive]) for p in predictors]
        shape = family.shape(counts, at_counts[1])
        value[positive] = family.positives(counts, at_counts, shape).value.numpy()
    return value


def _outside_support(y: FloatArray) -> FloatArray:
    return np.where(np.isnan(y), np.nan, -np.inf)


def _smallest(
    reached: Callable[..., NDArray[np.bool_]], guess: FloatArray, *arguments: FloatArray
) -> FloatArray:
    """Return the smallest integers from 0 on that have reached, by bisection around a guess."""
    low, high = np.full_like(guess, -1.0), guess.copy()
    step = np.maximum(1.0, np.floor(guess / 64))
    below = np.zeros(guess.shape, dtype=bool)  # has an integer that has not reached been found?
    active = np.arange(guess.size)
    while active.size:
        done = reached(high[active], *(a[active] for a in arguments))
        low[active[~done]] = high[active[~done]]
        below[active[~done]] = True
        active = active[~done]
        high[active] += step[active]
        step[active] *= 2
    step = np.maximum(1.0, np.floor(guess / 64))
    active = np.flatnonzero(~below)
    while active.size:
        trial = high[active] - step[active]
        inside = trial >= 0
        active, trial = active[inside], trial[inside]
        done = reached(trial, *(a[active] for a in arguments))
        low[active[~done]] = trial[~done]
        active = active[done]
        high[active] = trial[done]
        step[active] *= 2
    active = np.arange(guess.size)
    while True:
        middle = np.floor(low[active] + (high[active] - low[active]) / 2)
        # Beyond 2**53 the neighbours of an integer are further than one away.
        between = (middle > low[active]) & (middle < high[active])
        active, middle = active[between], middle[between]
        if not active.size:
            return high
        done = reached(middle, *(a[active] for a in arguments))
        high[active[done]] = middle[done]
        low[active[~done]] = middle[~done]


def _tails(k: FloatArray, mu: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return P(X <= k) and P(X > k) of the negative binomial (NIST DLMF 8.17.24)."""
    r = np.minimum(r, _POISSON_SIZE)
    success, failure = r / (r + mu), mu / (r + mu)
    lower, upper = np.empty_like(k), np.empty_like(k)

    # Each of three forms where it keeps all digits: 1 - success is known only as failure.
    poisson = r == _POISSON_SIZE
    lower[poisson] = special.gammaincc(k[poisson] + 1, mu[poisson])
    upper[poisson] = special.gammainc(k[poisson] + 1, mu[poisson])
    rare = (failure <= 0.5) & ~poisson
    a, b, x = k[rare] + 1, r[rare], failure[rare]
    lower[rare], upper[rare] = special.betaincc(a, b, x), special.betainc(a, b, x)
    common = ~(rare | poisson)
    a, b, x = r[common], k[common] + 1, success[common]
    lower[common], upper[common] = special.betainc(a, b, x), special.betaincc(a, b, x)
    return lower, upper


def _log_tails(k: FloatArray, mu: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the logarithms of `_tails`, also where these underflow."""
    lower, upper = _tails(k, mu, r)
    log_lower = np.where(lower < 0.5, np.log(lower), np.log1p(-upper))
    log_upper = np.where(upper < 0.5, np.log(upper), np.log1p(-lower))
    far = ((lower < _UNDERFLOW) | (upper < _UNDERFLOW)) & (mu > 0)
    if far.any():
        k, mu, r = k[far], mu[far], np.minimum(r[far], _POISSON_SIZE)
        log_mass = _log_mass(NegBinFamily(), k + 1, _count_predictors(mu, r))
        below = k + 1 < mu
        fraction = np.empty_like(k)
        fraction[below] = (k[below] + 1) * _lower_fraction(k[below], mu[below], r[below])
        fraction[~below] = _upper_fraction(k[~below], mu[~below], r[~below])
        log_tail = log_mass + np.log(fraction)
        log_lower[far] = np.where(below, log_tail, 0.0)
        log_upper[far] = np.where(below, 0.0, log_tail)
    return log_lower, log_upper


def _continued_fraction(
    numerator: Callable[[int], FloatArray],
    denominator: Callable[[int], FloatArray | float],
    accuracy: float = 1e-14,
    max_terms: int = 20_000,
) -> FloatArray:
    """Evaluate ``b0 + a1 / (b1 + a2 / (b2 + ...))`` by Lentz's method (NIST DLMF 3.10)."""
    tiny = 1e-100
    value = np.asarray(denominator(0), dtype=np.float64)
    c, d = value, np.zeros_like(value)
    for n in range(1, max_terms):
        a, b = numerator(n), denominator(n)
        d = b + a * d
        d = 1 / np.where(d == 0, tiny, d)
        c = b + a / c
        c = np.where(c == 0, tiny, c)
        factor = c * d
        value = value * factor
        if np.all(np.abs(factor - 1) < accuracy):
            break
    return value


def _upper_fraction(k: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return P(X > k) / P(X = k + 1) for k > mu (NIST DLMF 8.17.22)."""
    a, x = k + 1, mu / (r + mu)

    def numerator(n: int) -> FloatArray:
        m = n // 2
        if n % 2:
            return -(a + m) * ((a + m) * x + r * x) / ((a + 2 * m) * (a + 2 * m + 1))
        return m * (r * x - m * x) / ((a + 2 * m - 1) * (a + 2 * m))

    return 1 / _continued_fraction(numerator, lambda _: np.ones_like(k))


def _lower_fraction(k: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return P(X <= k) / (k + 1) / P(X = k + 1) for k + 1 < mu.

    Didonato and Morris (1992), "Algorithm 708", equations 9 and 10: unlike in the other
    fraction, no term cancels when the size is huge.
    """
    b, x, y = k + 1, r / (r + mu), mu / (r + mu)
    gap = x * (mu - b)

    def numerator(n: int) -> FloatArray:
        scale = (r + n - 1) / (r + 2 * n - 1) * ((r + b + n - 1) / (r + 2 * n - 1))
        return scale * n * (b - n) * x * x

    def denominator(n: int) -> FloatArray:
        rest = (r + n) / (r + 2 * n + 1) * (gap + 1 + n * (1 + y))
        return n + n * (b - n) * x / (r + 2 * n - 1) + rest

    return 1 / _continued_fraction(numerator, denominator)


def _mean_distance(y: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return E|X - y| of the negative binomial.

    ``E[X; X > k] = mu P(X* >= k)`` where ``X*`` has size ``r + 1`` and the same probabilities of
    success, thus the mean ``mu (r + 1) / r``.
    """
    value = mu + np.abs(y)  # for y <= 0
    above = y > 0
    y, mu, r = y[above], mu[above], r[above]
    k = np.floor(y)
    at_least_k = np.where(k > 0, _tails(np.maximum(k - 1, 0), mu + mu / r, r + 1)[1], 1.0)
    value[above] = y - mu + 2 * (mu * at_least_k - y * _tails(k, mu, r)[1])
    return value


def _half_mean_difference(mu: FloatArray, r: FloatArray) -> FloatArray:
    r"""Return E|X - X'| / 2 of the negative binomial.

    For integers ``|d| = (1/2pi) \int (1 - cos d t) / (1 - cos t) dt``, so that the expectation
    is an integral of the squared modulus of the characteristic function. By parts, and with
    ``s = tan(t / 2)`` and ``v = mu / r (1 + mu / r)``, it is

    .. math:: \frac{4 r v}{\pi} \int_0^\infty
        \left(1 + \frac{4 v s^2}{1 + s^2}\right)^{-r-1} \frac{ds}{(1 + s^2)^2}.

    With ``s = c sinh(x)`` the integrand is even and analytic for ``|Im x| < pi / 2``, so that the
    trapezoidal rule converges geometrically.
    """
    r = np.minimum(r, _POISSON_SIZE)
    rv = mu * (1 + mu / r)
    four_v = 4 * rv / r
    c = 1 / np.sqrt(1 + four_v + 4 * rv)
    # Up to where the integrand is negligible: it falls like exp(-3x) once s > 1, and until then
    # like exp(-(2r+1)x), or faster, if it has far to fall.
    last = np.arcsinh(1 / c) + 13
    steep = (r + 1) * np.log1p(four_v / 2) > 40
    last[steep] = np.minimum(last[steep], 18 / (r[steep] + 0.5) + 3)
    step = 1 / 7
    total = np.full_like(mu, 0.5)
    for n in range(1, int(last.max(initial=0.0) / step) + 1):
        x = n * step
        s2 = (c * np.sinh(x)) ** 2
        weight = np.cosh(x) / (1 + s2) ** 2
        total += weight * np.exp(-(r + 1) * np.log1p(four_v * s2 / (1 + s2)))
    return 4 / np.pi * rv * c * step * total
