"""Which model each gene needs, by the likelihood of cells that were held out.

Comparisons of several models belong here. Tests of nested models on the cells of their fit are
those of ``inference``.
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

_NEGLIGIBLE = 1e-6  # log-likelihood per cell by which equal models may differ when fitted
_NAMED_IN_WARNING = 3


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

    Each model is fitted once to the training cells of each fold, all genes together, and models
    that are equal are fitted once for all their names.

    Parameters
    ----------
    models : dict of str to estimator
        Regressors, pipelines that end in one, searches over these, or
        :class:`~sc_glm.adata.AnnDataRegressor`. The first is the reference. For
        :func:`choose_model`, the simplest stands first. They are cloned and left as they are.
    X : array-like, DataFrame or AnnData of n_cells rows
        What the models are fitted to and predict from.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts; None where `X` is an AnnData that holds them.
    cv : int, splitter or iterable of (train, test), default=None
        How to split the cells, as in :func:`~sklearn.model_selection.cross_validate`; None is 5
        folds. Each cell is held out at most once.
    groups : array-like of shape (n_cells,), default=None
        The group of each cell, such as its donor. A number of folds then is one of
        :class:`~sklearn.model_selection.GroupKFold`, and standard errors are between groups. The
        held-out cells of a group are all in one fold.
    sample_weight : array-like of shape (n_cells,), default=None
        Weights of the cells, in fits and in the likelihood of held-out cells. An integer weight is
        as many cells, of one fold and one group. Without `groups`, these are independent of each
        other: give a label for each cell as `groups` if they are repetitions of one.
    n_jobs : int, default=None
        Folds to work on at the same time, as joblib counts them. The result is the same for any
        number. A model's own ``n_jobs`` shares out the genes of one fit.

    Returns
    -------
    DataFrame
        One row per gene and model, gene by gene, in the order of the counts and of `models`:

        - ``target``: name of the gene;
        - ``model``: name of the model, an ordered categorical in the order of `models`;
        - ``log_likelihood``: mean log-likelihood of held-out cells, per cell, in nats;
        - ``difference``: by how much it is above that of the reference;
        - ``standard_error``: that of ``difference``;
        - ``shortfall``: by how much it is below that of the gene's best model, for which it is 0;
        - ``shortfall_error``: the standard error of ``shortfall``;
        - ``n_failed``: number of folds in which the gene's fit did not converge
          (``converged_`` is False): the likelihood is that of the point where it stopped.

    Raises
    ------
    TypeError
        If `models` is no dict, or one of them no count model.
    ValueError
        If data are not what they should be, a cell is held out twice or a group in several folds,
        or if a model cannot be fitted to or score a fold: the message names the model and the fold.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        Once, if some fits did not converge; see ``n_failed``.

    See Also
    --------
    choose_model : The simplest model of each gene that is about as good as the best.

    Notes
    -----
    Let :math:`D_i` be the sum over cells of group :math:`i` of the difference of two models'
    log-likelihoods, :math:`n_i` the number of these cells, and :math:`m` the number of groups; all
    by weight. With :math:`N = \sum_i n_i`, the difference per cell is the ratio of means
    :math:`\delta = \sum_i D_i / N`, and its standard error

    .. math:: \sqrt{\frac{m}{m - 1} \sum_i (D_i - \delta n_i)^2} \, / \, N,

    the usual one of a ratio [1]_. Without `groups` each cell is one, and this is the standard
    deviation of the cells' differences by :math:`\sqrt{N}`. As it is of differences in the same
    cells, what makes a cell unlikely under both models is not in it. Folds share most of their
    training cells, which no standard error of a cross-validation accounts for [2]_.

    Cells of an AnnData often stand in the order of their type or batch, and a number of folds cuts
    them as they stand, as scikit-learn does. ``KFold(5, shuffle=True, random_state=0)`` mixes them.

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
    # Without groups, each cell is one by itself.
    units = np.arange(n_cells) if groups is None else group_codes(groups, X, n_cells)
    weights = check_sample_weight(sample_weight, X, np.empty((n_cells, 1)))
    splits = _splits(cv, X, y, groups, units)
    _check_held_out([test for _, test in splits], units, groups, weights)
    distinct, place = _distinct(models)
    folds = Parallel(n_jobs=n_jobs)(
        delayed(_score_fold)(
            distinct,
            X,
            y,
            split,
            units=None if groups is None else units,
            weights=None if sample_weight is None else weights,
            fold=f"fold {k} of {len(splits)}",
        )
        for k, split in enumerate(splits, start=1)
    )
    genes = folds[0][0]
    sums = _Sums(*(sum(parts) for parts in zip(*(sums for _, sums in folds), strict=True)))
    table = _table(genes, list(models), sums.of(place))
    _warn(table)
    return table


def choose_model(table: pd.DataFrame) -> pd.Series:
    """Choose each gene's simplest model that is within one standard error of its best.

    This is the one-standard-error rule [1]_, with the standard error of the difference between the
    two models in the same cells: ``shortfall`` is at most ``shortfall_error``, or at most 1e-6, as
    a gene without zero inflation has the same likelihood with and without it.

    Parameters
    ----------
    table : DataFrame
        What :func:`compare_models` returned for models of which the simplest stands first, or its
        rows of some genes.

    Returns
    -------
    Series
        The name of a model for each gene, a categorical in the order of the models; the index is
        the genes, in the order of their first rows.

    Raises
    ------
    TypeError
        If `table` is no such frame.
    ValueError
        If a gene has not each model once.

    See Also
    --------
    compare_models : Has an example.

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
            "The column 'model' must be categorical, as compare_models returns it: the order of "
            "its categories tells which model is the simplest."
        )
    names, genes = table["model"].cat.categories, pd.unique(table["target"])
    order = pd.MultiIndex.from_product([genes, names])
    rows = table.set_index(["target", "model"])
    if len(rows) != len(order) or not order.isin(rows.index).all():
        raise ValueError(f"Each gene must have one row for each of the models {list(names)}.")
    rows = rows.loc[order]
    within = rows["shortfall"] <= rows["shortfall_error"].clip(lower=_NEGLIGIBLE)
    first = within.to_numpy().reshape(len(genes), len(names)).argmax(axis=1)
    chosen = pd.Categorical.from_codes(first, dtype=table["model"].dtype)
    return pd.Series(chosen, index=pd.Index(genes, name="target"), name="model")


# What is asked


def _check_models(models: Any, y: Any) -> None:
    if not isinstance(models, Mapping):
        raise TypeError(f"models must be a dict of names and estimators, not {models!r}.")
    if not models:
        raise ValueError("models is empty: at least one is needed, the reference.")
    for name, model in models.items():
        if not isinstance(name, str):
            raise TypeError(f"The names of models must be text, not {name!r}.")
        if not isinstance(_last(model), CountRegressor):
            raise TypeError(
                f"models[{name!r}] must be a NegBinRegressor or ZINBRegressor, or end in one, not "
                f"{model!r}."
            )
        if y is None and not hasattr(getattr(model, "estimator", model), "counts"):
            raise ValueError(
                f"The target y is None, and models[{name!r}] is no AnnDataRegressor, which alone "
                "reads counts from X."
            )


def _last(model: Any) -> Any:
    """Return the regressor in a pipeline, a search or an AnnDataRegressor that is not fitted."""
    if isinstance(model, Pipeline):
        return _last(model.steps[-1][1])
    inside = getattr(model, "estimator", getattr(model, "model", None))
    return model if inside is None else _last(inside)


def _distinct(models: Mapping[str, Any]) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Return the models without repetitions, and where among them that of each name is."""
    first: dict[Any, str] = {}
    names = [first.setdefault(_key(model), name) for name, model in models.items()]
    kept = list(first.values())
    return {name: models[name] for name in kept}, np.array([kept.index(name) for name in names])


def _key(model: Any) -> Any:
    """Return what is the same for models of one class with equal parameters."""
    try:
        return joblib.hash(clone(model))
    except (pickle.PicklingError, TypeError):  # a function as a parameter, say
        return id(model)


def _splits(cv: Any, X: Any, y: Any, groups: Any, units: NDArray[np.intp]) -> list[tuple[Any, Any]]:
    if groups is not None:
        if cv is None or isinstance(cv, Integral):
            cv = GroupKFold() if cv is None else GroupKFold(cv)
        try:
            np.unique(np.asarray(groups))
        except TypeError:  # labels of several types, which scikit-learn could not sort either
            groups = units
    return list(check_cv(cv).split(X, y, groups))


def _check_held_out(
    tests: Sequence[Any], units: NDArray[np.intp], groups: Any, weights: FloatArray
) -> None:
    """Refuse folds in which cells or groups are not what the standard error takes them for."""
    fold_of = np.zeros(len(units), dtype=int)
    for fold, test in enumerate(tests, start=1):
        again = np.flatnonzero(fold_of[test])
        if len(again):
            cell = np.arange(len(units))[test][again[0]]
            raise ValueError(
                f"The cell in row {cell} is held out in folds {fold_of[cell]} and {fold}: more "
                "than once, which the standard errors do not allow for."
            )
        fold_of[test] = fold
    held_out = np.flatnonzero(fold_of)
    fold_of_unit = np.zeros(len(units), dtype=int)
    fold_of_unit[units[held_out]] = fold_of[held_out]
    torn = held_out[fold_of_unit[units[held_out]] != fold_of[held_out]]
    if len(torn):
        raise ValueError(
            f"Cells of group {shown(np.asarray(groups)[torn[0]])} are held out in several folds: "
            "GroupKFold and the like hold out a group as a whole."
        )
    of_units = np.bincount(units[held_out], weights[held_out])
    if (of_units.sum() if groups is None else np.count_nonzero(of_units)) < 2:
        what = "cells" if groups is None else "groups"
        raise ValueError(f"Standard errors need at least two {what} that are held out.")


# A fold


class _Sums(NamedTuple):
    """Sums over units, which are groups of held-out cells; those of several folds add up.

    Of a unit, n is the number of cells and L their log-likelihood under a model. A cell of weight
    two is two cells.
    """

    n_cells: float
    n_units: float
    size_squares: float  # of n²
    total: FloatArray  # of L, models x genes
    by_size: FloatArray  # of n L, models x genes
    squares: FloatArray  # of squared differences of L, models x models x genes
    n_failed: NDArray[np.int64]  # models x genes

    def of(self, models: NDArray[np.intp]) -> _Sums:
        """Return those of some models, one of which may come several times."""
        return self._replace(
            total=self.total[models],
            by_size=self.by_size[models],
            squares=self.squares[np.ix_(models, models)],
            n_failed=self.n_failed[models],
        )


def _score_fold(
    models: dict[str, Any],
    X: Any,
    y: Any,
    split: tuple[Any, Any],
    *,
    units: NDArray[np.intp] | None,
    weights: FloatArray | None,
    fold: str,
) -> tuple[NDArray[np.object_], _Sums]:
    """Fit models to training cells; return the genes, and sums over the cells held out."""
    train, test = split
    X_train, X_test = _safe_indexing(X, train), _safe_indexing(X, test)
    y_train, y_test = None, None
    if y is not None:
        y_train = _safe_indexing(y, train)
        # Checked once for all models.
        y_test = CountMatrix.of(_safe_indexing(y, test), n_cells=_num_samples(X_test))
    weight = np.ones(_num_samples(X_test)) if weights is None else weights[test]
    scored: dict[str, FittedData] = {}
    for name, model in models.items():
        with _blamed(name, fold):
            params = fit_params(model, None if weights is None else weights[train])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the table has them
                fitted = clone(model).fit(X_train, y_train, **params)
            scored[name] = FittedData.of(fitted, X_test, y_test)
            _check_comparable(scored[name], *next(iter(scored.items())))
    names = next(iter(scored.values())).names
    return names, _sums_of(scored, None if units is None else units[test], weight, fold)


def _sums_of(
    scored: dict[str, FittedData], units: NDArray[np.intp] | None, weight: FloatArray, fold: str
) -> _Sums:
    data = list(scored.values())
    cells = np.arange(len(weight))
    if units is None:
        # Each copy of a cell is a unit: it has the size one and counts as often as its weight.
        unit, inside, times = cells, np.ones(len(weight)), weight
    else:
        unit, inside = np.unique(units, return_inverse=True)[1], weight
        times = (np.bincount(unit, weight) > 0).astype(np.float64)
    sizes = np.bincount(unit, inside).astype(np.float64)
    of_unit = sp.csr_array((inside, (unit, cells)))
    shape = len(data), len(data[0].names)
    total, by_size, squares = np.empty(shape), np.empty(shape), np.zeros((len(data), *shape))
    blocks = [_finite(*item, fold) for item in scored.items()]
    for block in zip(*blocks, strict=True):
        genes = block[0][0]
        logs = [of_unit @ log_probs for _, log_probs in block]
        for j, log in enumerate(logs):
            total[j, genes] = times @ log
            by_size[j, genes] = (times * sizes) @ log
        for j, k in combinations(range(len(logs)), 2):
            between = times @ np.square(logs[j] - logs[k])
            squares[j, k, genes] = squares[k, j, genes] = between
    n_failed = np.array([~one.regressor.converged_ for one in data]).astype(np.int64)
    n_cells, n_units = float(weight.sum()), float(times.sum())
    return _Sums(n_cells, n_units, float(times @ sizes**2), total, by_size, squares, n_failed)


@contextlib.contextmanager
def _blamed(name: str, fold: str) -> Iterator[None]:
    """Name the model and the fold in what is refused."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"Model {name!r} in {fold}: {error}") from error


def _check_comparable(data: FittedData, reference: str, other: FittedData) -> None:
    if not np.array_equal(data.names, other.names):
        raise ValueError(f"its genes are not those of {reference!r}.")
    same = data.counts is other.counts or np.array_equal(
        data.counts.cell_digests(), other.counts.cell_digests()
    )
    if not same:
        raise ValueError(
            f"its counts are not those of {reference!r}, and likelihoods of different counts, as "
            "those of two layers, cannot be compared."
        )


def _finite(name: str, data: FittedData, fold: str) -> Iterator[tuple[slice, FloatArray]]:
    """Yield log-probabilities by blocks of genes, and refuse infinite ones."""
    for genes, log_probs in data.log_probs():
        wrong = ~np.isfinite(log_probs)
        if wrong.any():
            cell, gene = np.argwhere(wrong)[0]
            raise ValueError(
                f"Model {name!r} in {fold}: the log-likelihood of gene "
                f"{data.names[genes][gene]!r} in held-out cell {cell} is not finite."
            )
        yield genes, log_probs


# All folds


def _table(genes: NDArray[np.object_], names: list[str], sums: _Sums) -> pd.DataFrame:
    mean = sums.total / sums.n_cells
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
    """Return those of mean differences between each model and one other of each gene."""
    gene = np.arange(len(other))
    difference = (sums.total - sums.total[other, gene]) / sums.n_cells
    by_size = sums.by_size - sums.by_size[other, gene]
    squares = sums.squares[:, other, gene]
    centred = squares - 2 * difference * by_size + difference**2 * sums.size_squares
    variance = np.maximum(centred, 0.0) * sums.n_units / (sums.n_units - 1)
    return np.sqrt(variance) / sums.n_cells


def _warn(table: pd.DataFrame) -> None:
    failed = pd.unique(table.loc[table["n_failed"] > 0, "target"])
    if len(failed):
        more = ", ..." if len(failed) > _NAMED_IN_WARNING else ""
        warn(
            f"Fits of {len(failed)} gene(s) did not converge in some fold "
            f"({', '.join(failed[:_NAMED_IN_WARNING])}{more}): see n_failed.",
            ConvergenceWarning,
        )
