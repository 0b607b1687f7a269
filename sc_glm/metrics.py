"""How well predicted distributions describe counts, as functions and as scorers.

The functions take the counts and an :class:`~sc_glm.distributions.NB` or
:class:`~sc_glm.distributions.ZINB` object, as ``predict_dist`` returns it, and otherwise follow
scikit-learn's regression metrics. The scorers go to ``scoring=`` of
:class:`~sklearn.model_selection.GridSearchCV` or :func:`~sklearn.model_selection.cross_validate`.
Rows are worked on in blocks, so that sparse counts are never made dense as a whole. New scores
belong here; they need no fitted model.
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

from sc_glm._contract.validation import check_numbers, check_same_order, shown, sound_sparse
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

# Entries made dense at once.
_BLOCK = 2**18

# A deviance as small as this is rounding's: it is a difference of two log-masses.
_ROUNDING = 1e-10


def mean_log_likelihood(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Mean log-probability of the observed counts; greater is better.

    Parameters
    ----------
    y_true : array-like, DataFrame or sparse matrix, shape (n_samples,) or (n_samples, n_targets)
        Observed counts.
    dist : NB or ZINB, of the shape of `y_true`
        Predicted distributions.
    sample_weight : array-like, shape (n_samples,), optional
        Weights of the rows.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_targets,)
        Mean over the genes, one value per gene, or a mean with these weights.

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows of ``log P(y)``.

    Raises
    ------
    ValueError
        If shapes differ, a count is negative, missing or infinite, or weights are not valid.

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import mean_log_likelihood
    >>> round(mean_log_likelihood([0, 1, 4], NB([1.0, 1.0, 3.0], r=2.0)), 4)
    -1.4313
    """
    return _average(y_true, dist, _log_likelihood, sample_weight, multioutput)


def mean_deviance(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Mean unit deviance, a likelihood's counterpart of the squared error; smaller is better.

    An entry's deviance is twice the distance of its log-probability from the largest that any
    mean (and zero inflation) gives that count at the same size `r`. It ranks means at a given
    size; use :func:`mean_log_likelihood` to compare sizes.

    Parameters
    ----------
    y_true : array-like, DataFrame or sparse matrix, shape (n_samples,) or (n_samples, n_targets)
        Observed counts.
    dist : NB or ZINB, of the shape of `y_true`
        Predicted distributions.
    sample_weight : array-like, shape (n_samples,), optional
        Weights of the rows.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_targets,)
        Mean over the genes, one value per gene, or a mean with these weights.

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows, at least 0; infinite if a positive count has probability 0.

    Raises
    ------
    ValueError
        If shapes differ, a count is negative, missing or infinite, or weights are not valid.

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


def d2_deviance_score(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Fraction of each gene's deviance that the distributions explain; 1 is best.

    It is one less the ratio of :func:`mean_deviance` to that of a model that knows only each
    gene's weighted mean count: the same sizes `r`, no zero inflation. As a score of the mean it
    hardly sees a dispersion or zero-inflation formula; :func:`mean_log_likelihood` does.

    Parameters
    ----------
    y_true : array-like, DataFrame or sparse matrix, shape (n_samples,) or (n_samples, n_targets)
        Observed counts.
    dist : NB or ZINB, of the shape of `y_true`
        Predicted distributions.
    sample_weight : array-like, shape (n_samples,), optional
        Weights of the rows.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_targets,)
        Mean over the genes, one value per gene, or a mean with these weights.

    Returns
    -------
    float or ndarray of shape (n_targets,)
        At most 1; below 0 where the gene's mean alone does better. For a gene whose counts are
        all the same, as with :func:`~sklearn.metrics.r2_score`: 1 if the deviance is 0, else 0.

    Raises
    ------
    ValueError
        If shapes differ, a count is negative, missing or infinite, or weights are not valid.

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
    score = np.where(constant, np.where(deviance < _ROUNDING, 1.0, 0.0), 1 - ratio)
    return _over_targets(score, multioutput)


def brier_score_zeros(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Mean squared error of the predicted probability of a zero; smaller is better.

    Parameters
    ----------
    y_true : array-like, DataFrame or sparse matrix, shape (n_samples,) or (n_samples, n_targets)
        Observed counts.
    dist : NB or ZINB, of the shape of `y_true`
        Predicted distributions.
    sample_weight : array-like, shape (n_samples,), optional
        Weights of the rows.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_targets,)
        Mean over the genes, one value per gene, or a mean with these weights.

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows of ``(1{y = 0} - P(0))**2``, from 0 to 1.

    Raises
    ------
    ValueError
        If shapes differ, a count is negative, missing or infinite, or weights are not valid.

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import brier_score_zeros
    >>> round(brier_score_zeros([0, 1, 4], NB([1.0, 1.0, 3.0], r=2.0)), 4)
    0.1773
    """
    return _average(y_true, dist, _squared_error_of_zeros, sample_weight, multioutput)


def crps(
    y_true: Any,
    dist: CountDistribution,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | FloatArray:
    """Mean continuous ranked probability score of the counts; smaller is better.

    It is the distance between predicted and observed distribution function, summed over counts,
    in units of counts; for a point prediction it is the absolute error. An outlier weighs less
    than in the likelihood.

    Parameters
    ----------
    y_true : array-like, DataFrame or sparse matrix, shape (n_samples,) or (n_samples, n_targets)
        Observed counts.
    dist : NB or ZINB, of the shape of `y_true`
        Predicted distributions.
    sample_weight : array-like, shape (n_samples,), optional
        Weights of the rows.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_targets,)
        Mean over the genes, one value per gene, or a mean with these weights.

    Returns
    -------
    float or ndarray of shape (n_targets,)
        The mean over rows of ``sum_k (F(k) - 1{y <= k})**2``.

    Raises
    ------
    ValueError
        If shapes differ, a count is negative, missing or infinite, or weights are not valid.

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> from sc_glm.metrics import crps
    >>> round(crps([0, 1, 4], NB([1.0, 1.0, 3.0], r=2.0)), 4)
    0.5448
    """
    return _average(y_true, dist, lambda y, dist: dist.crps(y), sample_weight, multioutput)


# Entrywise


def _log_likelihood(y: FloatArray, dist: CountDistribution) -> FloatArray:
    return dist.logpmf(y)


def _deviance(y: FloatArray, dist: CountDistribution) -> FloatArray:
    return dist.unit_deviance(y)


def _squared_error_of_zeros(y: FloatArray, dist: CountDistribution) -> FloatArray:
    return np.square((y == 0) - dist.prob_zero())


# Averages


class _CountTable:
    """Counts with their distributions, checked, and averaged over weighted rows."""

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
        y: Any = sound_sparse(y_true, "y_true").tocsr() if is_sparse else np.asarray(y_true)
        if y.ndim not in (1, 2):
            raise ValueError(f"y_true must have one or two dimensions, got the shape {y.shape}.")
        # A single gene may be a vector on one side and a column on the other.
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
        n_rows, n_targets = self._y.shape
        step = max(1, _BLOCK // n_targets)
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
            target = column if self._names is None else shown(self._names[column])
            raise ValueError(
                f"y_true must hold counts, finite and at least 0, but row {start + row} of "
                f"target {target} is {values[row, column]}."
            )

    def mean(self, loss: Callable[[FloatArray, CountDistribution], FloatArray]) -> FloatArray:
        """Return the weighted mean over rows of a function of blocks, per gene."""
        total: FloatArray = np.zeros(self._y.shape[1])
        for rows, y in self._blocks():
            weight = self._weight[rows]
            # Rows without weight do not count, not even with an infinite loss.
            used = weight > 0
            total += weight[used] @ loss(y[used], self._dist[rows][used])
        return np.divide(total, self._weight.sum())

    def is_constant(self) -> NDArray[np.bool_]:
        """Return, per gene, whether all counts are the same."""
        low = np.full(self._y.shape[1], np.inf)
        high = np.zeros(self._y.shape[1])
        for rows, y in self._blocks():
            used = y[self._weight[rows] > 0]
            low = np.minimum(low, used.min(axis=0, initial=np.inf))
            high = np.maximum(high, used.max(axis=0, initial=0.0))
        return np.equal(low, high)


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


def _over_targets(values: FloatArray, multioutput: str | ArrayLike) -> float | FloatArray:
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
    return _over_targets(_CountTable(y_true, dist, sample_weight).mean(loss), multioutput)


# Scorers


@dataclass(frozen=True)
class _Scorer:
    """A metric as a function of an estimator and data, greater being better.

    scikit-learn's own ``make_scorer`` knows ``predict`` and its kin, but no ``predict_dist``.
    """

    metric: Callable[..., Any]
    sign: int
    request: bool | str | None = None
    """Whether metadata routing brings `sample_weight`, or under which name."""

    def get_metadata_routing(self) -> MetadataRequest:
        """Say which metadata a call takes, as scikit-learn's routing asks it."""
        routing = MetadataRequest(owner=self)
        routing.score.add_request(param="sample_weight", alias=self.request)
        return routing

    def set_score_request(self, *, sample_weight: bool | str | None) -> _Scorer:
        """Return a scorer to which metadata routing passes `sample_weight`, or does not.

        Parameters
        ----------
        sample_weight : bool, str or None
            Whether weights are passed on, or the name that they are passed under. None: it is an
            error to pass any.

        Returns
        -------
        scorer
            A new one; this one, which all share, is as it was.

        Raises
        ------
        RuntimeError
            If ``sklearn.set_config(enable_metadata_routing=True)`` is not in force.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "Requests need sklearn.set_config(enable_metadata_routing=True) to have an effect."
            )
        return replace(self, request=sample_weight)

    def _accept_sample_weight(self) -> bool:
        """Answer scikit-learn's searches with several scorers where routing is not in force."""
        return True

    def __call__(
        self, estimator: Any, X: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the score of the distributions that a fitted estimator predicts.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``predict_dist``, or a scikit-learn pipeline that ends in one.
        X : array-like, DataFrame or AnnData
            What the estimator predicts from.
        y : array-like, DataFrame or sparse matrix, optional
            Observed counts; None where `X` holds them (see
            :class:`~sc_glm.adata.AnnDataRegressor`).
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
        predictor, design = last_step(estimator, X)
        check_genes(y, getattr(predictor, "target_names_", ()))
        value = self.metric(y, predictor.predict_dist(design), sample_weight=sample_weight)
        return float(self.sign * value)

    def __repr__(self) -> str:
        return f"<scorer: {'-' if self.sign < 0 else ''}{self.metric.__name__}>"


#: :func:`mean_log_likelihood` of ``estimator.predict_dist(X)``.
log_likelihood_scorer = _Scorer(mean_log_likelihood, 1)
#: Negated :func:`mean_deviance`.
neg_deviance_scorer = _Scorer(mean_deviance, -1)
#: :func:`d2_deviance_score`; like R², not a mean over rows, so that small folds are noisy.
d2_scorer = _Scorer(d2_deviance_score, 1)
#: Negated :func:`brier_score_zeros`.
neg_brier_zeros_scorer = _Scorer(brier_score_zeros, -1)
#: Negated :func:`crps`.
neg_crps_scorer = _Scorer(crps, -1)
