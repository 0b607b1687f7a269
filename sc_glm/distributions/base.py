"""What all distributions of counts share: parameters, shape, and SciPy's methods.

A distribution adds its parameters and a few hooks, which take 1-D arrays of one length. The shared
methods broadcast, work in blocks, and handle arguments that are not counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
from scipy import special

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import check_numbers
from sc_glm.distributions.docstring_entries import ENTRIES
from sc_glm.distributions.log_mass import BLOCK_ENTRIES, log_mass, log_mass_ratio
from sc_glm.distributions.quantiles import smallest_integer
from sc_glm.distributions.random_variates import LARGEST_RATE, check_rng

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._likelihood.family import Family
    from sc_glm.distributions.random_variates import RandomSource

    FloatArray: TypeAlias = NDArray[np.float64]

__all__ = ["CountDistribution"]

# Number of counts drawn at once: their temporaries stay in the processor's cache.
_DRAWS_PER_BLOCK = 2**14


class CountDistribution(ABC):
    """Base class of arrays of independent count distributions.

    Methods work elementwise on the broadcast of the parameters and their argument. They work in
    blocks, so that temporaries stay small. Indexing, as in ``dist[rows]`` or ``dist[:, genes]``,
    selects distributions as it would select entries of an array of shape :attr:`shape`.

    Parameters
    ----------
    **params : array-like
        Parameters by name, `mu` and `r` among them.

    Raises
    ------
    ValueError
        If a parameter is out of its range or NaN, or the shapes do not broadcast.
    """

    _family: ClassVar[Family]

    def __init__(self, **params: ArrayLike) -> None:
        self._params = {name: _read_only(value, name) for name, value in params.items()}
        for name, (valid, condition) in self._constraints().items():
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

    # Hooks that a distribution implements. Arguments are 1-D, of one length.

    def _constraints(self) -> dict[str, tuple[NDArray[np.bool_], str]]:
        """Return where each parameter is in its range, and the range as part of a message."""
        return {
            "mu": ((self.mu >= 0) & (self.mu < np.inf), "finite and at least 0"),
            "r": (self.r > 0, "greater than 0 (np.inf is Poisson)"),
        }

    @staticmethod
    @abstractmethod
    def _predictors(*params: FloatArray) -> list[FloatArray]:
        """Return the linear predictors that correspond to the parameters."""

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
        """Size of the negative binomial component, whose variance is ``mu + mu**2 / r``."""
        return self._params["r"]

    @property
    def overdispersion(self) -> FloatArray:
        """``1 / r``, which DESeq2 and edgeR call dispersion; 0 for a Poisson distribution."""
        return _scalar_if_0d(1.0 / self.r)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of distributions: the broadcast shape of the parameters."""
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
            buffersize=BLOCK_ENTRIES,
        )
        with iterator, np.errstate(all="ignore"):
            for block in iterator:
                *inputs, out = block
                out[...] = function(*inputs)
        return _scalar_if_0d(result)

    def _map_counts(
        self,
        function: Callable[..., FloatArray],
        k: ArrayLike,
        below: float,
        above: float,
    ) -> FloatArray:
        """Apply a function of counts, given its values below zero and at infinity."""

        def on_all_numbers(k: FloatArray, *params: FloatArray) -> FloatArray:
            k = np.floor(k)
            is_count = (k >= 0) & (k < np.inf)
            value = function(np.where(is_count, k, 0.0), *params)
            value = np.where(is_count, value, np.where(k < 0, below, above))
            return np.where(np.isnan(k), np.nan, value)

        return self._map(on_all_numbers, k)

    # Probabilities

    @documented(ENTRIES)
    def logpmf(self, k: ArrayLike) -> FloatArray:
        """Return the logarithm of the probability mass, the function that a fit maximises.

        Parameters
        ----------
        {k_of_mass}

        Returns
        -------
        ndarray or float
            The log-mass; minus infinity for negative counts.
        """
        return self._map(partial(self._evaluate_mass, log_mass), k)

    def _evaluate_mass(
        self, function: Callable[..., FloatArray], y: FloatArray, *params: FloatArray
    ) -> FloatArray:
        """Return :func:`log_mass` or :func:`log_mass_ratio` at counts and parameters."""
        return function(self._family, y, self._predictors(*params))

    @documented(ENTRIES)
    def unit_deviance(self, y: ArrayLike) -> FloatArray:
        """Return the deviance of each observed count; smaller is better.

        The unit deviance is twice the difference between two values of :meth:`logpmf`. The first
        is the saturated one: the largest that any mean and any zero inflation give the count at the
        same size. It is reached at ``mu = y`` without zero inflation. The second is the model's.

        Parameters
        ----------
        {y}

        Returns
        -------
        ndarray or float
            The deviance, at least 0; infinite for counts of probability 0.
        """
        return self._map(lambda *at: -2 * self._evaluate_mass(log_mass_ratio, *at), y)

    @documented(ENTRIES)
    def pmf(self, k: ArrayLike) -> FloatArray:
        """Return the probability mass.

        Parameters
        ----------
        {k_of_mass}

        Returns
        -------
        ndarray or float
            The mass; 0 for negative counts.
        """
        with np.errstate(under="ignore"):
            return np.exp(self.logpmf(k))

    def prob_zero(self) -> FloatArray:
        """Return the probability of a count of zero, whether sampled or structural.

        Returns
        -------
        ndarray or float
            ``pmf(0)``.
        """
        return self.pmf(0)

    @documented(ENTRIES)
    def cdf(self, k: ArrayLike) -> FloatArray:
        """Return the probability of a count of at most `k`.

        Parameters
        ----------
        {k}

        Returns
        -------
        ndarray or float
            The probability, to full relative accuracy in the far lower tail.
        """
        return self._map_counts(self._cdf, k, 0.0, 1.0)

    @documented(ENTRIES)
    def sf(self, k: ArrayLike) -> FloatArray:
        """Return the probability of a count greater than `k`, the survival function.

        Parameters
        ----------
        {k}

        Returns
        -------
        ndarray or float
            The probability, to full relative accuracy in the far upper tail, where ``1 - cdf(k)``
            loses its digits.
        """
        return self._map_counts(self._sf, k, 1.0, 0.0)

    @documented(ENTRIES)
    def logcdf(self, k: ArrayLike) -> FloatArray:
        """Return the logarithm of :meth:`cdf`, which is finite also where :meth:`cdf` underflows.

        Parameters
        ----------
        {k}

        Returns
        -------
        {log_probability}
        """
        return self._map_counts(self._logcdf, k, -np.inf, 0.0)

    @documented(ENTRIES)
    def logsf(self, k: ArrayLike) -> FloatArray:
        """Return the logarithm of :meth:`sf`, which is finite also where :meth:`sf` underflows.

        Parameters
        ----------
        {k}

        Returns
        -------
        {log_probability}
        """
        return self._map_counts(self._logsf, k, 0.0, -np.inf)

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
            The quantile, as a float. As in SciPy it is -1 for ``q = 0``, infinity for ``q = 1``
            and NaN outside of [0, 1].
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
            The quantile, as a float. As in SciPy it is -1 for ``q = 1``, infinity for ``q = 0``
            and NaN outside of [0, 1].
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
        """Return the smallest count that has reached `q`.

        The search begins at the quantile of a normal distribution, whose standard score is `z`.
        """
        value = np.where(z == -np.inf, -1.0, z)  # infinity and NaN stay as they are
        finite = np.isfinite(z)
        mu, r = params[0][finite], params[1][finite]
        guess = np.floor(mu + z[finite] * np.sqrt(mu + mu / r * mu))
        guess = np.where(guess < LARGEST_RATE, np.maximum(guess, 0.0), mu)
        value[finite] = smallest_integer(reached, guess, q[finite], *(p[finite] for p in params))
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
            Probability between the two quantiles, such as 0.95.

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
            The mean, which includes structural zeros.
        """

    @abstractmethod
    def var(self) -> FloatArray:
        """Return the variance of the count.

        Returns
        -------
        ndarray or float
            The variance, which includes structural zeros.
        """

    def std(self) -> FloatArray:
        """Return the standard deviation of the count.

        Returns
        -------
        ndarray or float
            The square root of :meth:`var`.
        """
        return np.sqrt(self.var())

    @documented(ENTRIES)
    def crps(self, y: ArrayLike) -> FloatArray:
        r"""Return the continuous ranked probability score of observed counts; smaller is better.

        With independent :math:`X, X'` from the distribution, whose distribution function is
        :math:`F`, the score is

        .. math:: \sum_k (F(k) - 1\{y \le k\})^2 = E|X - y| - \tfrac12 E|X - X'|.

        Parameters
        ----------
        {y}

        Returns
        -------
        ndarray or float
            The score, in units of counts.
        """
        return self._map(self._crps, y)

    # Random counts

    @documented(ENTRIES)
    def rvs(
        self,
        size: int | tuple[int, ...] | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw random counts.

        Counts that would not fit into 64 bits are replaced by the largest that do.

        Parameters
        ----------
        size : int or tuple of int, optional
            Shape of the result, to which :attr:`shape` must broadcast: ``(100, *dist.shape)``
            makes 100 draws of each distribution. The default is :attr:`shape`, one draw of each.
        {random_state}

        Returns
        -------
        ndarray of int64, or int
            The counts.

        Raises
        ------
        ValueError
            If :attr:`shape` does not broadcast to `size`.
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
        for first in range(0, flat.size, _DRAWS_PER_BLOCK):
            block = slice(first, first + _DRAWS_PER_BLOCK)
            flat[block] = self._draw(rng, *(value[block] for value in params))
        return counts[()]


def _read_only(value: ArrayLike, name: str) -> FloatArray:
    """Return a parameter as a read-only array of floats."""
    check_numbers(value, name)
    try:
        array = np.asarray(value, dtype=np.float64).view()
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    array.flags.writeable = False
    return array


def _flat(array: FloatArray) -> Any:
    """Return an object whose slices are parts of an array in C order, without a copy of it."""
    return array.reshape(-1) if array.flags.c_contiguous else array.flat


def _scalar_if_0d(array: FloatArray) -> FloatArray:
    """Return single values as NumPy scalars, as SciPy does."""
    return np.asarray(array)[()]
