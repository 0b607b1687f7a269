"""Log-likelihoods of the cells that a fold holds out, summed over cells of a group."""

from __future__ import annotations

import contextlib
import warnings
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from sc_glm._counts.count_matrix import CountMatrix
from sc_glm.estimators.pipeline import fit_params
from sc_glm.inference.fitted_model import FittedData

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray


class HeldOutSums(NamedTuple):
    """Sums over groups of held-out cells; the sums of several folds add up.

    For a group, n is the number of its cells and L their log-likelihood under a model. A cell of
    weight two counts as two cells.
    """

    n_cells: float
    n_groups: float
    n_squared: float  # sum of n²
    log_likelihood: FloatArray  # sum of L, models x genes
    n_times_log_likelihood: FloatArray  # sum of n L, models x genes
    squared_differences: FloatArray  # sum of squared differences of L, models x models x genes
    n_failed: NDArray[np.int64]  # models x genes

    def of_models(self, positions: NDArray[np.intp]) -> HeldOutSums:
        """Return the sums of the models at these positions; a position may be repeated."""
        return self._replace(
            log_likelihood=self.log_likelihood[positions],
            n_times_log_likelihood=self.n_times_log_likelihood[positions],
            squared_differences=self.squared_differences[np.ix_(positions, positions)],
            n_failed=self.n_failed[positions],
        )


def score_fold(
    models: dict[str, Any],
    X: Any,
    y: Any,
    split: tuple[Any, Any],
    *,
    groups: NDArray[np.intp] | None,
    weights: FloatArray | None,
    fold: str,
) -> tuple[NDArray[np.object_], HeldOutSums]:
    """Fit models to the training cells; return the genes, and sums over the held-out cells."""
    train, test = split
    X_train, X_test = _safe_indexing(X, train), _safe_indexing(X, test)
    y_train, y_test = None, None
    if y is not None:
        y_train = _safe_indexing(y, train)
        # Checked once, for all models.
        y_test = CountMatrix.of(_safe_indexing(y, test), n_cells=_num_samples(X_test))
    weight = np.ones(_num_samples(X_test)) if weights is None else weights[test]
    scored: dict[str, FittedData] = {}
    for name, model in models.items():
        with _name_model_and_fold(name, fold):
            params = fit_params(model, None if weights is None else weights[train])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # one follows at the end
                fitted = clone(model).fit(X_train, y_train, **params)
            scored[name] = FittedData.of(fitted, X_test, y_test)
            _check_comparable(scored[name], *next(iter(scored.items())))
    names = next(iter(scored.values())).names
    return names, _sum_over_groups(scored, None if groups is None else groups[test], weight, fold)


def _sum_over_groups(
    scored: dict[str, FittedData], groups: NDArray[np.intp] | None, weight: FloatArray, fold: str
) -> HeldOutSums:
    """Return the sums over the held-out cells of a fold, computed by blocks of genes."""
    data = list(scored.values())
    cells = np.arange(len(weight))
    if groups is None:
        # Each copy of a cell is a group of one cell, so a group occurs as often as its weight.
        group, weight_in_group, n_copies = cells, np.ones(len(weight)), weight
    else:
        group, weight_in_group = np.unique(groups, return_inverse=True)[1], weight
        n_copies = (np.bincount(group, weight) > 0).astype(np.float64)
    n = np.bincount(group, weight_in_group).astype(np.float64)
    sum_in_group = sp.csr_array((weight_in_group, (group, cells)))
    shape = len(data), len(data[0].names)
    total, n_total, squares = np.empty(shape), np.empty(shape), np.zeros((len(data), *shape))
    blocks = [_finite_log_probs(name, fitted, fold) for name, fitted in scored.items()]
    for block in zip(*blocks, strict=True):
        genes = block[0][0]
        log_likelihoods_of_groups = [sum_in_group @ log_probs for _, log_probs in block]
        for j, log_likelihood in enumerate(log_likelihoods_of_groups):
            total[j, genes] = n_copies @ log_likelihood
            n_total[j, genes] = (n_copies * n) @ log_likelihood
        for j, k in combinations(range(len(log_likelihoods_of_groups)), 2):
            difference = n_copies @ np.square(
                log_likelihoods_of_groups[j] - log_likelihoods_of_groups[k]
            )
            squares[j, k, genes] = squares[k, j, genes] = difference
    n_failed = np.array([~fitted.regressor.converged_ for fitted in data]).astype(np.int64)
    n_cells, n_groups = float(weight.sum()), float(n_copies.sum())
    return HeldOutSums(n_cells, n_groups, float(n_copies @ n**2), total, n_total, squares, n_failed)


@contextlib.contextmanager
def _name_model_and_fold(name: str, fold: str) -> Iterator[None]:
    """Add the model and the fold to the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"Model {name!r} in {fold}: {error}") from error


def _check_comparable(data: FittedData, reference: str, other: FittedData) -> None:
    if not np.array_equal(data.names, other.names):
        raise ValueError(f"its genes differ from the genes of {reference!r}.")
    same = data.counts is other.counts or np.array_equal(
        data.counts.cell_digests(), other.counts.cell_digests()
    )
    if not same:
        raise ValueError(
            f"its counts differ from the counts of {reference!r}, for example because they are "
            "another layer. Likelihoods of different counts cannot be compared."
        )


def _finite_log_probs(name: str, data: FittedData, fold: str) -> Iterator[tuple[slice, FloatArray]]:
    """Yield log-probabilities by blocks of genes; raise a ValueError if one is not finite."""
    for genes, log_probs in data.log_probs():
        infinite = ~np.isfinite(log_probs)
        if infinite.any():
            cell, gene = np.argwhere(infinite)[0]
            raise ValueError(
                f"Model {name!r} in {fold}: the log-likelihood of gene "
                f"{data.names[genes][gene]!r} in held-out cell {cell} is not finite."
            )
        yield genes, log_probs
