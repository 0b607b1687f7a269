"""Choose a model for each gene by the log-likelihood of held-out cells.

Comparisons of several models by cross-validation belong here. Tests of nested models on the cells
of their fit belong to ``inference``.
"""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections.abc import Mapping
from itertools import combinations
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _num_samples

from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import check_same_order, group_codes, shown
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.input_checks import check_sample_weight
from sc_glm.estimators.pipeline import fit_params
from sc_glm.inference.fitted_model import FittedData

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray

__all__ = ["choose_model", "compare_models"]

# Log-likelihood per cell, in nats, by which fits of equivalent models may differ numerically.
_LOG_LIKELIHOOD_TOLERANCE = 1e-6
_MAX_GENES_NAMED = 3  # in a warning


def compare_models(
    models: Mapping[str, Any],
    X: Any,
    y: Any = None,
    *,
    cv: Any = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    r"""Compare models gene by gene by the log-likelihood of held-out cells.

    Each model is fitted once to the training cells of each fold, all genes together. Models with
    equal parameters are fitted only once.

    Parameters
    ----------
    models : dict of str to estimator
        Regressors, pipelines that end in one, searches over these, or
        :class:`~sc_glm.adata.AnnDataRegressor`. The first is the reference. For
        :func:`choose_model`, order them from the simplest to the most complex. They are cloned,
        and not changed.
    X : array-like, DataFrame or AnnData of n_cells rows
        Covariates of the cells, as the models take them.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts; None if `X` is an AnnData that holds the counts.
    cv : int, splitter or iterable of (train, test), default=None
        How to split the cells, as in :func:`~sklearn.model_selection.cross_validate`; None is 5
        folds. Each cell is held out at most once.
    groups : array-like of shape (n_cells,), default=None
        The group of each cell, such as its donor. With groups, a number of folds means
        :class:`~sklearn.model_selection.GroupKFold`, and standard errors are between groups. The
        held-out cells of a group must all be in one fold.
    sample_weight : array-like of shape (n_cells,), default=None
        Weights of the cells, in fits and in the likelihood of held-out cells. An integer weight is
        equivalent to that number of copies of the cell, in the same fold and group. Without
        `groups`, copies count as independent cells. If they are repetitions of one cell, give a
        label for each cell as `groups`.
    n_jobs : int, default=None
        Number of folds that are evaluated at the same time, as joblib counts them. The result does
        not depend on it. Parameter ``n_jobs`` of a model is about the genes of one fit.

    Returns
    -------
    DataFrame
        One row per gene and model, gene by gene, in the order of the counts and of `models`:

        - ``target``: name of the gene;
        - ``model``: name of the model, an ordered categorical in the order of `models`;
        - ``log_likelihood``: mean log-likelihood of held-out cells, per cell, in nats;
        - ``difference``: ``log_likelihood`` minus the value of the reference;
        - ``standard_error``: standard error of ``difference``;
        - ``shortfall``: the value of the gene's best model minus ``log_likelihood``, at least 0;
        - ``shortfall_error``: standard error of ``shortfall``;
        - ``n_failed``: number of folds in which the gene's fit did not converge
          (``converged_`` is False). Its likelihood is evaluated where the fit stopped.

    Raises
    ------
    TypeError
        If `models` is not a dict, or if a model does not end in a regressor of this package.
    ValueError
        If data are not valid, or if a cell is held out twice or a group in several folds. Also if a
        model cannot be fitted to a fold or score it; the message names the model and the fold.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        Once, if some fits did not converge; column ``n_failed`` shows which.

    See Also
    --------
    choose_model : Chooses the simplest model of each gene that is about as good as the best.

    Notes
    -----
    Let :math:`D_i` be the difference of two models' log-likelihoods, summed over the cells of group
    :math:`i`. Let :math:`n_i` be the number of these cells and :math:`m` the number of groups; all
    sums and numbers are weighted. With :math:`N = \sum_i n_i`, the difference per cell is the
    ratio of means :math:`\delta = \sum_i D_i / N`, and its standard error is

    .. math:: \sqrt{\frac{m}{m - 1} \sum_i (D_i - \delta n_i)^2} \, / \, N,

    the standard error of a ratio estimate [1]_. Without `groups` each cell is a group, and this is
    the standard deviation of the cells' differences divided by :math:`\sqrt{N}`. The differences
    are paired: variation of cells that affects both models' log-likelihoods equally cancels. Folds
    share most of their training cells, which no standard error of a cross-validation accounts
    for [2]_.

    Cells of an AnnData are often sorted by type or batch. A number of folds splits them in this
    order, as in scikit-learn. ``KFold(5, shuffle=True, random_state=0)`` shuffles them.

    References
    ----------
    .. [1] Cochran (1977), Sampling Techniques, 3rd edition, section 6.4.
    .. [2] Bengio and Grandvalet (2004), No unbiased estimator of the variance of K-fold
       cross-validation, Journal of Machine Learning Research 5, 1089-1105.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.selection import choose_model, compare_models
    >>> data = make_counts(600, 3, mean="~ pseudotime", effect_scale=2, random_state=0)
    >>> models = {
    ...     "constant": make_pipeline(FormulaTransformer("~ 1"), NegBinRegressor()),
    ...     "trend": make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor()),
    ...     "inflated": make_pipeline(FormulaTransformer("~ pseudotime"), ZINBRegressor()),
    ... }
    >>> table = compare_models(models, data.obs, data.counts)
    >>> table.pivot(index="target", columns="model", values="difference").round(3)
    model   constant  trend  inflated
    target
    gene_0       0.0  0.006     0.006
    gene_1       0.0  0.055     0.055
    gene_2       0.0  0.078     0.075
    >>> choose_model(table).to_dict()
    {'gene_0': 'trend', 'gene_1': 'trend', 'gene_2': 'trend'}
    """
    _check_models(models, y)
    X, y = indexable(X, y)
    n_cells = _num_samples(X)
    if y is not None:
        check_same_order(X, y, "y")
        CountMatrix.of(y, n_cells=n_cells)
    # Without groups, each cell is a group.
    codes = np.arange(n_cells) if groups is None else group_codes(groups, X, n_cells)
    weights = check_sample_weight(sample_weight, X, np.empty((n_cells, 1)))
    splits = _splits(cv, X, y, groups, codes)
    _check_held_out([test for _, test in splits], codes, groups, weights)
    distinct, positions = _deduplicate(models)
    folds = Parallel(n_jobs=n_jobs)(
        delayed(_score_fold)(
            distinct,
            X,
            y,
            split,
            groups=None if groups is None else codes,
            weights=None if sample_weight is None else weights,
            fold=f"fold {k} of {len(splits)}",
        )
        for k, split in enumerate(splits, start=1)
    )
    genes = folds[0][0]
    sums = _Sums(*(sum(parts) for parts in zip(*(sums for _, sums in folds), strict=True)))
    table = _table(genes, list(models), sums.of_models(positions))
    _warn_of_failed_fits(table)
    return table


def choose_model(table: pd.DataFrame) -> pd.Series:
    """Choose each gene's simplest model that is within one standard error of its best.

    This is the one-standard-error rule [1]_: ``shortfall`` is at most ``shortfall_error``, the
    standard error of the paired difference between both models. A shortfall of up to 1e-6 counts as
    zero, because a gene without zero inflation has the same likelihood with and without it.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`compare_models` for models in the order from the simplest to the most
        complex, or its rows of some genes.

    Returns
    -------
    Series
        The name of a model for each gene, a categorical in the order of the models. The index has
        the genes, in the order of their first rows.

    Raises
    ------
    TypeError
        If `table` is not a DataFrame with the columns of :func:`compare_models`.
    ValueError
        If a gene does not have one row for each model.

    See Also
    --------
    compare_models : Makes the table; its example includes this function.

    References
    ----------
    .. [1] Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, 2nd
       edition, section 7.10.
    """
    needed = ["target", "model", "shortfall", "shortfall_error"]
    if not isinstance(table, pd.DataFrame) or not {*needed} <= {*table.columns}:
        raise TypeError(f"table must be a frame of compare_models, with the columns {needed}.")
    if not isinstance(table["model"].dtype, pd.CategoricalDtype):
        raise TypeError(
            "The column 'model' must be categorical, as compare_models returns it: the first of "
            "its categories is the simplest model."
        )
    names, genes = table["model"].cat.categories, pd.unique(table["target"])
    order = pd.MultiIndex.from_product([genes, names])
    rows = table.set_index(["target", "model"])
    if len(rows) != len(order) or not order.isin(rows.index).all():
        raise ValueError(f"Each gene must have one row for each of the models {list(names)}.")
    rows = rows.loc[order]
    within = rows["shortfall"] <= rows["shortfall_error"].clip(lower=_LOG_LIKELIHOOD_TOLERANCE)
    first = within.to_numpy().reshape(len(genes), len(names)).argmax(axis=1)
    chosen = pd.Categorical.from_codes(first, dtype=table["model"].dtype)
    return pd.Series(chosen, index=pd.Index(genes, name="target"), name="model")


# Checks of arguments


def _check_models(models: Any, y: Any) -> None:
    if not isinstance(models, Mapping):
        raise TypeError(f"models must be a dict of names and estimators, not {models!r}.")
    if not models:
        raise ValueError("models is empty: at least one model is needed, the reference.")
    for name, model in models.items():
        if not isinstance(name, str):
            raise TypeError(f"The names of models must be strings, not {name!r}.")
        if not isinstance(_regressor_of(model), CountRegressor):
            raise TypeError(
                f"models[{name!r}] must be a NegBinRegressor or ZINBRegressor, or end in one, not "
                f"{model!r}."
            )
        if y is None and not hasattr(getattr(model, "estimator", model), "counts"):
            raise ValueError(
                f"y is None, but models[{name!r}] is not an AnnDataRegressor, and only this reads "
                "counts from X. Give the counts as y."
            )


def _regressor_of(model: Any) -> Any:
    """Return the regressor in a pipeline, a search or an AnnDataRegressor that is not fitted."""
    if isinstance(model, Pipeline):
        return _regressor_of(model.steps[-1][1])
    inner = getattr(model, "estimator", getattr(model, "model", None))
    return model if inner is None else _regressor_of(inner)


def _deduplicate(models: Mapping[str, Any]) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Return the distinct models, and for each name the position of its model among them."""
    first_name: dict[Any, str] = {}
    names = [first_name.setdefault(_hash(model), name) for name, model in models.items()]
    kept = list(first_name.values())
    return {name: models[name] for name in kept}, np.array([kept.index(name) for name in names])


def _hash(model: Any) -> Any:
    """Return a key that is equal for models of one class with equal parameters."""
    try:
        return joblib.hash(clone(model))
    except (pickle.PicklingError, TypeError):  # for example because a parameter is a function
        return id(model)


def _splits(cv: Any, X: Any, y: Any, groups: Any, codes: NDArray[np.intp]) -> list[tuple[Any, Any]]:
    if groups is not None:
        if cv is None or isinstance(cv, Integral):
            cv = GroupKFold() if cv is None else GroupKFold(cv)
        try:
            np.unique(np.asarray(groups))
        except TypeError:  # scikit-learn sorts the labels, which fails for several types
            groups = codes
    return list(check_cv(cv).split(X, y, groups))


def _check_held_out(
    tests: Sequence[Any], codes: NDArray[np.intp], groups: Any, weights: FloatArray
) -> None:
    """Raise a ValueError if the folds contradict the assumptions of the standard errors."""
    fold_of = np.zeros(len(codes), dtype=int)  # 0: never held out
    for fold, test in enumerate(tests, start=1):
        repeated = np.flatnonzero(fold_of[test])
        if len(repeated):
            cell = np.arange(len(codes))[test][repeated[0]]
            raise ValueError(
                f"The cell in row {cell} is held out in folds {fold_of[cell]} and {fold}. The "
                "standard errors need each cell to be held out at most once."
            )
        fold_of[test] = fold
    held_out = np.flatnonzero(fold_of)
    fold_of_group = np.zeros(len(codes), dtype=int)
    fold_of_group[codes[held_out]] = fold_of[held_out]
    in_other_fold = held_out[fold_of_group[codes[held_out]] != fold_of[held_out]]
    if len(in_other_fold):
        raise ValueError(
            f"Cells of group {shown(np.asarray(groups)[in_other_fold[0]])} are held out in several "
            "folds. A splitter such as GroupKFold holds out a group as a whole."
        )
    weight_of_group = np.bincount(codes[held_out], weights[held_out])
    n = weight_of_group.sum() if groups is None else np.count_nonzero(weight_of_group)
    if n < 2:
        unit = "cells" if groups is None else "groups"
        raise ValueError(f"Standard errors need at least two {unit} that are held out.")


# A fold


class _Sums(NamedTuple):
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

    def of_models(self, positions: NDArray[np.intp]) -> _Sums:
        """Return the sums of the models at these positions; a position may be repeated."""
        return self._replace(
            log_likelihood=self.log_likelihood[positions],
            n_times_log_likelihood=self.n_times_log_likelihood[positions],
            squared_differences=self.squared_differences[np.ix_(positions, positions)],
            n_failed=self.n_failed[positions],
        )


def _score_fold(
    models: dict[str, Any],
    X: Any,
    y: Any,
    split: tuple[Any, Any],
    *,
    groups: NDArray[np.intp] | None,
    weights: FloatArray | None,
    fold: str,
) -> tuple[NDArray[np.object_], _Sums]:
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
    return names, _sums_of(scored, None if groups is None else groups[test], weight, fold)


def _sums_of(
    scored: dict[str, FittedData], groups: NDArray[np.intp] | None, weight: FloatArray, fold: str
) -> _Sums:
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
    blocks = [_finite_log_probs(name, own, fold) for name, own in scored.items()]
    for block in zip(*blocks, strict=True):
        genes = block[0][0]
        of_groups = [sum_in_group @ log_probs for _, log_probs in block]
        for j, log_likelihood in enumerate(of_groups):
            total[j, genes] = n_copies @ log_likelihood
            n_total[j, genes] = (n_copies * n) @ log_likelihood
        for j, k in combinations(range(len(of_groups)), 2):
            difference = n_copies @ np.square(of_groups[j] - of_groups[k])
            squares[j, k, genes] = squares[k, j, genes] = difference
    n_failed = np.array([~own.regressor.converged_ for own in data]).astype(np.int64)
    n_cells, n_groups = float(weight.sum()), float(n_copies.sum())
    return _Sums(n_cells, n_groups, float(n_copies @ n**2), total, n_total, squares, n_failed)


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


# All folds


def _table(genes: NDArray[np.object_], names: list[str], sums: _Sums) -> pd.DataFrame:
    mean = sums.log_likelihood / sums.n_cells
    reference, best = np.zeros(len(genes), dtype=int), mean.argmax(axis=0)
    columns = {
        "log_likelihood": mean,
        "difference": mean - mean[0],
        "standard_error": _standard_errors(sums, reference),
        "shortfall": mean.max(axis=0) - mean,
        "shortfall_error": _standard_errors(sums, best),
        "n_failed": sums.n_failed,
    }
    return pd.DataFrame(
        {
            "target": np.repeat(genes, len(names)),
            "model": pd.Categorical(names * len(genes), categories=names, ordered=True),
            **{name: values.T.ravel() for name, values in columns.items()},
        }
    )


def _standard_errors(sums: _Sums, other: NDArray[np.intp]) -> FloatArray:
    """Return standard errors of mean differences between each model and each gene's ``other``."""
    gene = np.arange(len(other))
    difference = (sums.log_likelihood - sums.log_likelihood[other, gene]) / sums.n_cells
    n_difference = sums.n_times_log_likelihood - sums.n_times_log_likelihood[other, gene]
    squares = sums.squared_differences[:, other, gene]
    # The sum over groups of (D - difference * n)², expanded, where D are differences of L.
    centred = squares - 2 * difference * n_difference + difference**2 * sums.n_squared
    variance = np.maximum(centred, 0.0) * sums.n_groups / (sums.n_groups - 1)
    return np.sqrt(variance) / sums.n_cells


def _warn_of_failed_fits(table: pd.DataFrame) -> None:
    failed = pd.unique(table.loc[table["n_failed"] > 0, "target"])
    if len(failed):
        more = ", ..." if len(failed) > _MAX_GENES_NAMED else ""
        warn(
            f"Fits of {len(failed)} gene(s) did not converge in some fold "
            f"({', '.join(failed[:_MAX_GENES_NAMED])}{more}): see column n_failed.",
            ConvergenceWarning,
        )
