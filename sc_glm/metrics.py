"""Scores of predicted distributions of counts, as functions and as scorers.

The functions take counts and an :class:`~sc_glm.distributions.NB` or
:class:`~sc_glm.distributions.ZINB` object, as ``predict_dist`` returns it. Otherwise they follow
scikit-learn's regression metrics. The scorers are values for ``scoring=`` of
:class:`~sklearn.model_selection.GridSearchCV` or :func:`~sklearn.model_selection.cross_validate`.
Sparse counts are converted by blocks of rows, never as a whole. New scores belong here; they need
no fitted model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn import get_config
from sklearn.utils import check_array
from sklearn.utils.metadata_routing import MetadataRequest

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import (
    check_numbers,
    check_same_order,
    checked_sparse,
    covariates_in,
    quoted,
)
from sc_glm._counts.count_matrix import check_genes
from sc_glm.distributions.base import CountDistribution
from sc_glm.distributions.count_distributions import NB
from sc_glm.estimators.pipeline import counts_in, last_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    FloatArray: TypeAlias = NDArray[np.float64]

__all__ = [
    "brier_score_zeros",
    "crps",
    "d2_deviance_score",
    "d2_scorer",
    "log_likelihood_scorer",
    "mean_deviance",
    "mean_log_likelihood",
    "neg_brier_zeros_scorer",
    "neg_crps_scorer",
    "neg_deviance_scorer",
]

# Rows x genes of a block of rows, which is a dense array of 2 MiB.
_MAX_DENSE_ENTRIES = 2**18

# Mean deviance below which it counts as zero. It is a difference of log-masses, which are rounded.
_DEVIANCE_TOLERANCE = 1e-10

_ENTRIES = {
    "y_true": """
    y_true : array-like, DataFrame or sparse matrix, shape (n_samples,) or (n_samples, n_targets)
        Observed counts.
    """,
    "dist": """
    dist : NB or ZINB, of the shape of `y_true`
        Predicted distributions.
    """,
    "sample_weight": """
    sample_weight : array-like, shape (n_samples,), optional
        Weights of the rows.
    """,
    "multioutput": """
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_targets,)
        Whether to return the mean over the genes or one value per gene. An array has the
        weights of the genes in a weighted mean.
    """,
    "raises_invalid": """
    ValueError
        If shapes differ, if a count is negative, missing or infinite, or if weights are not
        valid.
    """,
}


@documented(_ENTRIES)
def mean_log_likelihood(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Return the mean log-probability of the observed counts; greater is better.

    Parameters
    ----------
    {y_true}
    {dist}
    {sample_weight}
    {multioutput}

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows of ``log P(y)``.

    Raises
    ------
    {raises_invalid}

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import mean_log_likelihood
    >>> round(mean_log_likelihood([0, 1, 4], NB([1.0, 1.0, 3.0], r=2.0)), 4)
    -1.4313
    """
    return _average(y_true, dist, _log_likelihood, sample_weight, multioutput)


@documented(_ENTRIES)
def mean_deviance(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Return the mean unit deviance; smaller is better.

    The unit deviance of a count is twice the difference between the log-probability under the
    saturated model and under the predicted distribution. The saturated model has the same size `r`
    and the mean, and zero inflation, at which the count is most probable. The deviance compares
    means at a given size; use :func:`mean_log_likelihood` to compare sizes.

    Parameters
    ----------
    {y_true}
    {dist}
    {sample_weight}
    {multioutput}

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows, at least 0; infinite if a positive count has probability 0.

    Raises
    ------
    {raises_invalid}

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.metrics import mean_poisson_deviance
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import mean_deviance
    >>> round(mean_deviance([0, 1, 4], NB([1.0, 1.0, 3.0], r=np.inf)), 6)
    0.767152
    >>> round(mean_poisson_deviance([0, 1, 4], [1.0, 1.0, 3.0]), 6)
    0.767152
    """
    return _average(y_true, dist, _deviance, sample_weight, multioutput)


@documented(_ENTRIES)
def d2_deviance_score(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Return the fraction of each gene's deviance that the distributions explain; 1 is best.

    It is one minus the ratio of :func:`mean_deviance` to the deviance of the null model, which has
    each gene's weighted mean count, the same sizes `r` and no zero inflation. It is a score of the
    mean, and depends little on the dispersion or the zero inflation. Compare formulas for these by
    :func:`mean_log_likelihood`.

    Parameters
    ----------
    {y_true}
    {dist}
    {sample_weight}
    {multioutput}

    Returns
    -------
    float or ndarray of shape (n_targets,)
        At most 1; negative if the null model is better. For a gene with constant counts it is 1 if
        the deviance is 0, and else 0, as with :func:`~sklearn.metrics.r2_score`.

    Raises
    ------
    {raises_invalid}

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import d2_deviance_score
    >>> round(d2_deviance_score([0, 1, 4, 7], NB([1.0, 1.0, 3.0, 6.0], r=2.0)), 4)
    0.7009
    """
    table = _CountTable(y_true, dist, sample_weight)
    deviance = table.mean(_deviance)
    null_mean = table.mean(lambda y, _: y)
    null = table.mean(lambda y, dist: _deviance(y, NB(null_mean, dist.r)))

    constant = table.is_constant()
    ratio = np.divide(deviance, null, out=np.zeros_like(null), where=~constant)
    score = np.where(constant, np.where(deviance < _DEVIANCE_TOLERANCE, 1.0, 0.0), 1 - ratio)
    return _average_over_targets(score, multioutput)


@documented(_ENTRIES)
def brier_score_zeros(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Return the mean squared error of the predicted probability of a zero; smaller is better.

    Parameters
    ----------
    {y_true}
    {dist}
    {sample_weight}
    {multioutput}

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows of ``(1{y = 0} - P(0))**2``, from 0 to 1.

    Raises
    ------
    {raises_invalid}

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import brier_score_zeros
    >>> round(brier_score_zeros([0, 1, 4], NB([1.0, 1.0, 3.0], r=2.0)), 4)
    0.1773
    """
    return _average(y_true, dist, _squared_error_of_zeros, sample_weight, multioutput)


@documented(_ENTRIES)
def crps(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Return the mean continuous ranked probability score of the counts; smaller is better.

    It is the squared difference between the predicted and the observed distribution function,
    summed over counts. Its unit is counts, and for a point prediction it is the absolute error. It
    is less sensitive to outliers than the likelihood.

    Parameters
    ----------
    {y_true}
    {dist}
    {sample_weight}
    {multioutput}

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows of ``sum_k (F(k) - 1{y <= k})**2``.

    Raises
    ------
    {raises_invalid}

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import crps
    >>> round(crps([0, 1, 4], NB([1.0, 1.0, 3.0], r=2.0)), 4)
    0.5448
    """
    return _average(y_true, dist, lambda y, dist: dist.crps(y), sample_weight, multioutput)


# Scores of single counts


def _log_likelihood(y: FloatArray, dist: CountDistribution) -> FloatArray:
    return dist.logpmf(y)


def _deviance(y: FloatArray, dist: CountDistribution) -> FloatArray:
    return dist.unit_deviance(y)


def _squared_error_of_zeros(y: FloatArray, dist: CountDistribution) -> FloatArray:
    return np.square((y == 0) - dist.prob_zero())


# Averages


class _CountTable:
    """Counts and their distributions, checked; it computes weighted means over rows."""

    def __init__(
        self, y_true: Any, dist: CountDistribution, sample_weight: ArrayLike | None
    ) -> None:
        if not isinstance(dist, CountDistribution):
            raise TypeError(
                "dist must be an NB or ZINB object, as predict_dist returns it, not a "
                f"{type(dist).__name__}."
            )
        check_numbers(y_true, "y_true")
        self._names = y_true.columns if isinstance(y_true, pd.DataFrame) else None
        is_sparse = sparse.issparse(y_true)
        y: Any = checked_sparse(y_true, "y_true").tocsr() if is_sparse else np.asarray(y_true)
        if y.ndim not in (1, 2):
            raise ValueError(f"y_true must have one or two dimensions, got the shape {y.shape}.")
        # Of a single gene, counts may be a vector and distributions a column, or the reverse.
        same = y.shape == dist.shape or {y.shape, dist.shape} == {y.shape[:1], (*y.shape[:1], 1)}
        if not same:
            raise ValueError(f"y_true has the shape {y.shape}, but dist has {dist.shape}.")
        if not all(y.shape):
            raise ValueError(f"y_true has no entries (shape {y.shape}).")
        self._y: Any = y.reshape(-1, 1) if y.ndim == 1 else y
        self._is_sparse = is_sparse
        self._dist = dist[:, None] if dist.ndim == 1 else dist
        self._weight = _check_weights(sample_weight, y_true, self._y.shape[0])

    def _blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield blocks of rows as dense arrays of valid counts."""
        n_rows, n_targets = self._y.shape
        step = max(1, _MAX_DENSE_ENTRIES // n_targets)
        for start in range(0, n_rows, step):
            rows = slice(start, min(start + step, n_rows))
            block = self._y[rows]
            block = block.toarray() if self._is_sparse else block
            values = np.asarray(block, dtype=np.float64)
            self._check(values, start)
            yield rows, values

    def _check(self, values: FloatArray, start: int) -> None:
        valid = (values >= 0) & (values < np.inf)
        if not valid.all():
            row, column = np.argwhere(~valid)[0]
            target = column if self._names is None else quoted(self._names[column])
            raise ValueError(
                f"y_true must hold counts, finite and at least 0, but row {start + row} of "
                f"target {target} is {values[row, column]}."
            )

    def mean(self, loss: Callable[[FloatArray, CountDistribution], FloatArray]) -> FloatArray:
        """Return each gene's weighted mean over rows of a function of counts and distributions."""
        total: FloatArray = np.zeros(self._y.shape[1])
        for rows, y in self._blocks():
            weight = self._weight[rows]
            # Zero times an infinite loss would be NaN.
            positive = weight > 0
            total += weight[positive] @ loss(y[positive], self._dist[rows][positive])
        return np.divide(total, self._weight.sum())

    def is_constant(self) -> NDArray[np.bool_]:
        """Return for each gene whether all its counts are equal."""
        smallest = np.full(self._y.shape[1], np.inf)
        largest = np.zeros(self._y.shape[1])
        for rows, y in self._blocks():
            weighted = y[self._weight[rows] > 0]
            smallest = np.minimum(smallest, weighted.min(axis=0, initial=np.inf))
            largest = np.maximum(largest, weighted.max(axis=0, initial=0.0))
        return np.equal(smallest, largest)


def _check_weights(sample_weight: ArrayLike | None, y_true: Any, n_rows: int) -> FloatArray:
    if sample_weight is None:
        return np.ones(n_rows)
    check_numbers(sample_weight, "sample_weight")
    check_same_order(y_true, sample_weight, "sample_weight", of="y_true")
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_rows,):
        raise ValueError(f"sample_weight has the shape {weight.shape}, expected ({n_rows},).")
    valid = (weight >= 0) & (weight < np.inf)
    if not valid.all():
        raise ValueError(
            f"sample_weight must be finite and at least 0, but row {valid.argmin()} has "
            f"{weight[valid.argmin()]}."
        )
    if not weight.any():
        raise ValueError("sample_weight is 0 in every row.")
    return weight


def _average_over_targets(values: FloatArray, multioutput: str | ArrayLike) -> float | FloatArray:
    if isinstance(multioutput, str):
        if multioutput == "raw_values":
            return values
        if multioutput == "uniform_average":
            return float(values.mean())
        raise ValueError(
            "multioutput must be 'raw_values', 'uniform_average' or an array of weights, got "
            f"{multioutput!r}."
        )
    weights = check_array(multioutput, ensure_2d=False)
    if weights.shape != values.shape:
        raise ValueError(f"multioutput has the shape {weights.shape}, expected {values.shape}.")
    if not weights.sum():
        raise ValueError("multioutput has weights whose sum is 0.")
    return float(np.average(values, weights=weights))


def _average(
    y_true: Any,
    dist: CountDistribution,
    loss: Callable[[FloatArray, CountDistribution], FloatArray],
    sample_weight: ArrayLike | None,
    multioutput: str | ArrayLike,
) -> float | FloatArray:
    return _average_over_targets(_CountTable(y_true, dist, sample_weight).mean(loss), multioutput)


# Scorers


@dataclass(frozen=True)
class _Scorer:
    """A metric as a function of an estimator and data; greater is better.

    scikit-learn's ``make_scorer`` supports ``predict``, but not ``predict_dist``.
    """

    metric: Callable[..., Any]
    sign: int
    request: bool | str | None = None
    """Whether metadata routing passes `sample_weight`, or under which name."""

    def get_metadata_routing(self) -> MetadataRequest:
        """Return the metadata that a call takes, for scikit-learn's metadata routing."""
        routing = MetadataRequest(owner=self)
        routing.score.add_request(param="sample_weight", alias=self.request)
        return routing

    def set_score_request(self, *, sample_weight: bool | str | None) -> _Scorer:
        """Return a scorer with another request for `sample_weight` in metadata routing.

        Parameters
        ----------
        sample_weight : bool, str or None
            Whether routing passes the weights, or the name under which it passes them. With None,
            passing weights raises an error.

        Returns
        -------
        scorer
            A new scorer. This one is shared, and not changed.

        Raises
        ------
        RuntimeError
            If metadata routing is not enabled by
            ``sklearn.set_config(enable_metadata_routing=True)``.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "Requests need sklearn.set_config(enable_metadata_routing=True) to have an effect."
            )
        return replace(self, request=sample_weight)

    def _accept_sample_weight(self) -> bool:
        return True  # searches with several scorers ask for it if routing is not enabled

    def __call__(
        self, estimator: Any, X: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the score of the distributions that a fitted estimator predicts.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``predict_dist``, or a scikit-learn pipeline that ends in one.
        X : array-like, DataFrame or AnnData
            Covariates of the rows, as the estimator takes them.
        y : array-like, DataFrame or sparse matrix, optional
            Observed counts; None if `X` is an AnnData, which holds the counts in the layer
            of the fit.
        sample_weight : array-like, shape (n_samples,), optional
            Weights of the rows.

        Returns
        -------
        float
            The score.
        """
        if y is None:
            y = counts_in(estimator, X)
        check_same_order(X, y, "y")
        check_same_order(X, sample_weight, "sample_weight")
        predictor, design = last_step(estimator, covariates_in(X))
        check_genes(y, getattr(predictor, "target_names_", ()))
        value = self.metric(y, predictor.predict_dist(design), sample_weight=sample_weight)
        return float(self.sign * value)

    def __repr__(self) -> str:
        return f"<scorer: {'-' if self.sign < 0 else ''}{self.metric.__name__}>"


#: :func:`mean_log_likelihood` of ``estimator.predict_dist(X)``.
log_likelihood_scorer = _Scorer(mean_log_likelihood, 1)
#: Negative :func:`mean_deviance` of ``estimator.predict_dist(X)``.
neg_deviance_scorer = _Scorer(mean_deviance, -1)
#: :func:`d2_deviance_score` of ``estimator.predict_dist(X)``. Like R², it is not a mean over
#: rows, so it varies much between small folds.
d2_scorer = _Scorer(d2_deviance_score, 1)
#: Negative :func:`brier_score_zeros` of ``estimator.predict_dist(X)``.
neg_brier_zeros_scorer = _Scorer(brier_score_zeros, -1)
#: Negative :func:`crps` of ``estimator.predict_dist(X)``.
neg_crps_scorer = _Scorer(crps, -1)
