"""Negative binomial and zero-inflated distributions of counts, with SciPy's method names.

The log-mass is the one that is fitted (:mod:`sc_glm._likelihood.family`); what a fit does not need
is here: tail probabilities, quantiles, moments, random counts and the continuous ranked probability
score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
from scipy import special
from sklearn.utils import check_random_state

from sc_glm._contract.validation import check_numbers
from sc_glm._likelihood.family import Family, NegBinFamily, ZINBFamily
from sc_glm.distributions.random_variates import LARGEST_RATE, negative_binomial
from sc_glm.distributions.tail_probabilities import (
    BLOCK,
    count_predictors,
    half_mean_difference,
    log_mass,
    log_mass_ratio,
    log_tails,
    mean_distance,
    smallest_integer,
    tails,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from sc_glm.distributions.random_variates import RandomSource

    FloatArray: TypeAlias = NDArray[np.float64]

__all__ = ["NB", "ZINB", "CountDistribution"]

# Counts drawn at once: their temporaries stay in the processor's cache.
_DRAWN = 2**14


class CountDistribution(ABC):
    """What :class:`NB` and :class:`ZINB` share: arrays of independent distributions of counts.

    Methods work elementwise on the broadcast of the parameters and their argument, in blocks, so
    that temporaries stay small. Indexing, as in ``dist[rows]`` or ``dist[:, genes]``, selects
    distributions as it would select entries of an array of shape :attr:`shape`.
    """

    _family: ClassVar[Family]

    def __init__(self, **params: ArrayLike) -> None:
        self._params = {name: _read_only(value, name) for name, value in params.items()}
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

    @staticmethod
    @abstractmethod
    def _draw(rng: RandomSource, *params: FloatArray) -> NDArray[np.int64]:
        """Return one random count of each distribution."""

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
        for argument in arguments:
            check_numbers(argument, "The argument")
        arrays = [np.asarray(argument, dtype=np.float64) for argument in arguments]
        arrays += self._params.values()
        result = np.empty(np.broadcast_shapes(*(array.shape for array in arrays)))
        access: Any = [["readonly"]] * len(arrays) + [["writeonly"]]
        iterator = np.nditer(
            [*arrays, result],
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=access,
            order="C",
            buffersize=BLOCK,
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
        return self._map(partial(self._mass, log_mass), k)

    def _mass(
        self, function: Callable[..., FloatArray], y: FloatArray, *params: FloatArray
    ) -> FloatArray:
        """Return a function of the mass, :func:`log_mass` or one with its arguments."""
        return function(self._family, y, self._predictors(*params))

    def unit_deviance(self, y: ArrayLike) -> FloatArray:
        """Return the deviance of each observed count; smaller is better.

        It is twice the distance of :meth:`logpmf` from the largest that any mean (and zero
        inflation) gives that count at the same size, which is at ``mu = y`` without zero inflation.

        Parameters
        ----------
        y : array-like
            Counts, as for :meth:`logpmf`.

        Returns
        -------
        ndarray or float
            The deviance, at least 0; infinite for counts of probability 0.
        """
        return self._map(lambda *at: -2 * self._mass(log_mass_ratio, *at), y)

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
        guess = np.where(guess < LARGEST_RATE, np.maximum(guess, 0.0), mu)
        value[inside] = smallest_integer(reached, guess, q[inside], *(p[inside] for p in params))
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

        Counts that would not fit 64 bits are drawn as the largest that do.

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
            If `size` does not fit :attr:`shape`.
        """
        shape = self.shape if size is None else tuple(np.atleast_1d(size).tolist())
        try:
            fits = np.broadcast_shapes(shape, self.shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"Distributions of shape {self.shape} do not broadcast to {shape}.")
        rng = check_rng(random_state)
        params = [_flat(np.broadcast_to(value, shape)) for value in self._params.values()]
        counts = np.empty(shape, dtype=np.int64)
        flat = counts.reshape(-1)
        for first in range(0, flat.size, _DRAWN):
            some = slice(first, first + _DRAWN)
            flat[some] = self._draw(rng, *(value[some] for value in params))
        return counts[()]


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
    array([[1, 3],
           [0, 7],
           [1, 5]])
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
        return count_predictors(*params)

    @staticmethod
    def _cdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return tails(k, *params)[0]

    @staticmethod
    def _sf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return tails(k, *params)[1]

    @staticmethod
    def _logcdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return log_tails(k, *params)[0]

    @staticmethod
    def _logsf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return log_tails(k, *params)[1]

    @staticmethod
    def _crps(y: FloatArray, *params: FloatArray) -> FloatArray:
        return mean_distance(y, *params) - half_mean_difference(*params)

    @staticmethod
    def _draw(rng: RandomSource, *params: FloatArray) -> NDArray[np.int64]:
        return negative_binomial(rng, *params)


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
    >>> bool(dist.prob_zero() > 0.3 > NB(5.0, 2.0).prob_zero())
    True
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
        # pi = 1 has no finite logit; see _mass.
        return [*count_predictors(*component), np.where(pi < 1, special.logit(pi), 0.0)]

    def _mass(
        self, function: Callable[..., FloatArray], y: FloatArray, *params: FloatArray
    ) -> FloatArray:
        value = super()._mass(function, y, *params)
        certain = (params[-1] == 1) & (y >= 0)
        return np.where(certain, np.where(y == 0, 0.0, -np.inf), value)

    @staticmethod
    def _cdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return pi + (1 - pi) * tails(k, *component)[0]

    @staticmethod
    def _sf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return (1 - pi) * tails(k, *component)[1]

    @staticmethod
    def _logcdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        lower, upper = log_tails(k, *component)
        lower, upper = np.logaddexp(np.log(pi), np.log1p(-pi) + lower), np.log1p(-pi) + upper
        # Near a probability of one, the sum would round where the complement does not.
        return np.where(upper < np.log(0.5), np.log1p(-np.exp(upper)), lower)

    @staticmethod
    def _logsf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return np.log1p(-pi) + log_tails(k, *component)[1]

    @staticmethod
    def _crps(y: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        mu = component[0]
        distance = pi * y + (1 - pi) * mean_distance(y, *component)
        difference = (1 - pi) ** 2 * half_mean_difference(*component) + pi * (1 - pi) * mu
        return distance - difference

    @staticmethod
    def _draw(rng: RandomSource, *params: FloatArray) -> NDArray[np.int64]:
        *component, pi = params
        counts = negative_binomial(rng, *component)
        positive = np.flatnonzero(counts)
        counts[positive[rng.random(positive.size) < pi[positive]]] = 0
        return counts


def _read_only(value: ArrayLike, name: str) -> FloatArray:
    check_numbers(value, name)
    try:
        array = np.asarray(value, dtype=np.float64).view()
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    array.flags.writeable = False
    return array


def _flat(array: FloatArray) -> Any:
    """Return what gives parts of an array in C order, without a copy of the whole."""
    return array.reshape(-1) if array.flags.c_contiguous else array.flat


def _scalar_if_0d(array: FloatArray) -> FloatArray:
    """Return single values as NumPy scalars, as SciPy does."""
    return np.asarray(array)[()]


def check_rng(random_state: int | RandomSource | None) -> RandomSource:
    """Return a source of random numbers as scikit-learn does, and a Generator as it is."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    return check_random_state(random_state)
